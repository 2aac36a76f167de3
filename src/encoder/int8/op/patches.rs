//! A patch embedding as an operator.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::{Fused, MAX_ROWS, PatchDevice, Placed, Shared, items_at_once};
use crate::encoder::int8::kernels::Context;
use crate::encoder::int8::patches::{self, PatchEmbedding};

/// A patch embedding.
///
/// Input: `[1, channels, height, width] f32`. Output: `[1, patches, n] f32`, patches from top to
/// bottom and from left to right.
#[derive(Clone)]
pub struct Patches {
    context: Arc<Context>,
    embedding: Arc<PatchEmbedding>,
    placed: Option<Arc<Placed<dyn PatchDevice>>>,
    scratch: Shared<patches::Scratch>,
}

impl Patches {
    /// An operator for this embedding.
    pub fn new(context: Arc<Context>, embedding: Arc<PatchEmbedding>) -> Self {
        Self {
            context,
            embedding,
            placed: None,
            scratch: Shared::default(),
        }
    }

    /// This, run by `device`, which holds it. The first time that it fails is the last: what it was given,
    /// and all that follows, this processor does.
    #[must_use]
    pub fn on(&self, device: Arc<dyn PatchDevice>) -> Self {
        Self {
            placed: Some(Arc::new(Placed::new(device))),
            ..self.clone()
        }
    }

    /// The embedding.
    pub fn embedding(&self) -> &Arc<PatchEmbedding> {
        &self.embedding
    }

    /// Patches and channels of the result.
    pub fn shape(&self) -> [usize; 2] {
        let geometry = self.embedding.geometry();
        [geometry.patches(), self.embedding.linear().weights.n()]
    }

    /// As [`Fused::run`], of pictures of `shape`, `[1, channels, height, width]`, as they lie somewhere.
    ///
    /// # Errors
    /// Pictures of another shape.
    pub fn run_on(&self, shape: &[usize], pictures: &[&[f32]]) -> TractResult<Vec<Tensor>> {
        let geometry = self.embedding.geometry();
        let [height, width] = geometry.picture;
        ensure!(
            shape == [1, geometry.channels, height, width],
            "pictures of {shape:?} for {self:?}"
        );
        let len = geometry.picture_len();
        ensure!(
            pictures.iter().all(|picture| picture.len() == len),
            "a picture of another size"
        );
        let [patches, n] = self.shape();
        let placed = self.placed.as_ref();
        let device = placed.and_then(|placed| placed.working());
        let most = device.map_or(MAX_ROWS, PatchDevice::most_rows);
        let mut results = Vec::with_capacity(pictures.len());
        let mut keep = |out: &[f32]| {
            for one in out.chunks_exact(patches * n) {
                results.push(Tensor::from_shape(&[1, patches, n], one)?);
            }
            TractResult::Ok(())
        };
        for part in pictures.chunks(items_at_once(patches, most)) {
            let there = placed.and_then(|placed| placed.attempt(|device| device.run(part)));
            if let Some(out) = there {
                ensure!(
                    out.len() == part.len() * patches * n,
                    "{} values",
                    out.len()
                );
                keep(&out)?;
                continue;
            }
            self.scratch
                .with(|scratch| keep(self.embedding.run(&self.context, scratch, part)))?;
        }
        Ok(results)
    }
}

impl Fused for Patches {
    fn accelerated(&self) -> Option<bool> {
        Some(self.placed.as_ref()?.works())
    }

    fn run(&self, inputs: Vec<TVec<TValue>>) -> TractResult<Vec<Tensor>> {
        let Some(first) = inputs.first() else {
            return Ok(Vec::new());
        };
        let shape: TVec<usize> = first.first().context("no picture")?.shape().into();
        let mut pictures = Vec::with_capacity(inputs.len());
        for input in &inputs {
            let [picture] = &input[..] else {
                bail!("{} inputs for {self:?}", input.len());
            };
            ensure!(picture.shape() == &*shape, "pictures of different shapes");
            pictures.push(picture.try_as_plain_ram()?.as_slice::<f32>()?);
        }
        self.run_on(&shape, &pictures)
    }
}

impl std::fmt::Debug for Patches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8Patches({:?})", self.embedding.geometry())
    }
}

impl PartialEq for Patches {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.embedding, &other.embedding)
    }
}

impl Eq for Patches {}

impl Op for Patches {
    fn name(&self) -> StaticName {
        "Int8Patches".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Patches {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let output = self.run(vec![inputs])?.remove(0);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Patches {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let geometry = self.embedding.geometry();
        let [height, width] = geometry.picture;
        let wanted = [1, geometry.channels, height, width];
        let fits = inputs.len() == 1
            && inputs[0].datum_type == f32::datum_type()
            && inputs[0].shape.as_concrete() == Some(&wanted);
        ensure!(fits, "{inputs:?} for {self:?}");
        let [patches, n] = self.shape();
        Ok(tvec!(f32::datum_type().fact([1, patches, n])))
    }

    fn cost(&self, _: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let [patches, n] = self.shape();
        let macs = patches * n * self.embedding.geometry().patch_len();
        Ok(tvec!((Cost::FMA(i8::datum_type()), macs.to_dim())))
    }

    as_op!();
}
