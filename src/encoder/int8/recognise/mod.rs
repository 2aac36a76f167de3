//! Finds transformer sublayers in tract's typed graph and replaces them with fused int8 operators.
//!
//! A graph is read backwards from each sum or normalisation: residual, branch, output projection,
//! attention or activation, input projections. What an exporter may choose is computed instead of
//! matched: head layouts by sending positions through the views, activations by their values on a
//! grid, masks by evaluating them. Names of nodes do not matter. What does not fit stays tract's,
//! and the [`Report`] says what it costs.

use std::collections::BTreeSet;
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::kernels::Context;
use super::op::Sublayers;
use super::sublayer::Placement;

mod activation;
mod attention;
mod block;
mod linear;
mod mask;
mod merge;
mod norm;
mod patches;
mod product;
mod reader;
mod report;
mod table;

pub use report::{Found, Left, Reason, Report};

use block::{Block, Branch};
use mask::{Keys, wire_sum};
use patches::Tiled;
use reader::Reader;
use table::Table;

/// What to leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Sublayers that stay float, by their position in [`Report::found`].
    pub keep_float: BTreeSet<usize>,
    /// Leaves the patch embedding float.
    pub float_patches: bool,
    /// Leaves embedding tables float.
    pub float_tables: bool,
}

/// Replaces what is recognised in `model`, which must come fresh from
/// [`into_typed`](tract_onnx::prelude::InferenceModelExt::into_typed): decluttering moves axes
/// through the graph. `symbols` binds every symbol in the inputs' shapes to some value ≥ 2.
///
/// # Errors
/// A graph that tract finds inconsistent, or weights that are not finite.
pub fn recognise(
    mut model: TypedModel,
    symbols: SymbolValues,
    context: &Arc<Context>,
    options: &Options,
) -> TractResult<(TypedModel, Report)> {
    let (blocks, tiled, tables) = find(&model, symbols.clone())?;
    let mut report = Report::default();
    let mut moved: HashMap<OutletId, OutletId> = HashMap::new();
    let mut masks: Vec<(Vec<Keys>, OutletId)> = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let kept = options.keep_float.contains(&index);
        report.found.push(Found::new(&model, block, kept));
        if !kept {
            replace(&mut model, block, context, &mut moved, &mut masks)?;
        }
    }
    for tiled in tiled.iter().filter(|_| !options.float_patches) {
        report.patches_macs += tiled.macs();
        tiled.replace(&mut model, context)?;
    }
    for table in tables.iter().filter(|_| !options.float_tables) {
        table.replace(&mut model)?;
    }
    model.compact()?;
    merge::merge(&mut model)?;
    report.left = report::left(&model, &symbols)?;
    Ok((model, report))
}

/// All sublayers, in the order in which they are evaluated, patch embeddings, and embedding tables.
fn find(
    model: &TypedModel,
    symbols: SymbolValues,
) -> TractResult<(Vec<Block>, Vec<Tiled>, Vec<Table>)> {
    let reader = Reader::new(model, symbols)?;
    let mut blocks: Vec<Block> = Vec::new();
    let (mut tiled, mut tables) = (Vec::new(), Vec::new());
    for node in model.eval_order()? {
        if let Some(block) = reader.block(OutletId::new(node, 0)) {
            // A normalisation without its γ and β looks like one already.
            blocks.retain(|have| {
                !(have.placement == Placement::Post
                    && block.placement == Placement::Post
                    && reader.same(have.norm.input, block.norm.input))
            });
            blocks.push(block);
        }
        tiled.extend(reader.tiled(OutletId::new(node, 0)));
        tables.extend(reader.table(OutletId::new(node, 0)));
    }
    Ok((blocks, tiled, tables))
}

fn replace(
    model: &mut TypedModel,
    block: &Block,
    context: &Arc<Context>,
    moved: &mut HashMap<OutletId, OutletId>,
    masks: &mut Vec<(Vec<Keys>, OutletId)>,
) -> TractResult<()> {
    let name = format!("{}.int8", model.node(block.output.node).name);
    let op = Sublayers::new(Arc::clone(context), vec![Arc::new(block.quantize()?)]);
    let input = moved.get(&block.input).copied().unwrap_or(block.input);
    let mut inputs = vec![input];
    if let Branch::Attention { attention, .. } = &block.branch
        && !attention.mask.keys.is_empty()
    {
        inputs.push(mask(model, &name, &attention.mask.keys, masks)?);
    }
    let mut patch = TypedModelPatch::new("int8 sublayer");
    let taps = patch.taps(model, &inputs)?;
    let mut wire = patch.wire_node(&name, op, &taps)?[0];
    let (have, wanted) = (
        patch.outlet_fact(wire)?.shape.to_tvec(),
        model.outlet_fact(block.output)?.shape.to_tvec(),
    );
    if have != wanted {
        let reshape = AxisOp::Reshape(0, have, wanted);
        wire = patch.wire_node(format!("{name}.shape"), reshape, &[wire])?[0];
    }
    patch.shunt_outside(model, block.output, wire)?;
    let added = model.nodes().len();
    patch.apply(model)?;
    let after = model
        .nodes()
        .iter()
        .skip(added)
        .rev()
        .find(|node| node.name == name || node.name == format!("{name}.shape"));
    let after = after.context("a patched operator is gone")?;
    moved.insert(block.output, after.id.into());
    Ok(())
}

/// The outlet with the sum of these masks, `[1, keys] f32`, wired once.
fn mask(
    model: &mut TypedModel,
    name: &str,
    keys: &[Keys],
    masks: &mut Vec<(Vec<Keys>, OutletId)>,
) -> TractResult<OutletId> {
    if let Some((_, wired)) = masks.iter().find(|(have, _)| have == keys) {
        return Ok(*wired);
    }
    let mut wires = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        wires.push(key.wire(&format!("{name}.mask.{index}"), model)?);
    }
    let sum = wire_sum(&format!("{name}.mask"), model, &wires)?;
    masks.push((keys.to_vec(), sum));
    Ok(sum)
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
