//! Weights in the order in which the kernels read them.

use super::kernels::buffer::Buffer;
use super::kernels::{Ahead, Kernels, LANES, RowKernel, Run, Step};
use super::network::{Convolution, Window};

/// Some neighbouring blocks of output channels, computed together.
#[derive(Clone, Copy, Debug)]
pub struct Panel {
    /// Index of its first block.
    pub first: usize,
    /// Blocks.
    pub blocks: usize,
}

/// Weights of a dense convolution, `[panel][k][blocks·LANES]`.
#[derive(Debug)]
pub struct Dense {
    pub window: Window,
    /// Between the origins of neighbouring pixels.
    pub step: Step,
    pub panels: Vec<Panel>,
    /// Lowest and highest value.
    pub clip: Option<[f32; 2]>,
    /// Source channels.
    channels: usize,
    /// Values summed per output.
    k: usize,
    weights: Buffer,
    bias: Buffer,
}

/// Where the values of a pixel lie in one particular source.
#[derive(Debug)]
pub struct Taps {
    pub runs: Vec<Run>,
    /// Floats from the pixel's origin to the end of its furthest run.
    pub extent: usize,
}

impl Dense {
    /// `None` when there is no kernel for the stride.
    pub fn pack(
        kernels: &Kernels,
        convolution: &Convolution,
        channels: usize,
        planes: bool,
    ) -> Option<Self> {
        let window = convolution.window;
        let step = Step::of(planes, window.stride)?;
        let outputs = convolution.bias.len();
        let k = channels * window.size[0] * window.size[1];
        assert_eq!(convolution.weights.len(), outputs * k);
        let blocks = outputs.div_ceil(LANES);
        let mut panels = Vec::new();
        let mut first = 0;
        for blocks in kernels.panels(step, blocks) {
            panels.push(Panel { first, blocks });
            first += blocks;
        }
        let mut weights = Buffer::zeros(blocks * LANES * k);
        let order = order(channels, window.size, planes);
        for panel in &panels {
            let width = panel.blocks * LANES;
            let packed = &mut weights[panel.first * LANES * k..][..width * k];
            for (row, from) in packed.chunks_exact_mut(width).zip(&order) {
                for (lane, value) in row.iter_mut().enumerate() {
                    let output = panel.first * LANES + lane;
                    if output < outputs {
                        *value = convolution.weights[output * k + from];
                    }
                }
            }
        }
        let mut bias = Buffer::zeros(blocks * LANES);
        bias[..outputs].copy_from_slice(&convolution.bias);
        Some(Self {
            window,
            step,
            panels,
            clip: convolution.clip,
            channels,
            k,
            weights,
            bias,
        })
    }

    /// Weights `[k, blocks·LANES]` and bias `[blocks·LANES]` of a panel.
    pub fn panel(&self, panel: Panel) -> (&[f32], &[f32]) {
        let (first, width) = (panel.first * LANES, panel.blocks * LANES);
        let weights = &self.weights[first * self.k..][..width * self.k];
        (weights, &self.bias[first..][..width])
    }

    /// What to prefetch while `panel` is used: the weights of the one after it.
    pub fn ahead(&self, panel: Panel) -> Ahead<'_> {
        let end = (panel.first + panel.blocks) * LANES * self.k;
        let next = &self.weights[end..];
        Ahead {
            weights: &next[..next.len().min(panel.blocks * LANES * self.k)],
            per_tile: self.k * LANES,
        }
    }

    /// The runs in a source whose planes (or blocks) are `plane` floats apart, its rows `pitch`.
    pub fn taps(&self, plane: usize, pitch: usize) -> Taps {
        let [height, width] = self.window.size;
        let mut runs: Vec<Run> = Vec::new();
        let mut add = |offset, len| match runs.last_mut() {
            Some(last) if last.offset + last.len == offset => last.len += len,
            _ => runs.push(Run { offset, len }),
        };
        match self.step {
            Step::One | Step::Two => {
                for channel in 0..self.channels {
                    for y in 0..height {
                        add(channel * plane + y * pitch, width);
                    }
                }
            }
            Step::Block | Step::TwoBlocks => {
                for y in 0..height {
                    for x in 0..width {
                        for block in 0..self.channels.div_ceil(LANES) {
                            let len = LANES.min(self.channels - block * LANES);
                            add(block * plane + y * pitch + x * LANES, len);
                        }
                    }
                }
            }
        }
        let extent = runs.iter().map(|run| run.offset + run.len).max();
        let extent = extent.unwrap_or(0);
        Taps { runs, extent }
    }
}

/// For each value of the sum, in the order of [`Dense::taps`], its index in `[C, kh, kw]`.
fn order(channels: usize, [height, width]: [usize; 2], planes: bool) -> Vec<usize> {
    let taps = height * width;
    if planes {
        return (0..channels * taps).collect();
    }
    let by_tap = |tap| (0..channels).map(move |channel| channel * taps + tap);
    (0..taps).flat_map(by_tap).collect()
}

/// Weights of a depthwise convolution, `[block][K·K][LANES]`.
pub struct Depthwise {
    pub window: Window,
    pub clip: Option<[f32; 2]>,
    pub kernel: RowKernel,
    weights: Buffer,
    bias: Buffer,
}

impl Depthwise {
    /// `None` when there is no kernel for the window.
    pub fn pack(kernels: &Kernels, convolution: &Convolution) -> Option<Self> {
        let window = convolution.window;
        let [size, width] = window.size;
        if size != width {
            return None;
        }
        let kernel = kernels.depthwise(size, window.stride)?;
        let channels = convolution.bias.len();
        let taps = size * size;
        assert_eq!(convolution.weights.len(), channels * taps);
        let blocks = channels.div_ceil(LANES);
        let mut weights = Buffer::zeros(blocks * taps * LANES);
        for (channel, values) in convolution.weights.chunks_exact(taps).enumerate() {
            let (block, lane) = (channel / LANES, channel % LANES);
            for (tap, value) in values.iter().enumerate() {
                weights[(block * taps + tap) * LANES + lane] = *value;
            }
        }
        let mut bias = Buffer::zeros(blocks * LANES);
        bias[..channels].copy_from_slice(&convolution.bias);
        Some(Self {
            window,
            clip: convolution.clip,
            kernel,
            weights,
            bias,
        })
    }

    /// Channels in blocks.
    pub fn blocks(&self) -> usize {
        self.bias.len() / LANES
    }

    /// Weights `[K·K, LANES]` and bias `[LANES]` of a block.
    pub fn block(&self, block: usize) -> (&[f32], &[f32]) {
        let taps = self.window.size[0] * self.window.size[1];
        let weights = &self.weights[block * taps * LANES..][..taps * LANES];
        (weights, &self.bias[block * LANES..][..LANES])
    }
}
