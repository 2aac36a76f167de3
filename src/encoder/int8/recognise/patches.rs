//! Patch embeddings: convolutions whose windows tile the picture.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PaddingSpec};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::reader::Reader;
use crate::encoder::int8::kernels::{Context, PackedMatrix};
use crate::encoder::int8::op::Patches;
use crate::encoder::int8::patches::{Geometry, PatchEmbedding};
use crate::encoder::int8::sublayer::Linear;

/// A patch embedding as found in a graph.
pub(super) struct Tiled {
    pub input: OutletId,
    pub output: OutletId,
    geometry: Geometry,
    weights: Arc<Tensor>,
    bias: Vec<f32>,
}

impl Reader<'_> {
    /// The patch embedding whose result is `outlet`.
    pub fn tiled(&self, outlet: OutletId) -> Option<Tiled> {
        let (conv, inputs) = self.op::<Conv>(outlet)?;
        let pool = &conv.pool_spec;
        let &[patch_height, patch_width] = &pool.kernel_shape[..] else {
            return None;
        };
        let plain = conv.group == 1
            && patch_height * patch_width > 1
            && conv.q_params.is_none()
            && conv.kernel_fmt == KernelFormat::OIHW
            && pool.data_format == DataFormat::NCHW
            && pool.strides.as_deref() == Some(&pool.kernel_shape[..])
            && pool.dilations.iter().flatten().all(|d| *d == 1)
            && match &pool.padding {
                PaddingSpec::Valid => true,
                PaddingSpec::Explicit(before, after) => before.iter().chain(after).all(|p| *p == 0),
                _ => false,
            };
        let &[1, channels, height, width] = &self.shape(inputs[0])?[..] else {
            return None;
        };
        let weights = self.constant(inputs[1])?;
        let bias = self.vector(inputs[2], pool.output_channels)?;
        let whole = height.is_multiple_of(patch_height) && width.is_multiple_of(patch_width);
        let shape = [pool.output_channels, channels, patch_height, patch_width];
        let f32s = self.is_f32(inputs[0]) && weights.datum_type() == f32::datum_type();
        (plain && whole && f32s && *weights.shape() == shape).then(|| Tiled {
            input: inputs[0],
            output: outlet,
            geometry: Geometry {
                channels,
                picture: [height, width],
                patch: [patch_height, patch_width],
            },
            weights,
            bias,
        })
    }
}

impl Tiled {
    /// Multiplications for one picture.
    pub fn macs(&self) -> u64 {
        let [rows, columns] = self.geometry.grid();
        (rows * columns) as u64 * self.weights.len() as u64
    }

    /// Replaces the convolution. Its result is `[1, n, rows, columns]`, the operator's
    /// `[1, rows · columns, n]`.
    pub fn replace(&self, model: &mut TypedModel, context: &Arc<Context>) -> TractResult<()> {
        let (n, k) = (self.bias.len(), self.geometry.patch_len());
        let weights = self.weights.try_as_plain_ram()?.as_slice::<f32>()?;
        ensure!(
            weights.iter().chain(&self.bias).all(|w| w.is_finite()),
            "a weight of the patch embedding is not finite"
        );
        let linear = Linear {
            weights: PackedMatrix::quantize(weights, n, k),
            bias: self.bias.clone(),
        };
        let embedding = PatchEmbedding::new(linear, self.geometry).map_err(TractError::msg)?;
        let op = Patches::new(Arc::clone(context), Arc::new(embedding));
        let name = format!("{}.int8", model.node(self.output.node).name);
        let mut patch = TypedModelPatch::new("int8 patch embedding");
        let taps = patch.taps(model, &[self.input])?;
        let mut wire = patch.wire_node(&name, op, &taps)?;
        wire = patch.wire_node(format!("{name}.channels"), AxisOp::Move(2, 1), &wire)?;
        let [rows, columns] = self.geometry.grid().map(|d| d.to_dim());
        let patches = rows.clone() * &columns;
        let grid = AxisOp::Reshape(2, tvec![patches], tvec![rows, columns]);
        wire = patch.wire_node(format!("{name}.grid"), grid, &wire)?;
        patch.shunt_outside(model, self.output, wire[0])?;
        patch.apply(model)
    }
}
