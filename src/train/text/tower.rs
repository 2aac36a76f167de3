//! The tower: token and position embeddings, pre-norm transformer layers, masked mean, projection.
//!
//! Without a final normalisation a token's length is its weight in the mean; the tower starts as
//! (and is first trained as) a bag of words, which short phrases mostly are.

use anyhow::{Context, Result};
use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::{layer_norm_slow, softmax};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::vocabulary::PAD_ID;
use super::{EMBEDDING_DIM, MAX_TOKENS};
use crate::train::onnx::layers::MASKED_SCORE;

/// Epsilon of every layer normalisation.
pub const LAYER_NORM_EPSILON: f32 = 1e-5;

/// Sizes of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens known.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Width of the feed-forward half.
    pub hidden: usize,
}

impl Shape {
    /// The tower of the demo bundle.
    pub fn demo(vocabulary: usize) -> Self {
        Self {
            vocabulary,
            width: EMBEDDING_DIM,
            layers: 3,
            heads: 4,
            hidden: 768,
        }
    }

    /// Names and shapes of all parameters, in storage order.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (w, h) = (self.width, self.hidden);
        let mut list = vec![
            ("embedding".to_owned(), vec![self.vocabulary, w]),
            ("position".to_owned(), vec![MAX_TOKENS, w]),
        ];
        for layer in 0..self.layers {
            for (name, dims) in [
                ("attention.norm.weight", vec![w]),
                ("attention.norm.bias", vec![w]),
                ("attention.qkv.weight", vec![w, 3 * w]),
                ("attention.qkv.bias", vec![3 * w]),
                ("attention.output.weight", vec![w, w]),
                ("attention.output.bias", vec![w]),
                ("feed_forward.norm.weight", vec![w]),
                ("feed_forward.norm.bias", vec![w]),
                ("feed_forward.up.weight", vec![w, h]),
                ("feed_forward.up.bias", vec![h]),
                ("feed_forward.down.weight", vec![h, w]),
                ("feed_forward.down.bias", vec![w]),
            ] {
                list.push((format!("layer{layer}.{name}"), dims));
            }
        }
        list.push(("projection".to_owned(), vec![w, EMBEDDING_DIM]));
        list
    }
}

/// A batch of token sequences, padded to its longest.
pub struct Batch {
    /// `[n·T]` ids.
    pub ids: Tensor,
    /// `[n, T]`, 1 for a token and 0 for padding.
    pub mask: Tensor,
    /// Texts `n`.
    pub n: usize,
    /// Padded length `T`.
    pub length: usize,
    /// Whether any position is padding.
    pub padded: bool,
}

impl Batch {
    /// Pads `sequences` to the longest, or to `length` where that is longer.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(sequences: &[&[u32]], length: usize) -> Result<Self> {
        let n = sequences.len();
        let longest = sequences
            .iter()
            .map(|ids| ids.len())
            .max()
            .unwrap_or(0)
            .max(length);
        let mut ids = vec![PAD_ID; n * longest];
        let mut mask = vec![0.0_f32; n * longest];
        for (row, sequence) in sequences.iter().enumerate() {
            let start = row * longest;
            ids[start..start + sequence.len()].copy_from_slice(sequence);
            mask[start..start + sequence.len()].fill(1.0);
        }
        let padded = sequences.iter().any(|ids| ids.len() < longest);
        Ok(Self {
            ids: Tensor::from_vec(ids, n * longest, &Device::Cpu)?,
            mask: Tensor::from_vec(mask, (n, longest), &Device::Cpu)?,
            n,
            length: longest,
            padded,
        })
    }
}

/// The tower with its parameters.
pub struct Tower {
    /// Its sizes.
    pub shape: Shape,
    /// Parameters in the order of [`Shape::parameters`].
    pub vars: Vec<Var>,
}

impl Tower {
    /// A tower with random weights; the projection starts as the identity.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(shape: Shape, seed: u64) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let into_residual = 0.02 / (2.0 * shape.layers as f32).sqrt();
        let mut vars = Vec::new();
        for (name, dims) in shape.parameters() {
            let count = dims.iter().product();
            let values: Vec<f32> = if name == "projection" {
                (0..count)
                    .map(|i| {
                        if i / EMBEDDING_DIM == i % EMBEDDING_DIM {
                            1.0
                        } else {
                            0.0
                        }
                    })
                    .collect()
            } else if name.ends_with("norm.weight") {
                vec![1.0; count]
            } else if name.ends_with(".bias") {
                vec![0.0; count]
            } else {
                let scale = match name.as_str() {
                    n if n.ends_with("output.weight") || n.ends_with("down.weight") => {
                        into_residual
                    }
                    "position" => 0.002,
                    "embedding" => 0.02,
                    _ => 0.04,
                };
                (0..count).map(|_| scale * gaussian(&mut rng)).collect()
            };
            vars.push(Var::from_tensor(&Tensor::from_vec(
                values,
                dims,
                &Device::Cpu,
            )?)?);
        }
        Ok(Self { shape, vars })
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(path: &std::path::Path) -> Result<Self> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)
            .with_context(|| format!("{}: run the step `distil` first", path.display()))?;
        let get = |name: &str| {
            tensors
                .get(name)
                .with_context(|| format!("{}: no tensor {name}", path.display()))
        };
        let layers = (0..)
            .take_while(|layer| tensors.contains_key(&format!("layer{layer}.attention.qkv.weight")))
            .count();
        let (vocabulary, width) = get("embedding")?.dims2()?;
        let shape = Shape {
            vocabulary,
            width,
            layers,
            heads: 4,
            hidden: if layers == 0 {
                0
            } else {
                get("layer0.feed_forward.up.bias")?.dim(0)?
            },
        };
        let mut vars = Vec::new();
        for (name, dims) in shape.parameters() {
            let tensor = get(&name)?;
            anyhow::ensure!(
                tensor.dims() == dims,
                "{name} is {:?} instead of {dims:?}",
                tensor.dims()
            );
            vars.push(Var::from_tensor(tensor)?);
        }
        Ok(Self { shape, vars })
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, path: &std::path::Path) -> Result<()> {
        let tensors: std::collections::HashMap<String, Tensor> = self
            .shape
            .parameters()
            .into_iter()
            .zip(&self.vars)
            .map(|((name, _), var)| (name, var.as_tensor().clone()))
            .collect();
        let temporary = path.with_extension("tmp");
        candle_core::safetensors::save(&tensors, &temporary)?;
        std::fs::rename(&temporary, path).with_context(|| path.display().to_string())
    }

    /// `[n, D]` embeddings, not normalised.
    ///
    /// # Errors
    /// An id outside the vocabulary or a text longer than [`MAX_TOKENS`].
    pub fn forward(&self, batch: &Batch) -> Result<Tensor> {
        let mut vars = self.vars.iter();
        let mut next = || {
            vars.next()
                .map(Var::as_tensor)
                .context("a parameter is missing")
        };
        let (n, t, w) = (batch.n, batch.length, self.shape.width);
        let heads = self.shape.heads;
        let per_head = w / heads;
        let embedding = next()?;
        let position = next()?.narrow(0, 0, t)?;
        let mut x = embedding
            .index_select(&batch.ids, 0)?
            .reshape((n, t, w))?
            .broadcast_add(&position)?
            .reshape((n * t, w))?;
        let bias = if batch.padded {
            Some(((&batch.mask - 1.0)? * f64::from(-MASKED_SCORE))?.reshape((n, 1, 1, t))?)
        } else {
            None
        };
        #[expect(clippy::cast_precision_loss, reason = "tens of values a head")]
        let scale = 1.0 / (per_head as f64).sqrt();
        for _ in 0..self.shape.layers {
            let y = layer_norm_slow(&x, next()?, next()?, LAYER_NORM_EPSILON)?;
            let qkv = y
                .matmul(next()?)?
                .broadcast_add(next()?)?
                .reshape((n, t, 3, heads, per_head))?;
            let part = |index: usize| {
                qkv.narrow(2, index, 1)?
                    .squeeze(2)?
                    .transpose(1, 2)?
                    .contiguous()
            };
            let (q, k, v) = (part(0)?, part(1)?, part(2)?);
            let mut scores = (q.matmul(&k.t()?.contiguous()?)? * scale)?;
            if let Some(bias) = &bias {
                scores = scores.broadcast_add(bias)?;
            }
            let context = softmax(&scores, D::Minus1)?
                .matmul(&v)?
                .transpose(1, 2)?
                .reshape((n * t, w))?;
            x = (x + context.matmul(next()?)?.broadcast_add(next()?)?)?;
            let y = layer_norm_slow(&x, next()?, next()?, LAYER_NORM_EPSILON)?;
            let up = y.matmul(next()?)?.broadcast_add(next()?)?.relu()?;
            x = (x + up.matmul(next()?)?.broadcast_add(next()?)?)?;
        }
        Ok(masked_mean(&x, batch)?.matmul(next()?)?)
    }

    /// Mean of the token embeddings alone, `[n, D]`: the bag of words the tower starts as.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn bag_of_words(&self, batch: &Batch) -> Result<Tensor> {
        masked_mean(&self.vars[0].index_select(&batch.ids, 0)?, batch)
    }
}

/// `[n·T, w]` to `[n, w]`: the mean over the tokens that are not padding.
fn masked_mean(x: &Tensor, batch: &Batch) -> Result<Tensor> {
    let (n, t) = (batch.n, batch.length);
    let weights = batch
        .mask
        .broadcast_div(&batch.mask.sum_keepdim(1)?)?
        .reshape((n, 1, t))?;
    Ok(weights.matmul(&x.reshape((n, t, x.dim(1)?))?)?.squeeze(1)?)
}

/// A standard normal draw (Box–Muller).
fn gaussian(rng: &mut StdRng) -> f32 {
    let (u, v): (f32, f32) = (rng.random::<f32>().max(f32::MIN_POSITIVE), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests;
