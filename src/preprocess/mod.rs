//! From a picture to the image encoder's input: zone crop, Pillow-exact resize, normalisation.
//!
//! Equal to Hugging Face's CLIP image processor (the Pillow one): `shortest_edge` resize with the
//! long edge truncated, centre crop, rescale by 1/255, normalise.

use std::sync::Arc;

use image::RgbImage;
use thiserror::Error;

use crate::bundle::manifest::{Channels, Crop, Image, Resize};
use crate::config::Shape;
use crate::encoder::ModelInput;

mod cache;
mod live;
mod planar;
mod resample;
mod zone;

use cache::Cache;
pub use live::{Decoded, LiveError, View};
use planar::Weights;
use resample::{Axis, Source, Taps, resample};
pub use zone::Region;

/// Why a picture could not be prepared.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PreprocessError {
    /// Width or height is 0.
    #[error("the picture has no pixels ({width}x{height})")]
    Empty {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
}

/// Prepares pictures for one image encoder. Cheap to share between threads by reference.
#[derive(Debug)]
pub struct Preprocessor {
    size_px: u32,
    filter: Resize,
    crop: Crop,
    /// The mean colour as RGB bytes, for what is outside of a polygon.
    fill: [u8; 3],
    /// Which RGB channel each input plane holds.
    planes: [usize; 3],
    /// Normalised value of every byte, per RGB channel.
    normalized: [[f32; 256]; 3],
    taps: Cache<Axis, Taps>,
    weights: Cache<[u64; 6], Weights>,
}

impl Preprocessor {
    /// Follows `[image]` of a checked manifest.
    pub fn new(image: &Image) -> Self {
        let normalized = std::array::from_fn(|channel| {
            std::array::from_fn(|byte| normalize(byte, image.mean[channel], image.std[channel]))
        });
        Self {
            size_px: u32::try_from(image.size_px).unwrap_or(u32::MAX),
            filter: image.resize,
            crop: image.crop,
            fill: image.mean.map(to_byte),
            planes: match image.channels {
                Channels::Rgb => [0, 1, 2],
                Channels::Bgr => [2, 1, 0],
            },
            normalized,
            taps: Cache::default(),
            weights: Cache::default(),
        }
    }

    /// Crops `shape` from the full-resolution picture, fits it and normalises it.
    ///
    /// # Errors
    /// A picture without pixels.
    pub fn prepare(&self, rgb: &RgbImage, shape: &Shape) -> Result<ModelInput, PreprocessError> {
        let fitted = self.fit(rgb, shape)?;
        let pixels = fitted.len() / 3;
        let mut values = Vec::with_capacity(fitted.len());
        for channel in self.planes {
            let table = &self.normalized[channel];
            values.extend(
                fitted
                    .chunks_exact(3)
                    .map(|pixel| table[usize::from(pixel[channel])]),
            );
        }
        debug_assert_eq!(values.len(), pixels * 3);
        Ok(ModelInput {
            size_px: self.size_px as usize,
            values,
        })
    }

    /// What the encoder sees, before normalisation: `S × S` RGB.
    ///
    /// # Errors
    /// A picture without pixels.
    pub fn fit(&self, rgb: &RgbImage, shape: &Shape) -> Result<RgbImage, PreprocessError> {
        let (width, height) = rgb.dimensions();
        let region =
            Region::of(shape, width, height).ok_or(PreprocessError::Empty { width, height })?;
        let stride = width as usize * 3;
        let offset = region.y as usize * stride + region.x as usize * 3;
        let mut source = Source {
            samples: &rgb.as_raw()[offset..],
            stride,
        };
        let masked;
        if let Shape::Polygon(corners) = shape {
            let mut crop = copy(source, region);
            let origin = (f64::from(region.x), f64::from(region.y));
            let size = (f64::from(width), f64::from(height));
            let row = region.width as usize;
            zone::fill_outside(&mut crop, row, origin, corners, size, self.fill);
            masked = crop;
            source = Source {
                samples: &masked,
                stride: region.width as usize * 3,
            };
        }
        let (horizontal, vertical) = self.axes(region);
        let samples = resample(source, &self.taps(horizontal), &self.taps(vertical));
        Ok(RgbImage::from_raw(self.size_px, self.size_px, samples)
            .expect("both axes keep size_px positions"))
    }

    /// Hugging Face's `get_resize_output_image_size` (long edge `int(S · long / short)`) and
    /// `center_crop` (offset `(length − S) // 2`).
    fn axes(&self, region: Region) -> (Axis, Axis) {
        let size = u64::from(self.size_px);
        let short = u64::from(region.width.min(region.height));
        let axis = |length: u32| {
            let output = match self.crop {
                Crop::Squash => size,
                Crop::Center => size * u64::from(length) / short,
            };
            Axis {
                input: length as usize,
                output: usize::try_from(output).unwrap_or(usize::MAX),
                first: usize::try_from((output - size) / 2).unwrap_or(usize::MAX),
                count: self.size_px as usize,
            }
        };
        (axis(region.width), axis(region.height))
    }

    fn taps(&self, axis: Axis) -> Arc<Taps> {
        self.taps.get(axis, || Taps::new(axis, self.filter))
    }
}

fn copy(source: Source<'_>, region: Region) -> Vec<u8> {
    source
        .samples
        .chunks(source.stride)
        .take(region.height as usize)
        .flat_map(|row| &row[..region.width as usize * 3])
        .copied()
        .collect()
}

/// `(byte / 255 − mean) / std`, rounded to `f32` after each of the processor's steps.
fn normalize(byte: usize, mean: f32, std: f32) -> f32 {
    let byte = u8::try_from(byte).unwrap_or(u8::MAX);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the processor rounds to f32 here"
    )]
    let rescaled = (f64::from(byte) * (1.0 / 255.0)) as f32;
    (rescaled - mean) / std
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=255; `as` turns NaN into 0"
)]
fn to_byte(mean: f32) -> u8 {
    (mean * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn clip(size_px: usize) -> Image {
        Image {
            size_px,
            resize: Resize::Bicubic,
            crop: Crop::Center,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            channels: Channels::Rgb,
        }
    }

    fn halves() -> RgbImage {
        RgbImage::from_fn(64, 32, |x, _| {
            image::Rgb(if x < 32 { [255, 0, 0] } else { [0, 0, 255] })
        })
    }

    #[test]
    fn a_zone_is_cropped_before_it_is_resized() {
        let right = Shape::Rectangle {
            x: 0.5,
            y: 0.0,
            width: 0.5,
            height: 1.0,
        };
        let fitted = Preprocessor::new(&clip(32)).fit(&halves(), &right).unwrap();
        assert!(fitted.pixels().all(|p| p.0 == [0, 0, 255]));
    }

    #[test]
    fn a_centre_crop_keeps_the_middle_and_a_squash_keeps_everything() {
        let center = Preprocessor::new(&clip(32))
            .fit(&halves(), &Shape::Full)
            .unwrap();
        assert_eq!(center.get_pixel(0, 0).0, [255, 0, 0]);
        assert_eq!(center.get_pixel(31, 0).0, [0, 0, 255]);
        let mut image = clip(32);
        image.crop = Crop::Squash;
        let squash = Preprocessor::new(&image)
            .fit(&halves(), &Shape::Full)
            .unwrap();
        assert_eq!(squash.get_pixel(11, 9).0[2], 0);
        assert_eq!(squash.get_pixel(20, 9).0[0], 0);
    }

    #[test]
    fn outside_of_a_polygon_is_the_mean_colour() {
        let triangle = Shape::Polygon(vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
        let white = RgbImage::from_pixel(32, 32, image::Rgb([255; 3]));
        let fitted = Preprocessor::new(&clip(32)).fit(&white, &triangle).unwrap();
        assert_eq!(fitted.get_pixel(2, 2).0, [255; 3]);
        assert_eq!(fitted.get_pixel(30, 30).0, [123, 117, 104]);
    }

    #[test]
    fn blue_comes_first_when_the_manifest_says_so() {
        let mut image = clip(32);
        image.channels = Channels::Bgr;
        let red = RgbImage::from_pixel(40, 40, image::Rgb([255, 0, 0]));
        let input = Preprocessor::new(&image)
            .prepare(&red, &Shape::Full)
            .unwrap();
        assert_eq!(input.values.len(), 3 * 32 * 32);
        assert!(input.values[0] < 0.0, "the first plane is blue");
        assert!(input.values[2 * 32 * 32] > 0.0, "the last plane is red");
    }

    #[test]
    fn an_empty_picture_is_an_error() {
        let error = Preprocessor::new(&clip(32)).prepare(&RgbImage::new(0, 7), &Shape::Full);
        assert_eq!(
            error,
            Err(PreprocessError::Empty {
                width: 0,
                height: 7
            })
        );
    }

    #[test]
    fn a_picture_far_longer_than_high_costs_only_what_is_kept() {
        let strip = RgbImage::from_pixel(4000, 1, image::Rgb([9, 9, 9]));
        let fitted = Preprocessor::new(&clip(32))
            .fit(&strip, &Shape::Full)
            .unwrap();
        assert!(fitted.pixels().all(|p| p.0 == [9, 9, 9]));
    }
}
