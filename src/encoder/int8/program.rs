//! A tower cut at its fused operators, so that a batch goes through each of them in one pass.
//!
//! ```text
//! image 1 ── float part ──┐            ┌── float part ── embedding 1
//! image 2 ── float part ──┼─ sublayers ┼── float part ── embedding 2
//! image 3 ── float part ──┘            └── float part ── embedding 3
//! ```
//!
//! What is float (embeddings, pooling, projection: little) runs once for each item with the plan of
//! a single one, so it rounds the same in every batch; what is fused reads its weights once.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::source::TypedSource;

use super::op::{Fused, fused};
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
    steps: Vec<Step>,
    /// From the tower's inputs and the results of all operators to its output.
    last: Arc<TypedRunnableModel>,
    workload: Workload,
}

impl Program {
    /// Cuts and optimises a typed graph without symbols.
    ///
    /// # Errors
    /// A graph that tract cannot run.
    pub fn new(mut model: TypedModel) -> TractResult<Self> {
        let workload = workload(&model)?;
        let order = model.eval_order()?;
        let mut steps = Vec::new();
        for id in order {
            let Some(operator) = fused(model.node(id)) else {
                continue;
            };
            let mut before = model.clone();
            before.select_output_outlets(&model.node(id).inputs)?;
            steps.push(Step {
                before: runnable(before)?,
                operator,
            });
            let fact = model.outlet_fact(id.into())?.without_value();
            let node = model.node_mut(id);
            node.op = Box::new(TypedSource::new(fact));
            for input in std::mem::take(&mut node.inputs) {
                let producer = &mut model.node_mut(input.node).outputs[input.slot];
                producer.successors.retain(|inlet| inlet.node != id);
            }
            let mut inputs = model.input_outlets()?.to_vec();
            inputs.push(id.into());
            model.set_input_outlets(&inputs)?;
        }
        let last = runnable(model)?;
        Ok(Self {
            steps,
            last,
            workload,
        })
    }

    /// What one item costs.
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// Whether anything is fused.
    pub fn is_fused(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Runs a batch: for each item the tower's inputs, in the order of the graph. The outputs come in
    /// the same order; each is what it would be alone.
    ///
    /// # Errors
    /// Inputs that do not fit.
    pub fn run(&self, mut items: Vec<TVec<TValue>>) -> TractResult<Vec<Tensor>> {
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

fn runnable(mut model: TypedModel) -> TractResult<Arc<TypedRunnableModel>> {
    model.compact()?;
    TypedSimplePlan::new(model.into_optimized()?)
}
