//! Views of a photo: what a shelf camera might have made of the same thing.

mod recipe;

use image::{Rgb, RgbImage};
use rand::Rng;

pub use recipe::clip_italian;

/// A part of an image in pixels, fractions allowed.
#[derive(Clone, Copy, Debug)]
pub struct Crop {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
}

impl Crop {
    /// The centre square over the short edge.
    #[expect(clippy::cast_precision_loss, reason = "image sizes")]
    pub fn centre(image: &RgbImage) -> Self {
        let (w, h) = (image.width() as f32, image.height() as f32);
        let edge = w.min(h);
        Self {
            x: (w - edge) / 2.0,
            y: (h - edge) / 2.0,
            width: edge,
            height: edge,
        }
    }
}

/// How strongly [`view`] changes a photo.
#[derive(Clone, Copy, Debug)]
pub struct Strength {
    /// Smallest part of the photo's area that a crop keeps.
    pub smallest_area: f32,
    /// Largest relative change of brightness, contrast and saturation.
    pub colour: f32,
    /// Probability of a rotation with shear.
    pub warp: f64,
    /// Probability that a rectangle is painted over.
    pub erase: f64,
    /// Probability of a loss of sharpness.
    pub blur: f64,
}

impl Default for Strength {
    fn default() -> Self {
        Self {
            smallest_area: 0.35,
            colour: 0.3,
            warp: 0.35,
            erase: 0.25,
            blur: 0.15,
        }
    }
}

/// A random view as the demo's tower takes it: `[size², 3]`, `(rgb − 127) / 128`. `readable` pictures
/// (with writing on them) are rarely mirrored.
pub fn view(
    image: &RgbImage,
    size: usize,
    readable: bool,
    strength: Strength,
    rng: &mut impl Rng,
) -> Vec<f32> {
    let mut pixels = pixels(image, size, readable, strength, rng);
    normalise(&mut pixels);
    pixels
}

/// A random view as a square picture with edges of `size_px`, for whatever preprocessing follows.
pub fn picture(
    image: &RgbImage,
    size_px: u32,
    readable: bool,
    strength: Strength,
    rng: &mut impl Rng,
) -> RgbImage {
    let size = usize::try_from(size_px).unwrap_or(usize::MAX);
    let pixels = pixels(image, size, readable, strength, rng);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0–255"
    )]
    let bytes = pixels.iter().map(|v| v.clamp(0.0, 255.0).round() as u8);
    RgbImage::from_raw(size_px, size_px, bytes.collect()).unwrap_or_default()
}

/// `[size², 3]` in 0–255, overshoot not yet clipped.
fn pixels(
    image: &RgbImage,
    size: usize,
    readable: bool,
    strength: Strength,
    rng: &mut impl Rng,
) -> Vec<f32> {
    let warped = rng.random_bool(strength.warp).then(|| warp(image, rng));
    let image = warped.as_ref().unwrap_or(image);
    let crop = random_crop(image, strength.smallest_area, rng);
    let mut pixels = if rng.random_bool(strength.blur) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a positive size in pixels"
        )]
        let small = (size as f32 * rng.random_range(0.35..0.8)) as usize;
        let low = resample(image, crop, small);
        stretch(&low, small, size)
    } else {
        resample(image, crop, size)
    };
    if rng.random_bool(if readable { 0.1 } else { 0.5 }) {
        for row in pixels.chunks_exact_mut(size * 3) {
            for x in 0..size / 2 {
                for c in 0..3 {
                    row.swap(x * 3 + c, (size - 1 - x) * 3 + c);
                }
            }
        }
    }
    recolour(&mut pixels, strength.colour, rng);
    if rng.random_bool(strength.erase) {
        erase(&mut pixels, size, rng);
    }
    pixels
}

/// The centre view without any change: `[size², 3]`, `(rgb − 127) / 128`.
pub fn centre_view(image: &RgbImage, size: usize) -> Vec<f32> {
    let mut pixels = resample(image, Crop::centre(image), size);
    normalise(&mut pixels);
    pixels
}

/// Channel means that the network was trained with, in 0–255.
pub const MEAN: f32 = 127.0;
/// Divisor that the network was trained with, in 0–255.
pub const DIVISOR: f32 = 128.0;

fn normalise(pixels: &mut [f32]) {
    for v in pixels {
        *v = (v.clamp(0.0, 255.0) - MEAN) / DIVISOR;
    }
}

#[expect(clippy::cast_precision_loss, reason = "image sizes")]
fn random_crop(image: &RgbImage, smallest_area: f32, rng: &mut impl Rng) -> Crop {
    let (w, h) = (image.width() as f32, image.height() as f32);
    for _ in 0..10 {
        let area = w * h * rng.random_range(smallest_area..1.0);
        let ratio = rng
            .random_range((3.0f32 / 4.0).ln()..(4.0f32 / 3.0).ln())
            .exp();
        let (width, height) = ((area * ratio).sqrt(), (area / ratio).sqrt());
        if width <= w && height <= h {
            let x = rng.random_range(0.0..=w - width);
            let y = rng.random_range(0.0..=h - height);
            return Crop {
                x,
                y,
                width,
                height,
            };
        }
    }
    Crop::centre(image)
}

/// Keys' cubic with a = −0.5, as Pillow's bicubic.
fn cubic(x: f32) -> f32 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

/// For every output position the first input position and the weights from there on.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions inside an image"
)]
fn weights(from: f32, length: f32, limit: usize, size: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = length / size as f32;
    let spread = scale.max(1.0);
    (0..size)
        .map(|o| {
            let centre = from + (o as f32 + 0.5) * scale;
            let first = (centre - 2.0 * spread).floor().max(0.0) as usize;
            let last = ((centre + 2.0 * spread).ceil() as usize).min(limit);
            let mut taps: Vec<f32> = (first..last)
                .map(|i| cubic((i as f32 + 0.5 - centre) / spread))
                .collect();
            let sum: f32 = taps.iter().sum();
            taps.iter_mut().for_each(|t| *t /= sum);
            (first, taps)
        })
        .collect()
}

/// Antialiased bicubic: `[size², 3]` in 0–255 (overshoot not yet clipped).
pub fn resample(image: &RgbImage, crop: Crop, size: usize) -> Vec<f32> {
    let (w, h) = (image.width() as usize, image.height() as usize);
    let raw = image.as_raw();
    separable(
        &weights(crop.x, crop.width, w, size),
        &weights(crop.y, crop.height, h, size),
        size,
        |y, x, c| f32::from(raw[(y * w + x) * 3 + c]),
    )
}

/// Enlarges `[from², 3]` to `[size², 3]`.
fn stretch(pixels: &[f32], from: usize, size: usize) -> Vec<f32> {
    #[expect(clippy::cast_precision_loss, reason = "image sizes")]
    let taps = weights(0.0, from as f32, from, size);
    separable(&taps, &taps, size, |y, x, c| pixels[(y * from + x) * 3 + c])
}

fn separable(
    columns: &[(usize, Vec<f32>)],
    rows: &[(usize, Vec<f32>)],
    size: usize,
    at: impl Fn(usize, usize, usize) -> f32,
) -> Vec<f32> {
    let top = rows.iter().map(|r| r.0).min().unwrap_or(0);
    let bottom = rows.iter().map(|r| r.0 + r.1.len()).max().unwrap_or(0);
    let mut across = vec![0.0f32; (bottom - top) * size * 3];
    for (y, line) in (top..bottom).zip(across.chunks_exact_mut(size * 3)) {
        for ((first, taps), out) in columns.iter().zip(line.chunks_exact_mut(3)) {
            for (i, t) in taps.iter().enumerate() {
                for (c, out) in out.iter_mut().enumerate() {
                    *out += t * at(y, first + i, c);
                }
            }
        }
    }
    let mut out = vec![0.0f32; size * size * 3];
    for ((first, taps), line) in rows.iter().zip(out.chunks_exact_mut(size * 3)) {
        for (i, t) in taps.iter().enumerate() {
            let source = &across[(first + i - top) * size * 3..][..size * 3];
            for (o, s) in line.iter_mut().zip(source) {
                *o += t * s;
            }
        }
    }
    out
}

/// Rotation up to 25°, shear up to 0.15, edges repeated; bilinear.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions inside an image"
)]
fn warp(image: &RgbImage, rng: &mut impl Rng) -> RgbImage {
    let angle = rng.random_range(-25.0f32..25.0).to_radians();
    let (shear_x, shear_y) = (rng.random_range(-0.15..0.15), rng.random_range(-0.15..0.15));
    let (sin, cos) = angle.sin_cos();
    let (a, b) = (cos + shear_x * sin, -sin + shear_x * cos);
    let (c, d) = (sin + shear_y * cos, cos - shear_y * sin);
    let (w, h) = (image.width(), image.height());
    let (cx, cy) = (w as f32 / 2.0, h as f32 / 2.0);
    RgbImage::from_fn(w, h, |x, y| {
        let (dx, dy) = (x as f32 - cx, y as f32 - cy);
        let sx = (a * dx + b * dy + cx).clamp(0.0, (w - 1) as f32);
        let sy = (c * dx + d * dy + cy).clamp(0.0, (h - 1) as f32);
        let (x0, y0) = (sx as u32, sy as u32);
        let (x1, y1) = ((x0 + 1).min(w - 1), (y0 + 1).min(h - 1));
        let (fx, fy) = (sx - x0 as f32, sy - y0 as f32);
        let mut out = [0u8; 3];
        for (i, out) in out.iter_mut().enumerate() {
            let p = |x, y| f32::from(image.get_pixel(x, y)[i]);
            let top = p(x0, y0) * (1.0 - fx) + p(x1, y0) * fx;
            let low = p(x0, y1) * (1.0 - fx) + p(x1, y1) * fx;
            *out = (top * (1.0 - fy) + low * fy).round() as u8;
        }
        Rgb(out)
    })
}

/// Brightness, contrast, saturation and white balance.
fn recolour(pixels: &mut [f32], strength: f32, rng: &mut impl Rng) {
    let mut around_one = |by: f32| rng.random_range(1.0 - by..1.0 + by);
    let (contrast, saturation) = (around_one(strength), around_one(strength));
    let brightness = around_one(strength);
    let balance = [
        around_one(strength / 4.0),
        around_one(strength / 4.0),
        around_one(strength / 4.0),
    ];
    let luma = |p: &[f32]| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
    #[expect(clippy::cast_precision_loss, reason = "a pixel count")]
    let mean = pixels.chunks_exact(3).map(luma).sum::<f32>() / (pixels.len() / 3) as f32;
    for p in pixels.chunks_exact_mut(3) {
        let grey = luma(p);
        for (v, balance) in p.iter_mut().zip(balance) {
            let saturated = grey + (*v - grey) * saturation;
            *v = ((mean + (saturated - mean) * contrast) * brightness * balance).clamp(0.0, 255.0);
        }
    }
}

/// Paints a rectangle of 2–20 % of the area in one random colour.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions inside an image"
)]
fn erase(pixels: &mut [f32], size: usize, rng: &mut impl Rng) {
    let area = rng.random_range(0.02f32..0.2) * (size * size) as f32;
    let ratio = rng.random_range(-0.8f32..0.8).exp();
    let width = ((area * ratio).sqrt() as usize).clamp(1, size);
    let height = ((area / ratio).sqrt() as usize).clamp(1, size);
    let (x, y) = (
        rng.random_range(0..=size - width),
        rng.random_range(0..=size - height),
    );
    let colour: [f32; 3] = [(); 3].map(|()| rng.random_range(0.0..255.0));
    for row in pixels.chunks_exact_mut(size * 3).skip(y).take(height) {
        for p in row[x * 3..(x + width) * 3].chunks_exact_mut(3) {
            p.copy_from_slice(&colour);
        }
    }
}

#[cfg(test)]
mod tests;
