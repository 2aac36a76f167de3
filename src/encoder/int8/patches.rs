//! The patch embedding of a vision transformer: a convolution whose windows do not overlap is a
//! linear layer over patches.

use super::kernels::{Activation, Context, QuantizedRows, linear};
use super::sublayer::Linear;

/// A patch embedding, `[channels, height, width]` pixels to `[patches, n]`.
#[derive(Clone, Debug)]
pub struct PatchEmbedding {
    linear: Linear,
    geometry: Geometry,
}

/// Shape of the picture and its patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Colour channels.
    pub channels: usize,
    /// Height and width of the picture, pixels, whole patches.
    pub picture: [usize; 2],
    /// Height and width of a patch, pixels.
    pub patch: [usize; 2],
}

impl Geometry {
    /// Patches from top to bottom and from left to right.
    pub fn grid(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.picture[axis] / self.patch[axis])
    }

    /// Patches of a picture.
    pub fn patches(&self) -> usize {
        self.grid().into_iter().product()
    }

    /// Values of a patch.
    pub fn patch_len(&self) -> usize {
        self.channels * self.patch[0] * self.patch[1]
    }

    /// Values of a picture.
    pub fn picture_len(&self) -> usize {
        self.channels * self.picture[0] * self.picture[1]
    }

    fn is_whole(&self) -> bool {
        let axes = [0, 1];
        let fits = |axis: usize| {
            let (picture, patch) = (self.picture[axis], self.patch[axis]);
            patch > 0 && picture > 0 && picture <= 1 << 14 && picture.is_multiple_of(patch)
        };
        (1..=4).contains(&self.channels) && axes.into_iter().all(fits)
    }
}

impl PatchEmbedding {
    /// `linear` maps `[channels, patch height, patch width]` in this order to the embedding.
    ///
    /// # Errors
    /// Parts that do not fit each other.
    pub fn new(linear: Linear, geometry: Geometry) -> Result<Self, String> {
        let fits = geometry.is_whole() && linear.weights.k() == geometry.patch_len();
        if !fits || linear.bias.len() != linear.weights.n() {
            return Err(format!("{geometry:?} does not fit its matrix"));
        }
        Ok(Self { linear, geometry })
    }

    /// The matrix and the bias.
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    /// Shapes.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// `pictures`: `[channels, height, width]` each. The result is `[pictures · patches, n]`, in a buffer
    /// of `scratch`.
    ///
    /// # Panics
    /// When a picture has another length.
    pub fn run<'a>(
        &self,
        cx: &Context,
        scratch: &'a mut Scratch,
        pictures: &[&[f32]],
    ) -> &'a [f32] {
        let Geometry {
            picture: [height, width],
            patch: [patch_height, patch_width],
            ..
        } = self.geometry;
        let len = self.geometry.picture_len();
        assert!(pictures.iter().all(|p| p.len() == len), "a picture");
        let [rows, columns] = self.geometry.grid();
        let count = pictures.len() * rows * columns;
        let k = self.geometry.patch_len();
        scratch.rows.gather(cx, count, k, |row, values| {
            let pixels = pictures[row / (rows * columns)];
            let patch = row % (rows * columns);
            let (top, left) = (
                patch / columns * patch_height,
                patch % columns * patch_width,
            );
            for (line, values) in values.chunks_exact_mut(patch_width).enumerate() {
                let (channel, y) = (line / patch_height, line % patch_height);
                let start = (channel * height + top + y) * width + left;
                values.copy_from_slice(&pixels[start..start + patch_width]);
            }
        });
        let (weights, bias) = (&self.linear.weights, &self.linear.bias);
        scratch.out.resize(count * weights.n(), 0.0);
        let none = Activation::None;
        linear(cx, &scratch.rows, weights, bias, none, &mut scratch.out);
        &scratch.out
    }
}

/// Buffers that are kept from call to call.
#[derive(Default)]
pub struct Scratch {
    rows: QuantizedRows,
    out: Vec<f32>,
}
