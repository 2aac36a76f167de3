//! What can be learnt of a tower: the graph's constants, and low-rank adapters beside its matrices.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, TensorProto};
use tract_onnx::prelude::f16;

use super::compute::product;
use super::value::{Ints, Value};
use crate::train::descent::{Learnable, Unit};
use crate::train::onnx::Store;
use crate::train::onnx::layers::MASKED_SCORE;

/// A weight of the graph.
pub(super) struct Parameter {
    /// As the nodes call it.
    pub name: String,
    /// Position among the graph's initializers.
    pub stored: usize,
    /// Whether it is stored as IEEE half.
    pub half: bool,
    /// f32.
    pub var: Var,
    /// Whether it is learnt now.
    pub learnt: bool,
    /// Beside it, where it is adapted.
    pub adapter: Option<Adapter>,
}

/// `W + s·A·B` in place of `W [k, m]` (LoRA, Hu et al., ICLR 2022), `A [k, r]`, `B [r, m]`, `s = alpha/r`.
pub(super) struct Adapter {
    pub down: Var,
    pub up: Var,
    pub scale: f64,
}

/// Whether a run is remembered, to go back through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// What is learnt will be asked for its gradient.
    Gradients,
    /// Embeddings only.
    Nothing,
}

/// Rank and strength of adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rank {
    /// Width between the two matrices.
    pub rank: usize,
    /// Numerator of the factor before their product; the denominator is the rank.
    pub alpha: f64,
}

impl Parameter {
    /// The values in `kind`; those that are learnt are tracked if wanted.
    pub fn tensor(&self, kind: DType, track: Track) -> candle_core::Result<Tensor> {
        let tensor = if self.learnt && track == Track::Gradients {
            self.var.as_tensor().clone()
        } else {
            self.var.as_detached_tensor()
        };
        tensor.to_dtype(kind)
    }

    /// What adaptive clipping takes together.
    pub fn unit(&self) -> Unit {
        match self.var.dims() {
            // A kernel, [outputs, inputs, height, width].
            [_, _, _, _] => Unit::Rows,
            dims if dims.iter().filter(|size| **size > 1).count() > 1 => Unit::Columns,
            _ => Unit::Whole,
        }
    }

    /// Begins an adapter that changes nothing; what it begins with depends on the name and `seed`
    /// alone.
    ///
    /// # Errors
    /// No matrix, or candle's.
    pub fn adapt(&mut self, rank: Rank, seed: u64) -> Result<()> {
        let (inputs, outputs) = self.var.dims2()?;
        ensure!(
            (1..=inputs.min(outputs)).contains(&rank.rank),
            "an adapter of rank {} beside {} [{inputs}, {outputs}]",
            rank.rank,
            self.name
        );
        let salt = self.name.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut rng = StdRng::seed_from_u64(salt);
        // PyTorch's usual start of a linear layer, as LoRA's own implementation takes it.
        #[expect(clippy::cast_precision_loss, reason = "a width")]
        let bound = 1.0 / (inputs as f32).sqrt();
        let count = inputs * rank.rank;
        let values: Vec<f32> = (0..count)
            .map(|_| rng.random_range(-bound..bound))
            .collect();
        let device = self.var.device();
        #[expect(clippy::cast_precision_loss, reason = "a rank")]
        let scale = rank.alpha / rank.rank as f64;
        self.adapter = Some(Adapter {
            down: Var::from_vec(values, (inputs, rank.rank), device)?,
            up: Var::zeros((rank.rank, outputs), DType::F32, device)?,
            scale,
        });
        Ok(())
    }

    /// What is learnt of it.
    pub fn learnables(&self, prefix: &str) -> Vec<Learnable> {
        let named = |end: &str, var: &Var, unit| Learnable {
            name: format!("{prefix}{}{end}", self.name),
            var: var.clone(),
            unit,
        };
        let mut all = Vec::new();
        if self.learnt {
            all.push(named("", &self.var, self.unit()));
        }
        if let Some(adapter) = &self.adapter {
            all.push(named(".lora_a", &adapter.down, Unit::Columns));
            all.push(named(".lora_b", &adapter.up, Unit::Columns));
        }
        all
    }

    /// Takes the adapter into the matrix.
    ///
    /// # Errors
    /// candle's.
    pub fn merge(&mut self) -> Result<()> {
        if let Some(adapter) = self.adapter.take() {
            let change = (adapter.down.matmul(&adapter.up)? * adapter.scale)?;
            let merged = (self.var.as_tensor() + change)?.detach();
            self.var.set(&merged.contiguous()?)?;
        }
        Ok(())
    }

    /// Rounds the values to what can be stored.
    ///
    /// # Errors
    /// candle's.
    pub fn round(&self) -> Result<()> {
        if self.half {
            let rounded = self.var.as_detached_tensor().to_dtype(DType::F16)?;
            self.var.set(&rounded.to_dtype(DType::F32)?)?;
        }
        Ok(())
    }

    /// The values as the graph stores them.
    ///
    /// # Errors
    /// A value that is not finite, or candle's.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let values = self.var.flatten_all()?.to_vec1::<f32>()?;
        let store = if self.half { Store::Half } else { Store::Float };
        let bytes = store.bytes(&values);
        let finite = |v: &f32| v.is_finite() && (!self.half || f16::from_f32(*v).is_finite());
        ensure!(
            values.iter().all(finite),
            "{} became larger than can be stored",
            self.name
        );
        Ok(bytes)
    }
}

impl Adapter {
    /// `s·(x·A)·B`.
    pub fn change(&self, x: &Tensor, track: Track) -> Result<Tensor> {
        let part = |var: &Var| match track {
            Track::Gradients => var.as_tensor().to_dtype(x.dtype()),
            Track::Nothing => var.as_detached_tensor().to_dtype(x.dtype()),
        };
        let down = product(x, &part(&self.down)?)?;
        Ok((product(&down, &part(&self.up)?)? * self.scale)?)
    }
}

/// Constants of a graph by name.
pub(super) struct Constants {
    pub parameters: Vec<Parameter>,
    /// What stays as it is: integers, single numbers, masks, bytes.
    pub fixed: HashMap<String, Value>,
}

/// Takes the weights out of `graph`, whose entries keep name and shape only. Numbers are kept twice
/// nowhere.
///
/// # Errors
/// A tensor of an unknown kind or of another length than its shape.
pub(super) fn take(graph: &mut GraphProto, device: &Device) -> Result<Constants> {
    // A constant that is stored as half is known to the nodes by the name of its cast.
    let casts: HashMap<String, String> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "Cast")
        .filter_map(|node| Some((node.input.first()?.clone(), node.output.first()?.clone())))
        .collect();
    let mut constants = Constants {
        parameters: Vec::new(),
        fixed: HashMap::new(),
    };
    for (stored, tensor) in graph.initializer.iter_mut().enumerate() {
        let context = format!("tensor {}", tensor.name);
        let half = tensor.data_type == DataType::Float16 as i32;
        let cast = casts.get(&tensor.name).filter(|_| half);
        let name = cast.unwrap_or(&tensor.name).clone();
        match read(tensor).context(context)? {
            Read::Ints(ints) => {
                constants.fixed.insert(name, Value::Ints(ints));
            }
            Read::Floats(dims, values, learnable) => {
                let fixed = !learnable || values.len() == 1 || is_mask(&values);
                let tensor_of = Tensor::from_vec(values, dims, device)?;
                if fixed {
                    constants.fixed.insert(name, Value::Float(tensor_of));
                    continue;
                }
                tensor.raw_data = Vec::new();
                tensor.float_data = Vec::new();
                constants.parameters.push(Parameter {
                    name,
                    stored,
                    half,
                    var: Var::from_tensor(&tensor_of)?,
                    learnt: false,
                    adapter: None,
                });
            }
        }
    }
    Ok(constants)
}

/// Scores that take tokens out of sight are no weights.
fn is_mask(values: &[f32]) -> bool {
    let hidden = |v: &f32| *v <= MASKED_SCORE;
    values.iter().any(hidden) && values.iter().all(|v| *v == 0.0 || hidden(v))
}

enum Read {
    Ints(Ints),
    /// Shape, values, and whether they can be learnt.
    Floats(Vec<usize>, Vec<f32>, bool),
}

fn read(tensor: &TensorProto) -> Result<Read> {
    let dims: Vec<usize> = tensor
        .dims
        .iter()
        .map(|d| usize::try_from(*d))
        .collect::<Result<_, _>>()
        .context("a negative length")?;
    let raw = &tensor.raw_data;
    let is = |kind: DataType| tensor.data_type == kind as i32;
    let read = if is(DataType::Float) && raw.is_empty() {
        Read::Floats(dims.clone(), tensor.float_data.clone(), true)
    } else if is(DataType::Float) {
        let words = raw.as_chunks::<4>().0.iter();
        Read::Floats(
            dims.clone(),
            words.map(|b| f32::from_le_bytes(*b)).collect(),
            true,
        )
    } else if is(DataType::Float16) {
        let halves = raw.as_chunks::<2>().0.iter();
        let values = halves.map(|b| f16::from_le_bytes(*b).to_f32()).collect();
        Read::Floats(dims.clone(), values, true)
    } else if is(DataType::Int8) {
        let values = raw.iter().map(|b| f32::from(b.cast_signed())).collect();
        Read::Floats(dims.clone(), values, false)
    } else if is(DataType::Int64) && raw.is_empty() {
        Read::Ints(Ints {
            dims: dims.clone(),
            values: tensor.int64_data.clone(),
        })
    } else if is(DataType::Int64) {
        let words = raw.as_chunks::<8>().0.iter();
        Read::Ints(Ints {
            dims: dims.clone(),
            values: words.map(|b| i64::from_le_bytes(*b)).collect(),
        })
    } else {
        anyhow::bail!("values of type {}", tensor.data_type)
    };
    let count = match &read {
        Read::Ints(ints) => ints.values.len(),
        Read::Floats(_, values, _) => values.len(),
    };
    let wanted = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    ensure!(wanted == Some(count), "{count} values in a shape {dims:?}");
    Ok(read)
}
