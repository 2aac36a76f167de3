//! A bundle's towers, differentiable: the graph that the daemon runs is read, run with candle, and
//! written back with other weights.
//!
//! ```text
//! image.onnx ─► parameters, plan ─► compute (gradients) ─► learnt parameters ─► image.onnx
//! ```
//!
//! So a tuned tower has the structure it had, whatever family it came from, and everything that takes
//! a float bundle takes it. Constants that several towers share (masks, powers, single numbers) stay;
//! everything else can be learnt.

mod compute;
mod op;
mod parameter;
mod plan;
pub mod value;

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use prost::Message;
use tract_onnx::pb::{GraphProto, ModelProto};

use self::op::{Arithmetic, Op};
use self::parameter::{Constants, Parameter};
pub use self::parameter::{Rank, Track};
use self::plan::{Plan, Step};
use self::value::{Ints, Value};
use super::descent::Learnable;
use super::onnx::Model;
use super::targets::unit_rows;
use crate::encoder::{ModelInput, Padded};

/// What is learnt of a tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Learn {
    /// Nothing.
    Nothing,
    /// The weights of the last product.
    Projection,
    /// Adapters beside the matrices of attention and feed-forward parts.
    Adapters(Rank),
    /// Those, and the weights of the last product.
    AdaptersAndProjection(Rank),
    /// Every weight.
    Everything,
}

/// One tower.
pub struct Tower {
    head: ModelProto,
    /// Without the values of the parameters.
    graph: GraphProto,
    plan: Plan,
    parameters: Vec<Parameter>,
    /// What lies at a place before the first step.
    filled: Vec<(usize, Filled)>,
    device: Device,
    kind: DType,
}

#[derive(Clone)]
enum Filled {
    Parameter(usize),
    Fixed(Value),
}

impl Tower {
    /// Reads an ONNX file onto `device`; matrices are multiplied in `kind` (f32, f64, or bf16
    /// with weights, normalisations and softmax in f32).
    ///
    /// # Errors
    /// A file that is no graph, or one with an operator that cannot be learnt through.
    pub fn read(bytes: Vec<u8>, device: &Device, kind: DType) -> Result<Self> {
        let mut head = ModelProto::decode(&bytes[..]).context("no ONNX file")?;
        drop(bytes);
        let mut graph = head.graph.take().context("an ONNX file without a graph")?;
        let Constants { parameters, fixed } = parameter::take(&mut graph, device)?;
        let names = parameters.iter().map(|p| p.name.clone());
        let names: HashSet<String> = names.chain(fixed.keys().cloned()).collect();
        let plan = Plan::read(&graph, &names)?;
        let place = |name: &str| plan.places.get(name).copied();
        let mut filled = Vec::new();
        for (index, parameter) in parameters.iter().enumerate() {
            let place = place(&parameter.name);
            filled.extend(place.map(|place| (place, Filled::Parameter(index))));
        }
        for (name, value) in fixed {
            let value = match value {
                Value::Float(tensor) => Value::Float(tensor.to_dtype(kind)?),
                ints @ Value::Ints(_) => ints,
            };
            filled.extend(place(&name).map(|place| (place, Filled::Fixed(value))));
        }
        Ok(Self {
            head,
            graph,
            plan,
            parameters,
            filled,
            device: device.clone(),
            kind,
        })
    }

    /// Chooses what is learnt; adapters begin as the seed says and change nothing yet. Adapters that
    /// were there are forgotten.
    ///
    /// # Errors
    /// A tower without the matrices that adapters stand beside.
    pub fn learn(&mut self, what: Learn, seed: u64) -> Result<()> {
        let projection = match what {
            Learn::Projection | Learn::AdaptersAndProjection(_) => self.projection()?,
            _ => Vec::new(),
        };
        let adapters = match what {
            Learn::Adapters(rank) | Learn::AdaptersAndProjection(rank) => Some(rank),
            _ => None,
        };
        let adapted = match adapters {
            Some(_) => self.adapted()?,
            None => HashSet::new(),
        };
        for (index, parameter) in self.parameters.iter_mut().enumerate() {
            parameter.adapter = None;
            parameter.learnt = what == Learn::Everything || projection.contains(&index);
            if let Some(rank) = adapters
                && adapted.contains(&index)
            {
                parameter.adapt(rank, seed)?;
            }
        }
        Ok(())
    }

    /// What is learnt now, named behind `prefix`. Weights that the embedding does not depend on are
    /// not among them.
    pub fn learnables(&self, prefix: &str) -> Vec<Learnable> {
        let used = |index: usize| {
            self.filled.iter().any(|(place, filled)| {
                matches!(filled, Filled::Parameter(found) if *found == index)
                    && self.is_read(*place)
            })
        };
        let parameters = self.parameters.iter().enumerate();
        let parameters =
            parameters.filter(|(index, p)| (p.learnt || p.adapter.is_some()) && used(*index));
        parameters.flat_map(|(_, p)| p.learnables(prefix)).collect()
    }

    fn is_read(&self, place: usize) -> bool {
        let mut steps = self.plan.steps.iter();
        steps.any(|step| step.inputs.contains(&Some(place)))
    }

    /// The parameter at a step's input.
    fn parameter_at(&self, step: &Step, input: usize) -> Option<usize> {
        let place = (*step.inputs.get(input)?)?;
        self.filled.iter().find_map(|(at, filled)| match filled {
            Filled::Parameter(index) if *at == place => Some(*index),
            _ => None,
        })
    }

    /// A product of rows with a weight.
    fn weight(&self, step: &Step) -> Option<usize> {
        let product = matches!(step.op, Op::MatMul | Op::Gemm);
        let index = self.parameter_at(step, 1).filter(|_| product)?;
        (self.parameters[index].var.rank() == 2).then_some(index)
    }

    /// Weight and bias of the last product.
    fn projection(&self) -> Result<Vec<usize>> {
        let steps = &self.plan.steps;
        let last = steps.iter().rposition(|step| self.weight(step).is_some());
        let last = last.context("the tower has no product to learn")?;
        let mut found = vec![self.weight(&steps[last]).context("no weight")?];
        found.extend(self.parameter_at(&steps[last], 2));
        let next = steps[last + 1..].iter().find(|step| {
            step.inputs.contains(&Some(steps[last].output))
                && step.op == Op::Arithmetic(Arithmetic::Add)
        });
        if let Some(add) = next {
            found.extend((0..2).filter_map(|input| self.parameter_at(add, input)));
        }
        Ok(found)
    }

    /// Matrices of the layers. A layer is known by its number in the name, as every writer of
    /// transformers has it; the projection has none.
    fn adapted(&self) -> Result<HashSet<usize>> {
        let numbered = |name: &str| {
            name.split('.').any(|part| {
                let number = part.strip_prefix("layer").unwrap_or(part);
                !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
            })
        };
        let steps = self.plan.steps.iter();
        let found: HashSet<usize> = steps
            .filter_map(|step| self.weight(step))
            .filter(|index| numbered(&self.parameters[*index].name) && !self.is_projection(*index))
            .collect();
        ensure!(
            !found.is_empty(),
            "the tower has no transformer layers for adapters to stand beside; use --stage \
             projection, or --tower to adapt the other one only"
        );
        Ok(found)
    }

    fn is_projection(&self, index: usize) -> bool {
        self.projection().is_ok_and(|found| found.contains(&index))
    }

    /// The device that it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the graph: `embedding [n, D] f32`, not normalised.
    ///
    /// # Errors
    /// An input that is missing or does not fit, with the node where it did not.
    pub fn run(&self, inputs: &[(&str, Value)], track: Track) -> Result<Tensor> {
        let mut values: Vec<Option<Value>> = vec![None; self.plan.places.len()];
        for (place, filled) in &self.filled {
            values[*place] = Some(match filled {
                Filled::Fixed(value) => value.clone(),
                Filled::Parameter(index) => {
                    Value::Float(self.parameters[*index].tensor(self.kind, track)?)
                }
            });
        }
        for (name, value) in inputs {
            if let Some(place) = self.plan.places.get(*name) {
                values[*place] = Some(value.clone());
            }
        }
        for step in &self.plan.steps {
            let context = || format!("node {}", step.name);
            let taken: Vec<Option<Value>> = step
                .inputs
                .iter()
                .map(|place| place.and_then(|place| values[place].clone()))
                .collect();
            let mut result = self.apply(step, &taken, track).with_context(context)?;
            if let (Op::Cast { float: true }, Value::Ints(ints)) = (&step.op, &result) {
                result = Value::Float(ints.floats(self.kind, &self.device)?);
            }
            drop(taken);
            for place in &step.done {
                values[*place] = None;
            }
            values[step.output] = Some(result);
        }
        let embedding = values[self.plan.output].take();
        let embedding = embedding.context("the graph gives no embedding")?;
        let embedding = embedding.float()?;
        ensure!(
            embedding.rank() == 2,
            "an embedding of {:?}",
            embedding.dims()
        );
        Ok(embedding.to_dtype(compute::exact(self.kind))?)
    }

    fn apply(&self, step: &Step, taken: &[Option<Value>], track: Track) -> Result<Value> {
        let result = compute::apply(&step.op, taken)?;
        let adapter = self
            .weight(step)
            .map(|index| &self.parameters[index].adapter);
        let (Some(Some(adapter)), Some(Some(x))) = (adapter, taken.first()) else {
            return Ok(result);
        };
        let change = adapter.change(x.float()?, track)?;
        Ok(Value::Float((result.float()? + change)?))
    }

    /// Unit embeddings `[n, D]` of pictures, on the host.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn images(&self, inputs: &[&ModelInput], track: Track) -> Result<Tensor> {
        let edge = inputs.first().map_or(0, |input| input.size_px);
        let values = inputs.iter().flat_map(|input| &input.values).copied();
        let dims = (inputs.len(), 3, edge, edge);
        let pixels = Tensor::from_vec(values.collect::<Vec<f32>>(), dims, &self.device)?;
        let pixels = Value::Float(pixels.to_dtype(self.kind)?);
        let embedding = self.run(&[("pixel_values", pixels)], track)?;
        Ok(unit_rows(&embedding)?.to_device(&Device::Cpu)?)
    }

    /// Unit embeddings `[n, D]` of texts, all padded to one length, on the host.
    ///
    /// # Errors
    /// As [`Self::run`], or texts of several lengths.
    pub fn texts(&self, texts: &[Padded], track: Track) -> Result<Tensor> {
        let length = texts.first().map_or(0, Padded::length);
        ensure!(
            texts.iter().all(|text| text.length() == length),
            "texts of several lengths"
        );
        let joined = |part: fn(&Padded) -> &Vec<i64>| {
            Value::Ints(Ints {
                dims: vec![texts.len(), length],
                values: texts.iter().flat_map(part).copied().collect(),
            })
        };
        let inputs = [
            ("input_ids", joined(|text| &text.ids)),
            ("attention_mask", joined(|text| &text.mask)),
        ];
        let embedding = self.run(&inputs, track)?;
        Ok(unit_rows(&embedding)?.to_device(&Device::Cpu)?)
    }

    /// Sets what [`Self::learnables`] names.
    ///
    /// # Errors
    /// A value of another shape.
    pub fn set(&self, prefix: &str, values: &HashMap<String, Tensor>) -> Result<()> {
        for learnable in self.learnables(prefix) {
            if let Some(value) = values.get(&learnable.name) {
                let context = || format!("{} does not fit", learnable.name);
                let value = value.to_device(learnable.var.device())?.copy()?;
                learnable.var.set(&value).with_context(context)?;
            }
        }
        Ok(())
    }

    /// Takes adapters into their matrices and rounds what is stored as half, so that what is measured
    /// is what is written.
    ///
    /// # Errors
    /// candle's.
    pub fn settle(&mut self) -> Result<()> {
        for parameter in &mut self.parameters {
            parameter.merge()?;
            parameter.learnt = false;
            parameter.round()?;
        }
        Ok(())
    }

    /// The graph with the weights as they are.
    ///
    /// # Errors
    /// A weight that cannot be stored, with its name.
    pub fn into_model(mut self) -> Result<Model> {
        self.settle()?;
        for parameter in &self.parameters {
            self.graph.initializer[parameter.stored].raw_data = parameter.bytes()?;
        }
        Ok(Model::from_parts(self.head, self.graph))
    }
}

#[cfg(test)]
mod tests;
