//! Residual sublayers: attention or feed-forward, normalised before (ViT, CLIP) or after (BERT).

use tract_onnx::tract_core::internal::*;

use super::attention::Attention;
use super::linear::Linear;
use super::norm::Norm;
use super::reader::Reader;
use crate::encoder::int8::kernels::{Activation, PackedMatrix};
use crate::encoder::int8::sublayer::{self, Body, LayerNorm, Placement, Sublayer};

/// What stands beside the residual.
#[derive(Clone, Debug)]
pub(super) enum Branch {
    Attention {
        attention: Box<Attention>,
        out: Linear,
    },
    FeedForward {
        up: Linear,
        activation: Activation,
        down: Linear,
    },
}

/// A residual sublayer as found in a graph.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The residual, `[…, width]`.
    pub input: OutletId,
    /// The result, of the same shape.
    pub output: OutletId,
    pub norm: Norm,
    pub placement: Placement,
    pub branch: Branch,
}

impl Block {
    /// Multiplications with weights, under the reader's symbols.
    pub fn macs(&self) -> u64 {
        let of = |linear: &Linear| linear.rows as u64 * linear.n as u64 * linear.k as u64;
        match &self.branch {
            Branch::Attention { attention, out } => {
                let rows = out.rows as u64;
                let channels = attention
                    .projections
                    .iter()
                    .map(|p| p.channels.len() as u64);
                of(out) + rows * out.n as u64 * channels.sum::<u64>()
            }
            Branch::FeedForward { up, down, .. } => of(up) + of(down),
        }
    }

    /// Quantises the weights.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub fn quantize(&self) -> TractResult<Sublayer> {
        let body = match &self.branch {
            Branch::Attention { attention, out } => Body::Attention(sublayer::Attention {
                qkv: qkv(attention)?,
                out: out_of_heads(attention, out)?,
                heads: attention.heads,
                dim: attention.dim,
                scale: attention.scale,
                causal: attention.mask.causal,
                masked: !attention.mask.keys.is_empty(),
            }),
            Branch::FeedForward {
                up,
                activation,
                down,
            } => Body::FeedForward(sublayer::FeedForward {
                up: linear(&up.weights()?, up.bias(), up.n, up.k)?,
                activation: *activation,
                down: linear(&down.weights()?, down.bias(), down.n, down.k)?,
            }),
        };
        let norm = LayerNorm {
            gamma: self.norm.gamma.clone(),
            beta: self.norm.beta.clone(),
            epsilon: self.norm.epsilon,
        };
        Sublayer::new(norm, self.placement, body).map_err(TractError::msg)
    }
}

fn linear(weights: &[f32], bias: Vec<f32>, n: usize, k: usize) -> TractResult<sublayer::Linear> {
    ensure!(
        weights.iter().chain(&bias).all(|w| w.is_finite()),
        "a weight is not finite"
    );
    Ok(sublayer::Linear {
        weights: PackedMatrix::quantize(weights, n, k),
        bias,
    })
}

/// Query, key and value as one matrix, `[3 · heads · dim, k]`, head by head.
fn qkv(attention: &Attention) -> TractResult<sublayer::Linear> {
    let (mut weights, mut bias, mut k) = (Vec::new(), Vec::new(), 0);
    for projection in &attention.projections {
        let (all, all_bias) = (projection.linear.weights()?, projection.linear.bias());
        k = projection.linear.k;
        for channel in &projection.channels {
            weights.extend_from_slice(&all[channel * k..(channel + 1) * k]);
            bias.push(all_bias[*channel]);
        }
    }
    let n = bias.len();
    linear(&weights, bias, n, k)
}

/// The output projection with its inputs in the order of the heads.
fn out_of_heads(attention: &Attention, out: &Linear) -> TractResult<sublayer::Linear> {
    let mut weights = out.weights()?;
    for row in weights.chunks_exact_mut(out.k) {
        let before = row.to_vec();
        for (value, channel) in before.into_iter().zip(&attention.context) {
            row[*channel] = value;
        }
    }
    linear(&weights, out.bias(), out.n, out.k)
}

impl Reader<'_> {
    /// The residual sublayer whose result is `outlet`.
    pub fn block(&self, outlet: OutletId) -> Option<Block> {
        self.pre_norm(outlet).or_else(|| self.post_norm(outlet))
    }

    fn pre_norm(&self, outlet: OutletId) -> Option<Block> {
        let (residual, branch, input) = self.residual(outlet)?;
        let norm = self.layer_norm(input)?;
        self.same(norm.input, residual).then_some(())?;
        self.checked(Block {
            input: residual,
            output: outlet,
            norm,
            placement: Placement::Pre,
            branch,
        })
    }

    fn post_norm(&self, outlet: OutletId) -> Option<Block> {
        let norm = self.layer_norm(outlet)?;
        let (residual, branch, input) = self.residual(self.base(norm.input))?;
        self.same(input, residual).then_some(())?;
        self.checked(Block {
            input: residual,
            output: outlet,
            norm,
            placement: Placement::Post,
            branch,
        })
    }

    /// The residual, the branch and what the branch starts from, when `outlet` is their sum.
    fn residual(&self, outlet: OutletId) -> Option<(OutletId, Branch, OutletId)> {
        let (a, b) = self.sum(outlet)?;
        [(a, b), (b, a)].into_iter().find_map(|(residual, branch)| {
            let out = self.linear(self.base(branch))?;
            if let Some((up, activation)) = self.activated(out.input) {
                let input = up.input;
                let down = out;
                let branch = Branch::FeedForward {
                    up,
                    activation,
                    down,
                };
                return Some((residual, branch, input));
            }
            let attention = Box::new(self.attention(&out)?);
            let [query, key, value] = &attention.projections;
            let input = query.linear.input;
            let one = self.same(key.linear.input, input) && self.same(value.linear.input, input);
            one.then_some((residual, Branch::Attention { attention, out }, input))
        })
    }

    /// The shapes that a fused operator relies on: `[…, width]` in and out, width in and out of
    /// every part.
    fn checked(&self, block: Block) -> Option<Block> {
        let (input, output) = (self.shape(block.input)?, self.shape(block.output)?);
        let width = *input.last()?;
        let rows = input.iter().product::<usize>() / width.max(1);
        let fits = match &block.branch {
            Branch::Attention { attention, out } => {
                let projections = attention.projections.iter();
                out.n == width
                    && out.rows == rows
                    && projections
                        .map(|p| &p.linear)
                        .all(|p| p.k == width && p.rows == rows)
            }
            Branch::FeedForward { up, down, .. } => {
                up.k == width && down.k == up.n && down.n == width && up.rows == rows
            }
        };
        let whole =
            output.last() == Some(&width) && output.iter().product::<usize>() == rows * width;
        (fits && whole && block.norm.gamma.len() == width).then_some(block)
    }
}
