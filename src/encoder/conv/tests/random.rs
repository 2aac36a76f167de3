//! Random networks.

use proptest::prelude::*;

use crate::encoder::conv::network::{Convolution, Kind, Layer, Network, Shape, Window};

/// Deterministic values in −1..1.
pub fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let bits = u16::try_from(state >> 48).unwrap();
            f32::from(bits) / 32768.0 - 1.0
        })
        .collect()
}

/// A network under construction.
pub struct Builder {
    pub network: Network,
    pub seed: u64,
}

impl Builder {
    pub fn new(seed: u64, channels: usize, height: usize, width: usize) -> Self {
        let input = Shape {
            channels,
            height,
            width,
        };
        let layers = Vec::new();
        Self {
            network: Network { input, layers },
            seed,
        }
    }

    /// The last value and its shape.
    pub fn last(&self) -> (usize, Shape) {
        (self.network.layers.len(), self.network.output())
    }

    fn convolution(&mut self, window: Window, outputs: usize, inputs: usize) -> Convolution {
        let k = inputs * window.size[0] * window.size[1];
        self.seed += 2;
        let scale = 2.0 / (k as f32).sqrt();
        let weights = values(self.seed, outputs * k);
        Convolution {
            window,
            weights: weights.iter().map(|w| w * scale).collect(),
            bias: values(self.seed + 1, outputs),
            clip: None,
        }
    }

    fn push(&mut self, kind: Kind, channels: usize, window: &Window) -> usize {
        let (source, from) = self.last();
        let [height, width] = window.output(from.height, from.width).unwrap();
        let shape = Shape {
            channels,
            height,
            width,
        };
        self.network.layers.push(Layer {
            kind,
            source,
            shape,
        });
        self.network.layers.len()
    }

    /// A dense layer on the last value.
    pub fn dense(
        &mut self,
        window: Window,
        channels: usize,
        clip: Option<[f32; 2]>,
        add: Option<usize>,
    ) -> usize {
        let mut convolution = self.convolution(window, channels, self.last().1.channels);
        convolution.clip = clip;
        self.push(Kind::Dense(convolution, add), channels, &window)
    }

    /// A depthwise layer on the last value.
    pub fn depthwise(&mut self, window: Window, clip: Option<[f32; 2]>) -> usize {
        let channels = self.last().1.channels;
        let mut convolution = self.convolution(window, channels, 1);
        convolution.clip = clip;
        self.push(Kind::Depthwise(convolution), channels, &window)
    }

    /// The mean of the last value.
    pub fn mean(&mut self) -> usize {
        let (source, from) = self.last();
        let shape = Shape {
            height: 1,
            width: 1,
            ..from
        };
        self.network.layers.push(Layer {
            kind: Kind::Mean,
            source,
            shape,
        });
        self.network.layers.len()
    }
}

/// A square window with any padding narrower than itself, asymmetric ones included.
pub fn window(sizes: &'static [usize]) -> impl Strategy<Value = Window> {
    let size = prop::sample::select(sizes);
    let padding = prop::array::uniform4(0usize..5);
    (size, 1usize..=2, padding).prop_map(|(size, stride, [top, left, bottom, right])| Window {
        size: [size, size],
        stride,
        before: [top.min(size - 1), left.min(size - 1)],
        after: [bottom.min(size - 1), right.min(size - 1)],
    })
}

/// No clip, ReLU6, ReLU, or one that keeps zero out.
pub fn clip() -> impl Strategy<Value = Option<[f32; 2]>> {
    prop::sample::select(vec![
        None,
        Some([0.0, 6.0]),
        Some([0.0, f32::INFINITY]),
        Some([0.25, 0.75]),
    ])
}
