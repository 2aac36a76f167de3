//! From an ONNX file to something that runs: contract of inputs and outputs, constant weights, no
//! panic whatever the file holds.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::bail;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{Cost, TDim, ToDim, TypedModelPatch};
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::runtime::RunOptions;

use super::ENGINE;
use crate::bundle::Bundle;
use crate::encoder::conv::kernels::Kernels;
use crate::encoder::conv::recognise::replace_towers;
use crate::encoder::{EncodeError, Workload};

/// One input of a graph, as [`crate::bundle::Manifest`] documents it.
pub(in crate::encoder) struct Input {
    pub name: &'static str,
    pub kind: DatumType,
    pub shape: Vec<TDim>,
}

/// The inputs of an image tower for one picture.
pub(in crate::encoder) fn image_input(size_px: usize) -> Input {
    let shape = [1, 3, size_px, size_px].map(|d| d.to_dim());
    Input {
        name: "pixel_values",
        kind: f32::datum_type(),
        shape: shape.to_vec(),
    }
}

/// The inputs of a text tower for one text of this many tokens.
pub(in crate::encoder) fn text_inputs(tokens: impl ToDim) -> [Input; 2] {
    let tokens = tokens.to_dim();
    ["input_ids", "attention_mask"].map(|name| Input {
        name,
        kind: i64::datum_type(),
        shape: vec![1.to_dim(), tokens.clone()],
    })
}

/// Shorthand for an engine error.
pub(in crate::encoder) fn engine_error(step: &str, problem: impl std::fmt::Display) -> EncodeError {
    EncodeError::Engine {
        engine: ENGINE,
        message: format!("{step}: {problem}"),
    }
}

/// Runs `work`; what tract reports and what it panics with (it indexes and unwraps in places that a
/// hostile graph reaches) both become an error that names `step`.
pub(in crate::encoder) fn guarded<T>(
    step: &str,
    work: impl FnOnce() -> TractResult<T>,
) -> Result<T, EncodeError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| engine_error(step, format!("{error:#}"))),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(engine_error(step, format!("gave up ({text})")))
        }
    }
}

/// Parses a graph of `bundle` without fixing its shapes.
pub(in crate::encoder) fn parse(
    bundle: &Bundle,
    file: &str,
) -> Result<InferenceModel, EncodeError> {
    let mut reader = bundle
        .reader(file)
        .map_err(|error| engine_error("reading the bundle", error))?;
    guarded(&format!("parsing {file}"), || {
        tract_onnx::onnx().model_for_read(&mut reader as &mut dyn Read)
    })
}

/// A graph that is ready to run.
pub(super) struct Prepared {
    pub plan: Arc<TypedRunnableModel>,
    /// Of one run, batch and all.
    pub workload: Workload,
    /// Our own operator computes its convolutions.
    pub convolutional: bool,
}

/// Fixes the inputs, replaces convolutional towers by our own operator, folds constants and
/// optimises. The graph's inputs must be exactly `inputs`, in
/// any order; the result takes them in the order given. Its only output is `embedding`, `[n, dim]`.
pub(super) fn plan(
    model: &InferenceModel,
    file: &str,
    inputs: &[Input],
    dim: usize,
) -> Result<Prepared, EncodeError> {
    guarded(&format!("preparing {file}"), || {
        let mut model = typed(model.clone(), inputs)?;
        let workload = workload(&model)?;
        let report = replace_towers(&mut model, Kernels::best())?;
        if report.taken > 0 {
            report.log(file);
        }
        fold_weight_casts(&mut model)?;
        let batch = inputs
            .first()
            .map_or(1.to_dim(), |input| input.shape[0].clone());
        let plan = optimised(model, &[batch, dim.to_dim()])?;
        Ok(Prepared {
            plan,
            workload,
            convolutional: report.taken > 0,
        })
    })
}

/// Optimises a typed graph whose only output must have this shape.
pub(in crate::encoder) fn optimised(
    model: TypedModel,
    shape: &[TDim],
) -> TractResult<Arc<TypedRunnableModel>> {
    let model = model.into_optimized()?;
    let fact = model.output_fact(0)?;
    if fact.datum_type != f32::datum_type() || fact.shape.to_tvec()[..] != *shape {
        let wanted: Vec<String> = shape.iter().map(TDim::to_string).collect();
        let wanted = wanted.join(", ");
        bail!("gives {fact:?} where embedding_dim asks for [{wanted}] f32");
    }
    TypedSimplePlan::new_with_options(model, &RunOptions::default())
}

/// Fixes the inputs and selects the output, as for [`plan`], and finds every type and shape.
pub(in crate::encoder) fn typed(
    mut model: InferenceModel,
    inputs: &[Input],
) -> TractResult<TypedModel> {
    let found: Vec<(OutletId, String)> = model
        .input_outlets()?
        .iter()
        .map(|outlet| (*outlet, model.node(outlet.node).name.clone()))
        .collect();
    let mut order = Vec::new();
    for input in inputs {
        let outlet = found.iter().find(|(_, name)| name == input.name);
        let Some((outlet, _)) = outlet else {
            let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
            bail!("has no input {:?}, its inputs are {names:?}", input.name);
        };
        order.push(*outlet);
    }
    if found.len() != inputs.len() {
        bail!(
            "has {} inputs where {} are expected",
            found.len(),
            inputs.len()
        );
    }
    model.set_input_outlets(&order)?;
    for (index, input) in inputs.iter().enumerate() {
        let fact = InferenceFact::dt_shape(input.kind, input.shape.clone());
        model.set_input_fact(index, fact)?;
    }
    let output = model
        .output_outlets()?
        .iter()
        .copied()
        .find(|outlet| model.outlet_label(*outlet) == Some("embedding"));
    let Some(output) = output else {
        bail!("has no output \"embedding\"");
    };
    model.select_output_outlets(&[output])?;
    model.into_typed()
}

/// Sums what the operators say of themselves; shapes are fixed by now.
pub(in crate::encoder) fn workload(model: &TypedModel) -> TractResult<Workload> {
    let mut sum = Workload::default();
    for node in model.nodes() {
        for (cost, count) in node.op.cost(&model.node_input_facts(node.id)?)? {
            let count = u64::try_from(count.to_i64()?)?;
            match cost {
                Cost::FMA(kind) if kind == f32::datum_type() => sum.float_macs += count,
                Cost::FMA(_) => sum.int8_macs += count,
                _ => {}
            }
        }
    }
    Ok(sum)
}

/// Turns `Cast(constant)` into a constant. tract does so itself, but only up to 4 MiB: a larger
/// matrix stored as f16 would be cast again at every run and could not be packed ahead of time.
fn fold_weight_casts(model: &mut TypedModel) -> TractResult<()> {
    loop {
        let mut patch = None;
        for node in model.nodes() {
            let Some(cast) = node.op_as::<Cast>() else {
                continue;
            };
            let Some(weights) = &model.outlet_fact(node.inputs[0])?.konst else {
                continue;
            };
            let value = weights.cast_to_dt(cast.to)?.into_owned().into_arc_tensor();
            let mut folded = TypedModelPatch::default();
            let wire = folded.wire_node(&node.name, Const::new(value)?, &[])?[0];
            folded.shunt_outside(model, node.id.into(), wire)?;
            patch = Some(folded);
            break;
        }
        match patch {
            Some(patch) => patch.apply(model)?,
            None => return Ok(()),
        }
        model.compact()?;
    }
}
