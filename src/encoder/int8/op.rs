//! The fused sublayers as one operator of tract.

use std::sync::{Arc, Mutex};

use tract_onnx::tract_core::internal::*;

use super::kernels::Context;
use super::sublayer::{Batch, Scratch, Sublayer};

/// Sublayers one after another.
///
/// Inputs: `x`, `[…, width] f32`, all leading axes together being the tokens of one sequence; and,
/// if a sublayer needs it, a mask `[1, tokens] f32` that is added to the scores of each key.
/// Output: like `x`.
#[derive(Clone)]
pub struct Sublayers {
    context: Arc<Context>,
    sublayers: Vec<Arc<Sublayer>>,
    /// Shared by the clones of an operator: one that is busy is not waited for.
    scratch: Arc<Mutex<Scratch>>,
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
            scratch: Arc::default(),
        }
    }

    /// These, then those of `next`.
    ///
    /// # Panics
    /// When their widths differ.
    pub fn then(&self, next: &Self) -> Self {
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

    /// Runs a batch of sequences of one length in one pass. Each entry of `inputs` holds the
    /// operator's inputs for one sequence; the results come in the same order and do not depend on
    /// what else is in the batch.
    ///
    /// # Errors
    /// Inputs that are not as the type's documentation says.
    pub fn run(&self, inputs: Vec<TVec<TValue>>) -> TractResult<Vec<Tensor>> {
        let first = inputs.first().context("an empty batch")?;
        let shape: TVec<usize> = first[0].shape().into();
        let (width, volume) = (self.width(), first[0].len());
        ensure!(shape.last() == Some(&width), "tokens of shape {shape:?}");
        let batch = Batch {
            batch: inputs.len(),
            tokens: volume / width,
        };
        let mut x = Vec::with_capacity(volume * inputs.len());
        let mut mask = Vec::new();
        for input in &inputs {
            ensure!(input[0].shape() == &*shape, "sequences of different lengths");
            x.extend_from_slice(input[0].try_as_plain_ram()?.as_slice::<f32>()?);
            if self.is_masked() {
                let keys = input.get(1).context("a mask is missing")?;
                ensure!(keys.len() == batch.tokens, "a mask of {} keys", keys.len());
                // Minus infinity would make a row that is all masked NaN.
                let keys = keys.try_as_plain_ram()?;
                mask.extend(keys.as_slice::<f32>()?.iter().map(|v| v.max(-1e30)));
            }
        }
        let mut own = Scratch::default();
        let mut shared = self.scratch.try_lock();
        let scratch = shared.as_deref_mut().unwrap_or(&mut own);
        let mask = self.is_masked().then_some(&mask[..]);
        for sublayer in &self.sublayers {
            sublayer.run(&self.context, scratch, &mut x, batch, mask);
        }
        x.chunks_exact(volume)
            .map(|one| Tensor::from_shape(&shape, one))
            .collect()
    }
}

impl std::fmt::Debug for Sublayers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, width) = (self.sublayers.len(), self.width());
        write!(f, "Int8Sublayers({count} of width {width})")
    }
}

impl PartialEq for Sublayers {
    fn eq(&self, other: &Self) -> bool {
        self.sublayers.len() == other.sublayers.len()
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
        Ok(tvec!(x.datum_type.fact(x.shape.clone())))
    }

    as_op!();
}
