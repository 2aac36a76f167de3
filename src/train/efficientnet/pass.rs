//! The way forward and the way back.

use std::ops::Range;

use super::{Architecture, Kind};
use crate::train::convolution as conv;

/// Activations of some images. Reused from step to step.
#[derive(Default)]
pub struct Workspace {
    /// `tensors[i]` is the input of layer `i`; the last one is the last layer's output.
    tensors: Vec<Vec<f32>>,
    sides: Vec<usize>,
    images: usize,
}

/// Gradients of activations on their way back. Reused from chunk to chunk.
#[derive(Default)]
pub struct Scratch(Vec<Vec<f32>>);

impl Architecture {
    /// Runs `layers` over `input [images, side², c]`; the output and its side are the workspace's
    /// last. With `keep`, everything [`Self::backward`] needs stays in `space`.
    ///
    /// # Panics
    /// When `input` does not fit the first layer.
    pub fn forward(
        &self,
        parameters: &[f32],
        layers: Range<usize>,
        input: &[f32],
        side: usize,
        space: &mut Workspace,
    ) {
        let channels = self.layers[layers.start].inputs;
        let images = input.len() / (side * side * channels);
        assert_eq!(
            input.len(),
            images * side * side * channels,
            "input of a network"
        );
        space.images = images;
        space.tensors.resize_with(layers.len() + 1, Vec::new);
        space.sides.resize(layers.len() + 1, 0);
        space.tensors[0].clear();
        space.tensors[0].extend_from_slice(input);
        space.sides[0] = side;
        for (slot, layer) in self.layers[layers.clone()].iter().enumerate() {
            let (before, after) = space.tensors.split_at_mut(slot + 1);
            let (x, y) = (&before[slot], &mut after[0]);
            let window = layer.window(space.sides[slot]);
            let pixels = window.out_side().pow(2);
            y.resize(images * pixels * layer.outputs, 0.0);
            let weight = &parameters[layer.weight.clone()];
            match layer.kind {
                Kind::Pointwise => {
                    conv::matmul(
                        x,
                        weight,
                        y,
                        (images * pixels, layer.inputs, layer.outputs),
                        false,
                    );
                }
                Kind::Depthwise { .. } => {
                    let from = window.side.pow(2) * layer.inputs;
                    for (x, y) in x
                        .chunks_exact(from)
                        .zip(y.chunks_exact_mut(pixels * layer.outputs))
                    {
                        conv::depthwise(x, weight, y, window);
                    }
                }
                Kind::Stem => {
                    let from = window.side.pow(2) * layer.inputs;
                    for (x, y) in x
                        .chunks_exact(from)
                        .zip(y.chunks_exact_mut(pixels * layer.outputs))
                    {
                        let rows = conv::patches(x, window);
                        conv::matmul(
                            &rows,
                            weight,
                            y,
                            (pixels, 9 * layer.inputs, layer.outputs),
                            false,
                        );
                    }
                }
            }
            conv::add_bias(y, &parameters[layer.bias.clone()], layer.relu6);
            if let Some(source) = layer.residual.and_then(|l| l.checked_sub(layers.start)) {
                for (y, x) in y.iter_mut().zip(&before[source]) {
                    *y += x;
                }
            }
            space.sides[slot + 1] = window.out_side();
        }
    }

    /// Adds the gradients of `layers`' parameters to `gradient` (which starts at the first of
    /// them), given that of the last output. Needs the workspace as [`Self::forward`] left it.
    ///
    /// # Panics
    /// When a slice has the wrong length, or the range holds the stem.
    pub fn backward(
        &self,
        parameters: &[f32],
        layers: Range<usize>,
        output_gradient: &[f32],
        gradient: &mut [f32],
        space: &Workspace,
        Scratch(gradients): &mut Scratch,
    ) {
        let base = self.first_parameter(layers.start);
        let Workspace {
            tensors,
            sides,
            images,
        } = space;
        gradients.resize_with(tensors.len(), Vec::new);
        let mut live = vec![false; tensors.len()];
        let last = layers.len();
        assert_eq!(
            output_gradient.len(),
            tensors[last].len(),
            "gradient of the output"
        );
        gradients[last].clear();
        gradients[last].extend_from_slice(output_gradient);
        for (slot, layer) in self.layers[layers.clone()].iter().enumerate().rev() {
            let (before, after) = gradients.split_at_mut(slot + 1);
            let dy = &mut after[0];
            if let Some(source) = layer.residual.and_then(|l| l.checked_sub(layers.start)) {
                before[source].clear();
                before[source].extend_from_slice(dy);
                live[source] = true;
            }
            let offset = |r: &Range<usize>| r.start - base..r.end - base;
            conv::add_bias_grad(
                dy,
                &tensors[slot + 1],
                &mut gradient[offset(&layer.bias)],
                layer.relu6,
            );
            let x = &tensors[slot];
            let weight = &parameters[layer.weight.clone()];
            let dw = &mut gradient[offset(&layer.weight)];
            let window = layer.window(sides[slot]);
            let pixels = window.out_side().pow(2);
            let dx = &mut before[slot];
            let accumulate = live[slot];
            match layer.kind {
                Kind::Pointwise => {
                    let shape = (*images * pixels, layer.inputs, layer.outputs);
                    conv::matmul_grad_right(x, dy, dw, shape);
                    // Nobody asks for the gradient of the range's own input.
                    if slot > 0 {
                        dx.resize(x.len(), 0.0);
                        conv::matmul_grad_left(dy, weight, dx, shape, accumulate);
                    }
                }
                Kind::Depthwise { .. } => {
                    if !accumulate {
                        dx.clear();
                        dx.resize(x.len(), 0.0);
                    }
                    let from = window.side.pow(2) * layer.inputs;
                    for ((x, dx), dy) in x
                        .chunks_exact(from)
                        .zip(dx.chunks_exact_mut(from))
                        .zip(dy.chunks_exact(pixels * layer.outputs))
                    {
                        conv::depthwise_grad(x, weight, dy, dx, dw, window);
                    }
                }
                Kind::Stem => panic!("the stem is never trained"),
            }
        }
    }
}

impl Workspace {
    /// Output of the last layer run, `[images, side², c]`, and its side.
    pub fn output(&self) -> (&[f32], usize) {
        match (self.tensors.last(), self.sides.last()) {
            (Some(t), Some(side)) => (t, *side),
            _ => (&[], 0),
        }
    }

    /// Mean over the pixels of the output: `[images, c]`.
    pub fn pooled(&self, channels: usize) -> Vec<f32> {
        let (output, side) = self.output();
        let mut pooled = Vec::with_capacity(self.images * channels);
        for image in output.chunks_exact(side * side * channels) {
            let mut sum = vec![0.0f32; channels];
            for pixel in image.chunks_exact(channels) {
                for (s, v) in sum.iter_mut().zip(pixel) {
                    *s += v;
                }
            }
            #[expect(clippy::cast_precision_loss, reason = "a few thousand pixels at most")]
            let count = (side * side) as f32;
            pooled.extend(sum.iter().map(|s| s / count));
        }
        pooled
    }

    /// Gradient of the output, given that of [`Self::pooled`].
    pub fn unpool(&self, pooled_gradient: &[f32], channels: usize) -> Vec<f32> {
        let (output, side) = self.output();
        let mut gradient = Vec::with_capacity(output.len());
        #[expect(clippy::cast_precision_loss, reason = "a few thousand pixels at most")]
        let count = (side * side) as f32;
        for image in pooled_gradient.chunks_exact(channels) {
            for _ in 0..side * side {
                gradient.extend(image.iter().map(|g| g / count));
            }
        }
        gradient
    }
}
