//! EfficientNet-Lite0 (batch normalisation folded into the weights), forwards and backwards.
//!
//! The block table is `efficientnet_lite_builder.py`'s of tensorflow/tpu: stem 32, seven stages,
//! head 1280, ReLU6, no squeeze-and-excitation. Activations are channel-last, `[n, side², c]`.

use std::ops::Range;

use rand::Rng;

use super::convolution as conv;
use super::convolution::Window;

/// Width of the pooled features.
pub const FEATURES: usize = 1280;

/// One stage: repeats, kernel, stride of the first block, expansion, output channels.
type Stage = (usize, usize, usize, usize, usize);

const LITE0: (usize, [Stage; 7], usize) = (
    32,
    [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ],
    FEATURES,
);

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 3×3 convolution with stride 2 over the pixels.
    Stem,
    /// One `kernel × kernel` filter per channel.
    Depthwise {
        /// Height and width of the filter.
        kernel: usize,
        /// Step.
        stride: usize,
    },
    /// 1×1 convolution.
    Pointwise,
}

/// One convolution with its bias.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What it computes.
    pub kind: Kind,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Whether the output is clipped to 0–6.
    pub relu6: bool,
    /// Where its weights lie in the parameters: stem `[3, 3, in, out]`, depthwise `[k, k, c]`,
    /// pointwise `[in, out]`.
    pub weight: Range<usize>,
    /// Where its bias lies, `[out]`.
    pub bias: Range<usize>,
    /// The layer whose input is added to this one's output.
    pub residual: Option<usize>,
    /// Block number: 0 the stem, then 1 to 16, then the head.
    pub block: usize,
}

impl Layer {
    fn window(&self, side: usize) -> Window {
        let (kernel, stride) = match self.kind {
            Kind::Stem => (3, 2),
            Kind::Depthwise { kernel, stride } => (kernel, stride),
            Kind::Pointwise => (1, 1),
        };
        Window {
            side,
            channels: self.inputs,
            kernel,
            stride,
        }
    }
}

/// The network's shape; its parameters are kept apart, in one flat vector.
#[derive(Clone, Debug)]
pub struct Architecture {
    /// In the order of computation.
    pub layers: Vec<Layer>,
    /// Length of the parameter vector.
    pub parameters: usize,
}

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
    /// EfficientNet-Lite0 up to and with the 1280-channel head.
    pub fn lite0() -> Self {
        let (stem, stages, head) = LITE0;
        Self::new(stem, &stages, head)
    }

    fn new(stem: usize, stages: &[Stage], head: usize) -> Self {
        let mut net = Self {
            layers: Vec::new(),
            parameters: 0,
        };
        net.push(Kind::Stem, 3, stem, true, None, 0);
        let (mut channels, mut block) = (stem, 0);
        for &(repeats, kernel, first_stride, expansion, outputs) in stages {
            for repeat in 0..repeats {
                block += 1;
                let stride = if repeat == 0 { first_stride } else { 1 };
                let entry = net.layers.len();
                let wide = channels * expansion;
                if expansion != 1 {
                    net.push(Kind::Pointwise, channels, wide, true, None, block);
                }
                net.push(
                    Kind::Depthwise { kernel, stride },
                    wide,
                    wide,
                    true,
                    None,
                    block,
                );
                let residual = (stride == 1 && channels == outputs).then_some(entry);
                net.push(Kind::Pointwise, wide, outputs, false, residual, block);
                channels = outputs;
            }
        }
        net.push(Kind::Pointwise, channels, head, true, None, block + 1);
        net
    }

    fn push(
        &mut self,
        kind: Kind,
        inputs: usize,
        outputs: usize,
        relu6: bool,
        residual: Option<usize>,
        block: usize,
    ) {
        let count = match kind {
            Kind::Stem => 9 * inputs * outputs,
            Kind::Depthwise { kernel, .. } => kernel * kernel * outputs,
            Kind::Pointwise => inputs * outputs,
        };
        let weight = self.parameters..self.parameters + count;
        let bias = weight.end..weight.end + outputs;
        self.parameters = bias.end;
        self.layers.push(Layer {
            kind,
            inputs,
            outputs,
            relu6,
            weight,
            bias,
            residual,
            block,
        });
    }

    /// The first layer of a block.
    pub fn first_layer(&self, block: usize) -> usize {
        self.layers
            .iter()
            .position(|l| l.block >= block)
            .unwrap_or(self.layers.len())
    }

    /// Where the parameters of `layers` begin.
    pub fn first_parameter(&self, layer: usize) -> usize {
        self.layers
            .get(layer)
            .map_or(self.parameters, |l| l.weight.start)
    }

    /// Random weights of He's scale, for tests.
    pub fn random(&self, rng: &mut impl Rng) -> Vec<f32> {
        let mut parameters = vec![0.0; self.parameters];
        for layer in &self.layers {
            let fan_in = layer.weight.len() / layer.outputs;
            #[expect(clippy::cast_precision_loss, reason = "a layer's width")]
            let scale = (6.0 / fan_in as f32).sqrt();
            parameters[layer.weight.clone()].fill_with(|| rng.random_range(-scale..scale));
            parameters[layer.bias.clone()].fill_with(|| rng.random_range(-0.1..0.3));
        }
        parameters
    }

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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn lite0_has_the_published_number_of_parameters() {
        let net = Architecture::lite0();
        // 4.652 million with the classifier's 1,281,000; folding leaves one bias per channel.
        assert_eq!(net.layers.len(), 49);
        assert_eq!(net.parameters + 1_281_000, 4_631_000);
    }

    #[test]
    fn the_gradient_of_every_trained_layer_matches_finite_differences() {
        let mut rng = StdRng::seed_from_u64(7);
        let net = Architecture::new(
            8,
            &[(1, 3, 1, 1, 8), (2, 3, 2, 2, 12), (2, 5, 1, 3, 12)],
            20,
        );
        let parameters = net.random(&mut rng);
        let side = 16;
        let images = 2;
        let input: Vec<f32> = (0..images * side * side * 3)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect();
        let direction: Vec<f32> = (0..images * 20)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect();
        let all = 0..net.layers.len();
        let tail = 1..net.layers.len();
        let mut stem = Workspace::default();
        net.forward(&parameters, 0..1, &input, side, &mut stem);
        let (x, x_side) = stem.output();
        let mut space = Workspace::default();
        net.forward(&parameters, tail.clone(), x, x_side, &mut space);
        let base = net.first_parameter(1);
        let mut gradient = vec![0.0; net.parameters - base];
        let dy = space.unpool(&direction, 20);
        net.backward(
            &parameters,
            tail,
            &dy,
            &mut gradient,
            &space,
            &mut Scratch::default(),
        );

        let objective = |parameters: &[f32]| -> f64 {
            let mut space = Workspace::default();
            net.forward(parameters, all.clone(), &input, side, &mut space);
            space
                .pooled(20)
                .iter()
                .zip(&direction)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        for layer in &net.layers[1..] {
            for range in [&layer.weight, &layer.bias] {
                let step: Vec<f32> = range.clone().map(|_| rng.random_range(-1.0..1.0)).collect();
                let eps = 2e-4;
                let moved = |sign: f32| {
                    let mut p = parameters.clone();
                    for (p, s) in p[range.clone()].iter_mut().zip(&step) {
                        *p += sign * eps * s;
                    }
                    objective(&p)
                };
                let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(eps));
                let exact: f64 = gradient[range.start - base..range.end - base]
                    .iter()
                    .zip(&step)
                    .map(|(g, s)| f64::from(*g) * f64::from(*s))
                    .sum();
                assert!(exact != 0.0, "no gradient in {layer:?}");
                assert!(
                    (numeric - exact).abs() < 0.03 * numeric.abs().max(exact.abs()) + 2e-3,
                    "{numeric} {exact} in {layer:?}"
                );
            }
        }
    }
}
