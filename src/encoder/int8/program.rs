//! A tower cut at its fused operators, so that a batch goes through each of them in one pass.
//!
//! ```text
//! image 1 ── float part ──┐            ┌── float part ── embedding 1
//! image 2 ── float part ──┼─ sublayers ┼── float part ── embedding 2
//! image 3 ── float part ──┘            └── float part ── embedding 3
//! ```
//!
//! What is float (embeddings, pooling, projection: little) runs once for each item with the plan of
//! a single one, so it rounds the same in every batch; what is fused reads its weights once. A patch
//! embedding that stands first takes the pictures where they lie, without a tensor of them.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::source::TypedSource;

use super::one_token::narrow;
use super::op::{Accelerator, Fused, Patches, Sublayers, fused};
use crate::encoder::Workload;
use crate::encoder::tract::graph::workload;

/// A float part and the fused operator that it feeds.
struct Step {
    /// From the tower's inputs and the results of the operators so far to the operator's inputs.
    before: Arc<TypedRunnableModel>,
    operator: Arc<dyn Fused>,
}

/// A tower that runs batches.
pub struct Program {
    /// What the tower's only input goes into, and nothing else does: its results are the inputs of all
    /// that follows.
    entry: Option<Patches>,
    steps: Vec<Step>,
    /// From the inputs and the results of all operators to the tower's output.
    last: Arc<TypedRunnableModel>,
    workload: Workload,
    /// Why an accelerator did not take fused operators that it was offered.
    refused: Vec<String>,
}

impl Program {
    /// Cuts and optimises a typed graph without symbols. Where one token is all that is made of fused
    /// sublayers, they compute no other.
    ///
    /// # Errors
    /// A graph that tract cannot run.
    pub fn new(model: TypedModel) -> TractResult<Self> {
        Self::on(model, None)
    }

    /// As [`Program::new`], with the sublayers on an accelerator that it takes.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn on(model: TypedModel, accelerator: Option<&dyn Accelerator>) -> TractResult<Self> {
        let mut model = model.into_decluttered()?;
        narrow(&mut model)?;
        let workload = workload(&model)?;
        let refused = match accelerator {
            Some(accelerator) => place(&mut model, accelerator)?,
            None => Vec::new(),
        };
        let order = model.eval_order()?;
        let mut entry = None;
        let mut steps = Vec::new();
        for id in order {
            let Some(operator) = fused(model.node(id)) else {
                continue;
            };
            let enters = entry.is_none() && steps.is_empty();
            let here = enters.then(|| entry_at(&model, id)).flatten();
            if here.is_none() {
                let mut before = model.clone();
                before.select_output_outlets(&model.node(id).inputs)?;
                steps.push(Step {
                    before: runnable(before)?,
                    operator,
                });
            }
            let fact = model.outlet_fact(id.into())?.without_value();
            let node = model.node_mut(id);
            node.op = Box::new(TypedSource::new(fact));
            for input in std::mem::take(&mut node.inputs) {
                let producer = &mut model.node_mut(input.node).outputs[input.slot];
                producer.successors.retain(|inlet| inlet.node != id);
            }
            let mut inputs = model.input_outlets()?.to_vec();
            if here.is_some() {
                inputs.clear();
                entry = here;
            }
            inputs.push(id.into());
            model.set_input_outlets(&inputs)?;
        }
        let last = runnable(model)?;
        Ok(Self {
            entry,
            steps,
            last,
            workload,
            refused,
        })
    }

    /// Whether an accelerator does what sublayers there are, or some of it, and has not failed.
    pub fn is_accelerated(&self) -> bool {
        let entry = self.entry.as_ref().and_then(Fused::accelerated);
        let steps = self.steps.iter();
        let mut placed = steps
            .filter_map(|step| step.operator.accelerated())
            .peekable();
        entry.unwrap_or(true) && placed.peek().is_some() && placed.all(|works| works)
    }

    /// Why an accelerator did not take fused operators that it was offered.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// What one item costs.
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// Whether anything is fused.
    pub fn is_fused(&self) -> bool {
        self.entry.is_some() || !self.steps.is_empty()
    }

    /// Whether [`Program::run_pictures`] makes no tensors of them.
    #[cfg(test)]
    pub fn takes_pictures(&self) -> bool {
        self.entry.is_some()
    }

    /// Runs a batch of pictures, `shape` each, the only input of the tower; otherwise as
    /// [`Program::run`].
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_pictures(&self, shape: &[usize], pictures: &[&[f32]]) -> TractResult<Vec<Tensor>> {
        if let Some(entry) = &self.entry {
            return self.follow(singles(entry.run_on(shape, pictures)?));
        }
        let tensors = pictures
            .iter()
            .map(|picture| Tensor::from_shape(shape, picture))
            .collect::<TractResult<_>>()?;
        self.follow(singles(tensors))
    }

    /// Runs a batch: for each item the tower's inputs, in the order of the graph. The outputs come in
    /// the same order; each is what it would be alone.
    ///
    /// # Errors
    /// Inputs that do not fit.
    pub fn run(&self, items: Vec<TVec<TValue>>) -> TractResult<Vec<Tensor>> {
        match &self.entry {
            Some(entry) => self.follow(singles(entry.run(items)?)),
            None => self.follow(items),
        }
    }

    /// Runs a batch from behind the entry.
    fn follow(&self, mut items: Vec<TVec<TValue>>) -> TractResult<Vec<Tensor>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        for step in &self.steps {
            let inputs = items
                .iter()
                .map(|item| step.before.run(item.clone()))
                .collect::<TractResult<Vec<_>>>()?;
            let results = step.operator.run(inputs)?;
            for (item, result) in items.iter_mut().zip(results) {
                item.push(result.into_tvalue());
            }
        }
        items
            .into_iter()
            .map(|item| Ok(self.last.run(item)?.remove(0).into_tensor()))
            .collect()
    }
}

/// Brings patch embeddings and sublayers to an accelerator; says why it did not take some.
fn place(model: &mut TypedModel, accelerator: &dyn Accelerator) -> TractResult<Vec<String>> {
    let mut refused = Vec::new();
    for id in model.eval_order()? {
        let node = model.node(id);
        if let Some(patches) = node.op_as::<Patches>() {
            match accelerator.place_patches(patches) {
                Ok(device) => model.node_mut(id).op = Box::new(patches.on(device)),
                Err(reason) => refused.push(reason),
            }
            continue;
        }
        let Some(sublayers) = node.op_as::<Sublayers>() else {
            continue;
        };
        let shape = &model.outlet_fact(node.inputs[0])?.shape;
        let tokens = shape.volume().to_usize()? / sublayers.width();
        match accelerator.place(sublayers, tokens) {
            Ok(device) => model.node_mut(id).op = Box::new(sublayers.on(device)),
            Err(reason) => refused.push(reason),
        }
    }
    Ok(refused)
}

/// Each the only value of an item.
fn singles(tensors: Vec<Tensor>) -> Vec<TVec<TValue>> {
    tensors
        .into_iter()
        .map(|tensor| tvec!(tensor.into_tvalue()))
        .collect()
}

/// The patch embedding at a node that takes the only input of the model, which goes nowhere else.
fn entry_at(model: &TypedModel, id: usize) -> Option<Patches> {
    let node = model.node(id);
    let (Ok([input]), [from]) = (model.input_outlets(), &node.inputs[..]) else {
        return None;
    };
    let alone = input == from && model.outlet_successors(*input).len() == 1;
    node.op_as::<Patches>().filter(|_| alone).cloned()
}

/// A part of a graph that was decluttered as a whole.
fn runnable(mut model: TypedModel) -> TractResult<Arc<TypedRunnableModel>> {
    model.compact()?;
    model.optimize()?;
    TypedSimplePlan::new(model)
}

#[cfg(test)]
mod tests;
