//! EfficientNet-Lite0 (batch normalisation folded into the weights), forwards and backwards.
//!
//! The block table is `efficientnet_lite_builder.py`'s of tensorflow/tpu: stem 32, seven stages,
//! head 1280, ReLU6, no squeeze-and-excitation. Activations are channel-last, `[n, side², c]`.

use std::ops::Range;

use rand::Rng;

use super::convolution::Window;

mod pass;
#[cfg(test)]
mod tests;

pub use pass::{Scratch, Workspace};

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
}
