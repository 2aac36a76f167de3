//! Sublayers as an operator.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::{Device, Fused, MAX_ROWS, Placed, Shared, items_at_once};
use crate::encoder::int8::kernels::Context;
use crate::encoder::int8::sublayer::{self, Batch, Body, Sublayer};

/// Sublayers one after another.
///
/// Inputs: `x`, `[…, width] f32`, all leading axes together being the tokens of one sequence; and,
/// if a sublayer needs it, a mask `[1, tokens] f32` that is added to the scores of each key.
/// Output: like `x`, or of one token only.
#[derive(Clone)]
pub struct Sublayers {
    context: Arc<Context>,
    sublayers: Vec<Arc<Sublayer>>,
    wanted: Option<Wanted>,
    placed: Option<Arc<Placed<dyn Device>>>,
    scratch: Shared<Scratch>,
}

/// The only token of a result that something is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The axis of the tokens: all others but the last have one entry.
    pub axis: usize,
    /// Its place there.
    pub token: usize,
}

/// Buffers that are kept from call to call.
#[derive(Default)]
struct Scratch {
    x: Vec<f32>,
    mask: Vec<f32>,
    sublayers: sublayer::Scratch,
}

impl Sublayers {
    /// # Panics
    /// When there is none, or their widths differ.
    pub fn new(context: Arc<Context>, sublayers: Vec<Arc<Sublayer>>) -> Self {
        let width = sublayers.first().expect("a sublayer").width();
        assert!(sublayers.iter().all(|s| s.width() == width), "one width");
        Self {
            context,
            sublayers,
            wanted: None,
            placed: None,
            scratch: Shared::default(),
        }
    }

    /// These, of whose result one token is wanted: after the last keys and values nothing is computed of
    /// the others.
    #[must_use]
    pub fn of_token(&self, wanted: Wanted) -> Self {
        Self {
            wanted: Some(wanted),
            placed: None,
            ..self.clone()
        }
    }

    /// These, run by `device`, which holds them. The first time that it fails is the last: what it was
    /// given, and all that follows, this processor does.
    #[must_use]
    pub fn on(&self, device: Arc<dyn Device>) -> Self {
        Self {
            placed: Some(Arc::new(Placed::new(device))),
            ..self.clone()
        }
    }

    /// The only token that is computed, where it is one.
    pub fn wanted(&self) -> Option<Wanted> {
        self.wanted
    }

    /// These, then those of `next`.
    ///
    /// # Panics
    /// When their widths differ, or of these one token is wanted.
    pub fn then(&self, next: &Self) -> Self {
        assert_eq!(self.wanted, None, "tokens for what follows");
        let all = self.sublayers.iter().chain(&next.sublayers);
        Self::new(Arc::clone(&self.context), all.cloned().collect())
    }

    /// The sublayers.
    pub fn sublayers(&self) -> &[Arc<Sublayer>] {
        &self.sublayers
    }

    /// Channels of a token.
    pub fn width(&self) -> usize {
        self.sublayers[0].width()
    }

    /// Whether there is a mask among the inputs.
    pub fn is_masked(&self) -> bool {
        self.sublayers.iter().any(|sublayer| sublayer.is_masked())
    }

    /// The sublayers that all tokens go through, and those from the last attention on, which one token
    /// does.
    pub fn split(&self) -> (&[Arc<Sublayer>], &[Arc<Sublayer>]) {
        if self.wanted.is_none() {
            return (&self.sublayers, &[]);
        }
        let attends = |sublayer: &Arc<Sublayer>| matches!(sublayer.body(), Body::Attention(_));
        let last = self.sublayers.iter().rposition(attends);
        self.sublayers.split_at(last.unwrap_or(0))
    }
}

impl Sublayers {
    /// Replaces `x` by the result, or by that of the token that is wanted, on this processor.
    fn run_here(
        &self,
        scratch: &mut sublayer::Scratch,
        x: &mut Vec<f32>,
        batch: Batch,
        mask: Option<&[f32]>,
    ) {
        let (whole, of_token) = self.split();
        for sublayer in whole {
            sublayer.run(&self.context, scratch, x, batch, mask);
        }
        if let (Some(wanted), Some((first, rest))) = (self.wanted, of_token.split_first()) {
            first.run_for_token(&self.context, scratch, x, batch, mask, wanted.token);
            let one = Batch { tokens: 1, ..batch };
            for sublayer in rest {
                sublayer.run(&self.context, scratch, x, one, None);
            }
        }
    }
}

impl Fused for Sublayers {
    fn accelerated(&self) -> Option<bool> {
        Some(self.placed.as_ref()?.works())
    }

    /// Sequences of one length.
    fn run(&self, inputs: Vec<TVec<TValue>>) -> TractResult<Vec<Tensor>> {
        let first = inputs.first().context("an empty batch")?;
        let shape: TVec<usize> = first[0].shape().into();
        let (width, volume) = (self.width(), first[0].len());
        let whole = shape.last() == Some(&width) && volume > 0;
        ensure!(whole, "tokens of shape {shape:?}");
        let tokens = volume / width;
        let device = self.placed.as_ref().and_then(|placed| placed.working());
        let most = device.map_or(MAX_ROWS, Device::most_rows);
        let at_once = items_at_once(tokens, most);
        if inputs.len() > at_once {
            let mut results = Vec::with_capacity(inputs.len());
            for part in inputs.chunks(at_once) {
                results.extend(self.run(part.to_vec())?);
            }
            return Ok(results);
        }
        let batch = Batch {
            batch: inputs.len(),
            tokens,
        };
        self.scratch.with(|scratch| {
            let Scratch { x, mask, sublayers } = scratch;
            x.clear();
            mask.clear();
            for input in &inputs {
                ensure!(
                    input[0].shape() == &*shape,
                    "sequences of different lengths"
                );
                x.extend_from_slice(input[0].try_as_plain_ram()?.as_slice::<f32>()?);
                if self.is_masked() {
                    let keys = input.get(1).context("a mask is missing")?;
                    ensure!(keys.len() == batch.tokens, "a mask of {} keys", keys.len());
                    // Minus infinity would make a row that is all masked NaN.
                    let keys = keys.try_as_plain_ram()?;
                    mask.extend(keys.as_slice::<f32>()?.iter().map(|v| v.max(-1e30)));
                }
            }
            let mut shape = shape.clone();
            if let Some(Wanted { axis, token }) = self.wanted {
                let is_there = shape.get(axis) == Some(&tokens) && token < tokens;
                ensure!(is_there, "{:?} of {shape:?}", self.wanted);
                shape[axis] = 1;
            }
            let placed = self.placed.as_ref();
            let done = placed.and_then(|placed| placed.attempt(|device| device.run(x, batch)));
            if done.is_none() {
                let mask = self.is_masked().then_some(&mask[..]);
                self.run_here(sublayers, x, batch, mask);
            }
            x.chunks_exact(x.len() / batch.batch)
                .map(|one| Tensor::from_shape(&shape, one))
                .collect()
        })
    }
}

impl std::fmt::Debug for Sublayers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, width) = (self.sublayers.len(), self.width());
        write!(f, "Int8Sublayers({count} of width {width}")?;
        if let Some(wanted) = self.wanted {
            write!(f, ", {wanted:?}")?;
        }
        if self.placed.is_some() {
            f.write_str(", elsewhere")?;
        }
        f.write_str(")")
    }
}

impl PartialEq for Sublayers {
    fn eq(&self, other: &Self) -> bool {
        self.wanted == other.wanted
            && self.sublayers.len() == other.sublayers.len()
            && self
                .sublayers
                .iter()
                .zip(&other.sublayers)
                .all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl Eq for Sublayers {}

impl Op for Sublayers {
    fn name(&self) -> StaticName {
        "Int8Sublayers".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Sublayers {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let output = self.run(vec![inputs])?.remove(0);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Sublayers {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let x = inputs.first().context("no input")?;
        let wanted = 1 + usize::from(self.is_masked());
        ensure!(inputs.len() == wanted, "{} inputs", inputs.len());
        ensure!(x.datum_type == f32::datum_type(), "{x:?} instead of f32");
        let width = x.shape.last().cloned();
        ensure!(width == Some(self.width().to_dim()), "{x:?} for {self:?}");
        if let Some(mask) = inputs.get(1) {
            let keys = mask.datum_type == f32::datum_type() && mask.rank() == 2;
            ensure!(keys, "{mask:?} for a mask");
        }
        let mut fact = x.datum_type.fact(x.shape.clone());
        if let Some(Wanted { axis, .. }) = self.wanted {
            ensure!(axis + 1 < x.rank(), "{x:?} for {self:?}");
            fact.shape.set(axis, 1.to_dim());
        }
        Ok(tvec!(fact))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let x = inputs.first().context("no input")?;
        let tokens = x.shape.volume() / self.width();
        let (whole, of_token) = self.split();
        let mut sum = 0.to_dim();
        for sublayer in whole {
            sum += macs(sublayer, &tokens, &tokens);
        }
        for sublayer in of_token {
            sum += macs(sublayer, &tokens, &1.to_dim());
        }
        Ok(tvec!((Cost::FMA(i8::datum_type()), sum)))
    }

    as_op!();
}

/// Multiply-accumulates of a sublayer of which `wanted` tokens are computed, from `tokens`.
fn macs(sublayer: &Sublayer, tokens: &TDim, wanted: &TDim) -> TDim {
    let width = sublayer.width();
    match sublayer.body() {
        Body::Attention(body) => {
            let inner = body.heads * body.dim;
            // Keys and values; queries and what comes out; scores and the weighted sums of the values.
            (tokens.clone() + wanted) * (2 * inner * width) + tokens.clone() * wanted * (2 * inner)
        }
        Body::FeedForward(body) => wanted.clone() * (2 * width * body.up.weights.n()),
    }
}

#[cfg(test)]
mod tests;
