//! From nodes of tract's graph to layers: what our kernels can compute, and nothing else.

use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::AxisOp;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::math::{Add, Div, Max, Min};
use tract_onnx::tract_core::ops::nn::{DataFormat, Reduce, Reducer};

use super::network::{Convolution, Shape, Window};

/// A convolution, its weights not copied yet.
pub(super) struct Found {
    pub depthwise: bool,
    pub window: Window,
    pub source: Shape,
    pub shape: Shape,
    weights: Arc<Tensor>,
    bias: Arc<Tensor>,
}

impl Found {
    /// Weights and bias as f32.
    pub fn convolution(&self) -> TractResult<Convolution> {
        let values = |tensor: &Tensor| -> TractResult<Vec<f32>> {
            let tensor = tensor.cast_to::<f32>()?;
            Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        };
        let mut bias = values(&self.bias)?;
        if bias.len() == 1 {
            bias = vec![bias[0]; self.shape.channels];
        }
        Ok(Convolution {
            window: self.window,
            weights: values(&self.weights)?,
            bias,
            clip: None,
        })
    }
}

/// The constant behind `outlet`, casts and changes of axes included.
pub(super) fn constant(model: &TypedModel, outlet: OutletId) -> Option<Arc<Tensor>> {
    let mut ops: Vec<&TypedNode> = Vec::new();
    let mut outlet = outlet;
    let mut value = loop {
        if let Some(value) = &model.outlet_fact(outlet).ok()?.konst {
            break Arc::clone(value);
        }
        let node = model.node(outlet.node);
        if node.op_as::<Cast>().is_none() && node.op_as::<AxisOp>().is_none() {
            return None;
        }
        ops.push(node);
        outlet = *node.inputs.first()?;
    };
    for node in ops.iter().rev() {
        let input = tvec!(value.into_tvalue());
        let output = node.op().eval_out_of_plan(input).ok()??;
        value = output.into_iter().next()?.into_arc_tensor();
    }
    Some(value)
}

/// The number behind `outlet`, if it is one.
pub(super) fn scalar(model: &TypedModel, outlet: OutletId) -> Option<f32> {
    let value = constant(model, outlet)?;
    if value.volume() != 1 || !value.datum_type().is_float() {
        return None;
    }
    let value = value.cast_to::<f32>().ok()?;
    value
        .try_as_plain_ram()
        .ok()?
        .as_slice::<f32>()
        .ok()?
        .first()
        .copied()
}

/// Channels, rows and columns of an f32 `[N, C, H, W]` outlet without an empty axis.
pub(super) fn shape(model: &TypedModel, outlet: OutletId) -> Option<(usize, Shape)> {
    let fact = model.outlet_fact(outlet).ok()?;
    let &[batch, channels, height, width] = fact.shape.as_concrete()? else {
        return None;
    };
    let shape = Shape {
        channels,
        height,
        width,
    };
    let full = batch > 0 && channels > 0 && height > 0 && width > 0;
    (full && fact.datum_type == f32::datum_type()).then_some((batch, shape))
}

/// A convolution that the kernels can compute: dense with any window, or depthwise 3×3 and 5×5;
/// stride 1 or 2, no dilation, padding narrower than the window.
pub(super) fn convolution(model: &TypedModel, node: &TypedNode) -> Option<Found> {
    let conv = node.op_as::<Conv>()?;
    let spec = &conv.pool_spec;
    let plain = conv.q_params.is_none()
        && conv.kernel_fmt == KernelFormat::OIHW
        && spec.data_format == DataFormat::NCHW
        && spec.dilations().iter().all(|dilation| *dilation == 1);
    let (&[rows, columns], &[input, weights, bias]) = (&spec.kernel_shape[..], &node.inputs[..])
    else {
        return None;
    };
    let (_, source) = shape(model, input)?;
    let (_, shape) = shape(model, node.id.into())?;
    let stride = spec.stride(0);
    let padding = spec.computed_padding(&[source.height, source.width]);
    let window = Window {
        size: [rows, columns],
        stride,
        before: [padding[0].pad_before, padding[1].pad_before],
        after: [padding[0].pad_after, padding[1].pad_after],
    };
    let narrow = (0..2).all(|axis| {
        let size = window.size[axis];
        window.before[axis] < size && window.after[axis] < size
    });
    let fits = narrow && window.output(source.height, source.width)? == [shape.height, shape.width];
    if !plain || !matches!(stride, 1 | 2) || spec.stride(1) != stride || !fits {
        return None;
    }
    let depthwise = conv.group > 1;
    let taps = rows * columns;
    let expected = if depthwise {
        let square = matches!(window.size, [3, 3] | [5, 5]);
        let single = conv.group == source.channels && conv.group == shape.channels;
        if !square || !single {
            return None;
        }
        shape.channels * taps
    } else {
        shape.channels * source.channels * taps
    };
    let (weights, bias) = (constant(model, weights)?, constant(model, bias)?);
    let complete = weights.volume() == expected
        && (bias.volume() == 1 || bias.volume() == shape.channels)
        && weights.datum_type().is_float()
        && bias.datum_type().is_float();
    complete.then_some(Found {
        depthwise,
        window,
        source,
        shape,
        weights,
        bias,
    })
}

/// `max(x, bound)` or `min(x, bound)` with a constant.
pub(super) enum Bound {
    Low(f32),
    High(f32),
}

/// The clipped outlet and its bound.
pub(super) fn bound(model: &TypedModel, node: &TypedNode) -> Option<(OutletId, Bound)> {
    let op = node.op_as::<TypedBinOp>()?;
    let &[a, b] = &node.inputs[..] else {
        return None;
    };
    let (value, number) = match scalar(model, b) {
        Some(number) => (a, number),
        None => (b, scalar(model, a)?),
    };
    if number.is_nan() {
        return None;
    }
    if op.0.downcast_ref::<Max>().is_some() {
        Some((value, Bound::Low(number)))
    } else if op.0.downcast_ref::<Min>().is_some() {
        Some((value, Bound::High(number)))
    } else {
        None
    }
}

/// Both terms of a sum.
pub(super) fn sum(node: &TypedNode) -> Option<[OutletId; 2]> {
    node.op_as::<TypedBinOp>()?.0.downcast_ref::<Add>()?;
    node.inputs[..].try_into().ok()
}

/// The outlet summed over rows and columns, when all that reads the sum divides it by their number:
/// then the division is the mean.
pub(super) fn pixel_sum(model: &TypedModel, node: &TypedNode) -> Option<OutletId> {
    let reduce = node.op_as::<Reduce>()?;
    if reduce.reducer != Reducer::Sum || reduce.axes[..] != [2, 3] {
        return None;
    }
    let source = *node.inputs.first()?;
    let (_, shape) = shape(model, source)?;
    let [reader] = &node.outputs[0].successors[..] else {
        return None;
    };
    let division = model.node(reader.node);
    #[expect(clippy::cast_precision_loss, reason = "compared with a count in f32")]
    let pixels = shape.pixels() as f32;
    let divides = is_division(division)
        && division.inputs[0] == OutletId::from(node.id)
        && scalar(model, division.inputs[1]) == Some(pixels);
    divides.then_some(source)
}

/// A division of two outlets.
pub(super) fn is_division(node: &TypedNode) -> bool {
    let op = node.op_as::<TypedBinOp>();
    op.is_some_and(|op| op.0.downcast_ref::<Div>().is_some()) && node.inputs.len() == 2
}
