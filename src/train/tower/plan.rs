//! A graph as steps over numbered places.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use tract_onnx::pb::GraphProto;

use super::op::Op;

/// The graph's output, by [`crate::bundle::Manifest`]'s contract.
pub(super) const OUTPUT: &str = "embedding";

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Its name, for messages.
    pub name: String,
    pub op: Op,
    /// Places of the inputs; `None` for those left out.
    pub inputs: Vec<Option<usize>>,
    /// Place of the output.
    pub output: usize,
    /// Places that nothing needs after this step.
    pub done: Vec<usize>,
}

/// All steps that the embedding needs, in an order in which they can be done.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    /// Place of every name: inputs, constants, outputs of nodes.
    pub places: HashMap<String, usize>,
    /// Place of the embedding.
    pub output: usize,
}

impl Plan {
    /// Orders `graph`; `constants` are names that need no node.
    ///
    /// # Errors
    /// An operator that gradients cannot flow through, or a graph that is none.
    pub fn read(graph: &GraphProto, constants: &HashSet<String>) -> Result<Self> {
        let mut places = HashMap::new();
        let mut place = |name: &str| {
            let next = places.len();
            *places.entry(name.to_owned()).or_insert(next)
        };
        let mut known: HashSet<&str> = constants.iter().map(String::as_str).collect();
        known.extend(graph.input.iter().map(|input| input.name.as_str()));
        let mut steps = Vec::new();
        for node in &graph.node {
            let output = node.output.first().context("a node without an output")?;
            if constants.contains(output) {
                continue;
            }
            let context = || format!("node {output} is {}", node.op_type);
            for input in node.input.iter().filter(|input| !input.is_empty()) {
                ensure!(
                    known.contains(input.as_str()),
                    "node {output} needs {input}, which nothing before it gives"
                );
            }
            known.insert(output);
            let input = |name: &String| (!name.is_empty()).then(|| place(name));
            steps.push(Step {
                name: output.clone(),
                op: Op::read(node).with_context(context)?,
                inputs: node.input.iter().map(input).collect(),
                output: place(output),
                done: Vec::new(),
            });
        }
        let output = *places
            .get(OUTPUT)
            .with_context(|| format!("no node of the graph gives {OUTPUT:?}"))?;
        let mut plan = Self {
            steps,
            places,
            output,
        };
        plan.prune();
        plan.keep_compared_integers();
        Ok(plan)
    }

    /// Integers that are cast only to find the largest of them stay integers: in bf16 the ids that begin
    /// and end a text, 49406 and 49407, would be one.
    fn keep_compared_integers(&mut self) {
        let cast = Op::Cast { float: true };
        for index in 0..self.steps.len() {
            let output = self.steps[index].output;
            let mut readers = self
                .steps
                .iter()
                .filter(|step| step.inputs.contains(&Some(output)));
            if self.steps[index].op == cast
                && output != self.output
                && readers.all(|step| matches!(step.op, Op::ArgMax { .. }))
            {
                self.steps[index].op = Op::Identity;
            }
        }
    }

    /// Drops what the embedding does not need, and notes after which step a value is no longer needed.
    fn prune(&mut self) {
        let mut needed = HashSet::from([self.output]);
        let mut last = HashSet::from([self.output]);
        let mut kept = Vec::new();
        for mut step in std::mem::take(&mut self.steps).into_iter().rev() {
            if !needed.contains(&step.output) {
                continue;
            }
            needed.extend(step.inputs.iter().flatten());
            let inputs: HashSet<usize> = step.inputs.iter().flatten().copied().collect();
            step.done = inputs.into_iter().filter(|i| last.insert(*i)).collect();
            kept.push(step);
        }
        kept.reverse();
        self.steps = kept;
    }
}
