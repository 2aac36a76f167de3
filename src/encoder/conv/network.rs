//! A chain of convolutions as the recogniser finds it: shapes and weights, no layout yet.

/// A feature map of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// No pixel.
    pub const EMPTY: Self = Self {
        channels: 0,
        height: 0,
        width: 0,
    };

    /// Rows times columns.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }
}

/// How a kernel is laid over its source; the same stride in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Kernel rows and columns.
    pub size: [usize; 2],
    /// Source pixels between outputs.
    pub stride: usize,
    /// Zero rows above, zero columns to the left.
    pub before: [usize; 2],
    /// Zero rows below, zero columns to the right.
    pub after: [usize; 2],
}

impl Window {
    /// One tap at every pixel.
    pub const POINT: Self = Self {
        size: [1, 1],
        stride: 1,
        before: [0, 0],
        after: [0, 0],
    };

    /// Rows and columns of the output; `None` when the kernel does not fit once.
    pub fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let along = |axis: usize, len: usize| {
            let padded = len + self.before[axis] + self.after[axis];
            let room = padded.checked_sub(self.size[axis])?;
            Some(room / self.stride + 1)
        };
        Some([along(0, height)?, along(1, width)?])
    }
}

/// A convolution with its bias and what follows it.
#[derive(Clone, Debug)]
pub struct Convolution {
    /// Geometry.
    pub window: Window,
    /// Dense: `[O, C, kh, kw]`. Depthwise: `[C, kh, kw]`.
    pub weights: Vec<f32>,
    /// `[O]`.
    pub bias: Vec<f32>,
    /// Lowest and highest value of the output, neither of them NaN.
    pub clip: Option<[f32; 2]>,
}

/// What a layer computes.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Every output channel from every source channel; then the value with this index is added.
    Dense(Convolution, Option<usize>),
    /// Every channel by itself.
    Depthwise(Convolution),
    /// Mean over all pixels, `[C, 1, 1]`.
    Mean,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Operation.
    pub kind: Kind,
    /// Index of the value it reads.
    pub source: usize,
    /// Its output.
    pub shape: Shape,
}

/// Layers in order of execution. Value 0 is the input, value `i + 1` the output of layer `i`; the
/// last one is the network's.
#[derive(Clone, Debug)]
pub struct Network {
    /// Of value 0.
    pub input: Shape,
    /// At least one; each reads values before it.
    pub layers: Vec<Layer>,
}

impl Network {
    /// Shape of a value.
    pub fn shape(&self, value: usize) -> Shape {
        match value {
            0 => self.input,
            _ => self.layers[value - 1].shape,
        }
    }

    /// Shape of the last value.
    pub fn output(&self) -> Shape {
        self.shape(self.layers.len())
    }

    /// Multiply–adds per image.
    pub fn multiply_adds(&self) -> usize {
        let layer = |layer: &Layer| match &layer.kind {
            Kind::Dense(c, _) | Kind::Depthwise(c) => c.weights.len() * layer.shape.pixels(),
            Kind::Mean => 0,
        };
        self.layers.iter().map(layer).sum()
    }
}
