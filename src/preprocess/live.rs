//! From a camera's frame to the encoder's input, decoded no further than that takes.
//!
//! **The rule.** A JPEG is decoded at a half or a quarter of its size where the crop of the zone then
//! still has [`SPARE`] times the pixels, in both directions, that it is resized to: what the transform
//! leaves out (see [`Scale`]) would not have passed the filter of the resize, which always does the
//! last step. Luma, Cb and Cr are resized apart, each from the resolution at which it is coded, and
//! become RGB at the encoder's size: up to rounding that is the same, both steps being linear.
//!
//! This is for live frames alone. It is not bit for bit what [`Preprocessor::prepare`] makes of the
//! whole picture, which is Pillow's. The same scenes, 69 photos of everyday things as 1080p frames,
//! give the demo model these mean cosines to the embedding of the whole picture, and so many zones of
//! the 207 another nearest of 48 names:
//!
//! | zone of the frame | so | whole, but coded at quality 90, not 85 |
//! |---|---:|---:|
//! | all of it, at half its size | .9997 | .9995 |
//! | .7 × .6 of it, at its own size | .9995 | .9986 |
//! | .5 × .5 of it, at its own size | .9992 | .9976 |
//! | another nearest name | 7 | 5 |
//!
//! `tests/vision/reduced.rs` holds it to .999. Snapshots, evidence, `score`, `evaluate` and everything
//! that is fitted use whole pictures.

use std::sync::Arc;

use image::RgbImage;
use thiserror::Error;

use super::planar::{self, Rows, Source, ToValues, Weights};
use super::resample::to_f64;
use super::{PreprocessError, Preprocessor, Region, zone};
use crate::config::Shape;
use crate::decode::{DecodeError, Expected, Picture, Plane, Scale};
use crate::encoder::ModelInput;

/// Pixels that a reduced crop has at least for one that it is resized to.
const SPARE: u64 = 2;

/// Around what the filter reads, pixels: it reads from the samples in which its support ends.
const MARGIN_PX: f64 = 8.0;

/// What Cb and Cr add to red, green and blue (BT.601).
const CHROMA: [[f32; 2]; 3] = [[0.0, 1.402], [-0.344_136_3, -0.714_136_3], [1.772, 0.0]];

/// Why a frame gives no input.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LiveError {
    /// It turned out to be damaged.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// It has no pixels.
    #[error(transparent)]
    Empty(#[from] PreprocessError),
}

/// What of a picture a zone needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Pixels that are read: with a centre crop not all of the zone.
    pub reads: Region,
    /// The smallest size that will do.
    pub scale: Scale,
}

/// What some zones need of a frame, decoded.
#[derive(Debug)]
pub struct Decoded<'s> {
    zones: Vec<(&'s Shape, Scale)>,
    pixels: Pixels,
    size: (u32, u32),
}

#[derive(Debug)]
enum Pixels {
    /// Of a picture that is not decoded in parts.
    Whole(Arc<RgbImage>),
    /// What lies under the zones of each size.
    Parts(Vec<(Scale, Vec<Plane>)>),
}

impl Preprocessor {
    /// The inputs of some zones of a frame.
    ///
    /// # Errors
    /// A frame that turns out to be damaged.
    pub fn prepare_live<'s>(
        &self,
        picture: &Picture,
        shapes: impl Iterator<Item = &'s Shape>,
    ) -> Result<Vec<ModelInput>, LiveError> {
        self.inputs(&self.decode(picture, shapes)?)
    }

    /// The first half of [`Preprocessor::prepare_live`].
    ///
    /// # Errors
    /// A frame that turns out to be damaged.
    pub fn decode<'s>(
        &self,
        picture: &Picture,
        shapes: impl Iterator<Item = &'s Shape>,
    ) -> Result<Decoded<'s>, LiveError> {
        let Some(size) = picture.size_in_parts() else {
            let rgb = picture.whole()?;
            return Ok(Decoded {
                zones: shapes.map(|shape| (shape, Scale::Whole)).collect(),
                size: rgb.dimensions(),
                pixels: Pixels::Whole(rgb),
            });
        };
        let (mut zones, mut views) = (Vec::new(), Vec::new());
        for shape in shapes {
            let view = self.view(shape, size.0, size.1)?;
            zones.push((shape, view.scale));
            views.push(view);
        }
        let part = |(scale, regions): (Scale, Vec<Region>)| -> Result<_, DecodeError> {
            Ok((scale, picture.planes(&regions, scale)?))
        };
        let parts = by_scale(&views).map(part).collect::<Result<_, _>>()?;
        Ok(Decoded {
            zones,
            pixels: Pixels::Parts(parts),
            size,
        })
    }

    /// What [`Preprocessor::decode`] asks of a picture of this size for these zones: of several sizes
    /// that at which most pixels are read. `None` without zones.
    pub fn expected<'s>(
        &self,
        size: (u32, u32),
        shapes: impl Iterator<Item = &'s Shape>,
    ) -> Option<Expected> {
        let views = shapes.map(|shape| self.view(shape, size.0, size.1).ok());
        let views: Vec<View> = views.collect::<Option<_>>()?;
        let area = |region: &Region| u64::from(region.width) * u64::from(region.height);
        let most = |(_, regions): &(Scale, Vec<Region>)| regions.iter().map(area).sum::<u64>();
        let (scale, regions) = by_scale(&views).max_by_key(most)?;
        Some(Expected {
            size,
            regions,
            scale,
        })
    }

    /// The second half of [`Preprocessor::prepare_live`], in the order of the zones.
    ///
    /// # Errors
    /// A frame without pixels.
    pub fn inputs(&self, decoded: &Decoded<'_>) -> Result<Vec<ModelInput>, LiveError> {
        let input = |(shape, scale): &(&Shape, Scale)| match &decoded.pixels {
            Pixels::Whole(rgb) => Ok(self.prepare(rgb, shape)?),
            Pixels::Parts(parts) => {
                let planes = parts.iter().find(|(of, _)| of == scale);
                let planes = planes.map_or(&[][..], |(_, planes)| planes);
                Ok(self.prepare_planes(planes, shape, decoded.size)?)
            }
        };
        decoded.zones.iter().map(input).collect()
    }

    /// What the zone `shape` needs of a frame of `width × height` pixels.
    ///
    /// # Errors
    /// A frame without pixels.
    pub fn view(&self, shape: &Shape, width: u32, height: u32) -> Result<View, PreprocessError> {
        let region =
            Region::of(shape, width, height).ok_or(PreprocessError::Empty { width, height })?;
        let (horizontal, vertical) = self.axes(region);
        let has_enough = |scale: &Scale, length: u32, output: usize| {
            u64::from(length) * scale.edge() as u64 >= SPARE * output as u64 * 8
        };
        let scale = Scale::ALL.into_iter().find(|scale| {
            has_enough(scale, region.width, horizontal.output)
                && has_enough(scale, region.height, vertical.output)
        });
        let span = |axis: super::Axis, from: u32, length: u32| {
            let reads = planar::Axis::of(axis, f64::from(from), f64::from(length), usize::MAX);
            let reads = reads.reads(self.filter);
            let start = whole(reads.start - MARGIN_PX).max(from);
            (
                start,
                whole(reads.end + MARGIN_PX).min(from + length) - start,
            )
        };
        let (x, width) = span(horizontal, region.x, region.width);
        let (y, height) = span(vertical, region.y, region.height);
        Ok(View {
            reads: Region {
                x,
                y,
                width,
                height,
            },
            scale: scale.unwrap_or(Scale::Whole),
        })
    }

    /// [`Preprocessor::prepare`] for planes of YCbCr (BT.601, full range) or of luma alone that hold
    /// what [`Preprocessor::view`] asks for, of a frame of `width × height` pixels.
    fn prepare_planes(
        &self,
        planes: &[Plane],
        shape: &Shape,
        (width, height): (u32, u32),
    ) -> Result<ModelInput, PreprocessError> {
        let region =
            Region::of(shape, width, height).ok_or(PreprocessError::Empty { width, height })?;
        let masked: Vec<Plane>;
        let mut planes = planes;
        if let Shape::Polygon(corners) = shape {
            let fill = ycbcr(self.fill);
            let parts = planes.iter().zip(fill).map(|(plane, fill)| {
                let mut part = part(plane, region);
                part.fill_outside(corners, (width, height), fill);
                part
            });
            masked = parts.collect();
            planes = &masked;
        }
        let axes: Vec<_> = planes
            .iter()
            .map(|plane| self.plane_axes(plane, region))
            .collect();
        let mut rows: Vec<Rows<'_>> = planes
            .iter()
            .zip(&axes)
            .map(|(plane, [horizontal, vertical])| {
                let source = Source {
                    samples: &plane.samples,
                    stride: plane.width,
                };
                Rows::new(source, horizontal, vertical)
            })
            .collect();
        let edge = self.size_px as usize;
        let mut values = vec![0.0; 3 * edge * edge];
        let mut codes = vec![vec![0.0; edge]; planes.len()];
        for y in 0..edge {
            for (rows, codes) in rows.iter_mut().zip(&mut codes) {
                rows.row(y, codes);
            }
            for (plane, channel) in values.chunks_exact_mut(edge * edge).zip(self.planes) {
                self.normalize(channel, &codes, &mut plane[y * edge..(y + 1) * edge]);
            }
        }
        Ok(ModelInput {
            size_px: edge,
            values,
        })
    }

    /// Weights along x and y.
    fn plane_axes(&self, plane: &Plane, region: Region) -> [Arc<Weights>; 2] {
        let (horizontal, vertical) = self.axes(region);
        let [across, down] = plane.density;
        let rows = plane.samples.len() / plane.width.max(1);
        let axis = |axis, from: u32, length: u32, first: usize, density: f64, samples: usize| {
            let start = f64::from(from) * density - to_f64(first);
            planar::Axis::of(axis, start, f64::from(length) * density, samples)
        };
        [
            self.weights(axis(
                horizontal,
                region.x,
                region.width,
                plane.left,
                across,
                plane.width,
            )),
            self.weights(axis(
                vertical,
                region.y,
                region.height,
                plane.top,
                down,
                rows,
            )),
        ]
    }

    fn weights(&self, axis: planar::Axis) -> Arc<Weights> {
        self.weights
            .get(axis.key(), || Weights::new(axis, self.filter))
    }

    /// One channel of RGB from codes of YCbCr or of luma, `(code / 255 − mean) / std`. RGB is rounded to
    /// codes: encoders are trained on these, and what lies between takes more off the cosine to the
    /// whole picture's embedding than the reduced size does.
    fn normalize(&self, channel: usize, codes: &[Vec<f32>], out: &mut [f32]) {
        let table = &self.normalized[channel];
        let to_values = ToValues {
            chroma: CHROMA[channel],
            black: table[0],
            unit: (table[255] - table[0]) / 255.0,
        };
        to_values.row(codes, out);
    }
}

/// What is read at each size.
fn by_scale(views: &[View]) -> impl Iterator<Item = (Scale, Vec<Region>)> {
    let of = |scale: Scale| {
        let views = views.iter().filter(move |view| view.scale == scale);
        (scale, views.map(|view| view.reads).collect::<Vec<_>>())
    };
    let parts = Scale::ALL.into_iter().map(of);
    parts.filter(|(_, regions)| !regions.is_empty())
}

/// The samples of `plane` under `region`, rounded outwards.
fn part(plane: &Plane, region: Region) -> Plane {
    let rows = plane.samples.len() / plane.width.max(1);
    let span = |from: u32, length: u32, density: f64, first: usize, count: usize| {
        let at = |px: u32| f64::from(px) * density;
        let place = |sample: u32| (sample as usize).saturating_sub(first).min(count);
        place(whole(at(from)))..place(whole(at(from + length).ceil()))
    };
    let [across, down] = plane.density;
    let columns = span(region.x, region.width, across, plane.left, plane.width);
    let rows = span(region.y, region.height, down, plane.top, rows);
    let samples = plane.samples.chunks(plane.width.max(1));
    let samples = samples.skip(rows.start).take(rows.len());
    Plane {
        samples: samples
            .flat_map(|row| &row[columns.clone()])
            .copied()
            .collect(),
        width: columns.len(),
        left: plane.left + columns.start,
        top: plane.top + rows.start,
        density: plane.density,
    }
}

impl Plane {
    /// See [`zone::fill_outside`].
    fn fill_outside(&mut self, corners: &[[f32; 2]], (width, height): (u32, u32), fill: u8) {
        let [across, down] = self.density;
        let size = (f64::from(width) * across, f64::from(height) * down);
        let origin = (to_f64(self.left), to_f64(self.top));
        zone::fill_outside(&mut self.samples, self.width, origin, corners, size, [fill]);
    }
}

/// The codes of a colour: BT.601, full range.
fn ycbcr(rgb: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = rgb.map(f32::from);
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    let code = |value: f32| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "held within 0–255"
        )]
        let code = value.round().clamp(0.0, 255.0) as u8;
        code
    };
    [
        code(y),
        code(128.0 + (b - y) / 1.772),
        code(128.0 + (r - y) / 1.402),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions in a picture; `as` saturates below 0"
)]
fn whole(position: f64) -> u32 {
    position as u32
}

#[cfg(test)]
mod tests;
