//! The views that CLIP-Italian was trained on (`hybrid_clip/run_hybrid_clip.py` of its repository), in
//! torchvision's definitions:
//!
//! | step | parameters |
//! |---|---|
//! | `Resize`, `RandomCrop` | short edge to the tower's size, bicubic; a square anywhere along the long edge |
//! | `ColorJitter` | hue turned by up to ±0.1 of a turn |
//! | `RandomHorizontalFlip` | every second picture |
//! | `RandomAffine` | ±15°, moved by up to 0.1 of the edge, scale 0.8–1.2, sheared by ±15° along both axes |
//! | `RandomPerspective` | distortion 0.3, three pictures of ten |
//! | `RandomAutocontrast`, `RandomEqualize` | three pictures of ten each, every channel by itself |
//!
//! What comes from outside of the picture is grey, 127; the warps are bilinear.

use image::RgbImage;
use rand::Rng;

use super::{Crop, resample};

/// Grey that fills what was outside.
const FILL: f32 = 127.0;

/// Largest turn of the hue, of a whole turn.
const HUE: f32 = 0.1;

/// Largest rotation and shear, degrees.
const DEGREES: f32 = 15.0;

/// Largest move, of the edge.
const MOVE: f32 = 0.1;

/// Smallest and largest scale.
const SCALE: (f32, f32) = (0.8, 1.2);

/// How far corners move at most, of half an edge.
const DISTORTION: f32 = 0.3;

/// Share of pictures that are distorted, stretched and equalized, each by itself.
const SOMETIMES: f64 = 0.3;

/// A random view with edges of `size_px`.
pub fn clip_italian(photo: &RgbImage, size_px: u32, rng: &mut impl Rng) -> RgbImage {
    let mut picture = crop(photo, size_px, rng);
    turn_hue(&mut picture, rng.random_range(-HUE..HUE));
    if rng.random_bool(0.5) {
        image::imageops::flip_horizontal_in_place(&mut picture);
    }
    picture = warped(&picture, affine(size_px, rng));
    if rng.random_bool(SOMETIMES) {
        picture = warped(&picture, perspective(size_px, rng));
    }
    if rng.random_bool(SOMETIMES) {
        autocontrast(&mut picture);
    }
    if rng.random_bool(SOMETIMES) {
        equalize(&mut picture);
    }
    picture
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0–255"
)]
fn byte(value: f32) -> u8 {
    value.clamp(0.0, 255.0).round() as u8
}

#[expect(clippy::cast_precision_loss, reason = "image sizes")]
fn crop(photo: &RgbImage, size_px: u32, rng: &mut impl Rng) -> RgbImage {
    let (width, height) = (photo.width() as f32, photo.height() as f32);
    let edge = width.min(height);
    let square = Crop {
        x: rng.random_range(0.0..=width - edge),
        y: rng.random_range(0.0..=height - edge),
        width: edge,
        height: edge,
    };
    let size = usize::try_from(size_px).unwrap_or(usize::MAX);
    let pixels = resample(photo, square, size).into_iter().map(byte);
    RgbImage::from_raw(size_px, size_px, pixels.collect()).unwrap_or_default()
}

/// Turns every hue by `turns`, saturation and value kept (HSV).
fn turn_hue(picture: &mut RgbImage, turns: f32) {
    for pixel in picture.pixels_mut() {
        let [r, g, b] = pixel.0.map(f32::from);
        let value = r.max(g).max(b);
        let chroma = value - r.min(g).min(b);
        if chroma == 0.0 {
            continue;
        }
        let sixth = if value == r {
            (g - b) / chroma
        } else if value == g {
            (b - r) / chroma + 2.0
        } else {
            (r - g) / chroma + 4.0
        };
        let sixth = (sixth + 6.0 * turns).rem_euclid(6.0);
        // How far each channel lies below the value (Smith, 1978, in one formula).
        let channel = |offset: f32| {
            let k = (offset + sixth).rem_euclid(6.0);
            byte(value - chroma * k.min(4.0 - k).clamp(0.0, 1.0))
        };
        pixel.0 = [channel(5.0), channel(3.0), channel(1.0)];
    }
}

/// Where an output pixel comes from, in homogeneous coordinates: rows of a matrix that `(x, y, 1)`
/// is multiplied with.
type Source = [[f32; 3]; 3];

/// torchvision's inverse affine matrix around the centre, with what it draws.
#[expect(clippy::cast_precision_loss, reason = "image sizes")]
fn affine(size_px: u32, rng: &mut impl Rng) -> Source {
    let edge = size_px as f32;
    let mut degrees = || rng.random_range(-DEGREES..DEGREES).to_radians();
    let (angle, shear_x, shear_y) = (degrees(), degrees(), degrees());
    let mut shift = || (rng.random_range(-MOVE..MOVE) * edge).round();
    let (tx, ty) = (shift(), shift());
    let scale = rng.random_range(SCALE.0..SCALE.1);
    inverse_affine(
        (edge - 1.0) / 2.0,
        angle,
        (tx, ty),
        scale,
        (shear_x, shear_y),
    )
}

fn inverse_affine(
    centre: f32,
    angle: f32,
    (tx, ty): (f32, f32),
    scale: f32,
    (sx, sy): (f32, f32),
) -> Source {
    let a = (angle - sy).cos() / sy.cos();
    let b = -(angle - sy).cos() * sx.tan() / sy.cos() - angle.sin();
    let c = (angle - sy).sin() / sy.cos();
    let d = -(angle - sy).sin() * sx.tan() / sy.cos() + angle.cos();
    let [a, b, c, d] = [d / scale, -b / scale, -c / scale, a / scale];
    let (x, y) = (-centre - tx, -centre - ty);
    [
        [a, b, a * x + b * y + centre],
        [c, d, c * x + d * y + centre],
        [0.0, 0.0, 1.0],
    ]
}

/// Moves every corner inwards by up to [`DISTORTION`] of half an edge.
#[expect(clippy::cast_precision_loss, reason = "image sizes")]
fn perspective(size_px: u32, rng: &mut impl Rng) -> Source {
    let last = size_px.saturating_sub(1) as f32;
    let mut inwards = || inwards(size_px, rng);
    let corners = [
        (inwards(), inwards()),
        (last - inwards(), inwards()),
        (last - inwards(), last - inwards()),
        (inwards(), last - inwards()),
    ];
    from_corners(last, corners)
}

/// Whole pixels, each up to the largest as likely as any other.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "image sizes"
)]
fn inwards(size_px: u32, rng: &mut impl Rng) -> f32 {
    let most = (DISTORTION * size_px as f32 / 2.0) as u32;
    rng.random_range(0..=most) as f32
}

/// The map that brings `corners` (clockwise from the upper left) back to those of a square with edges
/// of `last`: the adjugate of Heckbert's map from a square to a quadrilateral (1989).
fn from_corners(last: f32, corners: [(f32, f32); 4]) -> Source {
    let [(x0, y0), (x1, y1), (x2, y2), (x3, y3)] = corners;
    let (dx1, dx2, dx3) = (x1 - x2, x3 - x2, x0 - x1 + x2 - x3);
    let (dy1, dy2, dy3) = (y1 - y2, y3 - y2, y0 - y1 + y2 - y3);
    let denominator = dx1 * dy2 - dx2 * dy1;
    let g = (dx3 * dy2 - dx2 * dy3) / denominator;
    let h = (dx1 * dy3 - dx3 * dy1) / denominator;
    let to = [
        [x1 - x0 + g * x1, x3 - x0 + h * x3, x0],
        [y1 - y0 + g * y1, y3 - y0 + h * y3, y0],
        [g, h, 1.0],
    ];
    let minor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        to[r1][c1] * to[r2][c2] - to[r1][c2] * to[r2][c1]
    };
    let mut back = [[0.0; 3]; 3];
    for (r, row) in back.iter_mut().enumerate() {
        // The square's edge is 1 there and `last` here.
        let unit = if r < 2 { last } else { 1.0 };
        for (c, value) in row.iter_mut().enumerate() {
            *value = minor(c, r) * unit;
        }
    }
    back
}

/// Every pixel from where `source` says, bilinear.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions that were found to lie inside an image"
)]
fn warped(picture: &RgbImage, source: Source) -> RgbImage {
    let (width, height) = picture.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32, y as f32);
        let [u, v, w] = source.map(|row| row[0] * x + row[1] * y + row[2]);
        let (u, v) = (u / w, v / w);
        let (left, top) = (u.floor(), v.floor());
        let at = |x: f32, y: f32, channel: usize| {
            let inside = (0.0..width as f32).contains(&x) && (0.0..height as f32).contains(&y);
            if inside {
                f32::from(picture.get_pixel(x as u32, y as u32)[channel])
            } else {
                FILL
            }
        };
        let (fx, fy) = (u - left, v - top);
        image::Rgb([0, 1, 2].map(|channel| {
            let row = |y: f32| at(left, y, channel) * (1.0 - fx) + at(left + 1.0, y, channel) * fx;
            byte(row(top) * (1.0 - fy) + row(top + 1.0) * fy)
        }))
    })
}

/// Replaces the values of each channel by what `table` makes of the channel's counts.
fn by_table(picture: &mut RgbImage, table: impl Fn(&[u32; 256]) -> Option<[u8; 256]>) {
    for channel in 0..3 {
        let mut counts = [0u32; 256];
        for pixel in picture.pixels() {
            counts[usize::from(pixel[channel])] += 1;
        }
        if let Some(table) = table(&counts) {
            for pixel in picture.pixels_mut() {
                pixel[channel] = table[usize::from(pixel[channel])];
            }
        }
    }
}

/// Stretches every channel to 0–255.
fn autocontrast(picture: &mut RgbImage) {
    by_table(picture, |counts| {
        let least = counts.iter().position(|n| *n > 0)?;
        let most = counts.iter().rposition(|n| *n > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "0–255")]
        let stretched = |v: usize| (v as f32 - least as f32) * 255.0 / (most - least) as f32;
        (most > least).then(|| std::array::from_fn(|v| byte(stretched(v).floor())))
    });
}

/// Gives every channel a flat histogram, as Pillow and torchvision do.
fn equalize(picture: &mut RgbImage) {
    by_table(picture, |counts| {
        let last = counts.iter().rposition(|n| *n > 0)?;
        let step = counts[..last].iter().sum::<u32>() / 255;
        let mut sum = step / 2;
        (step > 0).then(|| {
            std::array::from_fn(|v| {
                let level = sum / step;
                sum += counts[v];
                u8::try_from(level).unwrap_or(u8::MAX)
            })
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    fn photo() -> RgbImage {
        RgbImage::from_fn(60, 40, |x, y| {
            let [r, g, b] = [4 * x, 6 * y, 2 * (x + y)].map(|v| u8::try_from(v).unwrap());
            image::Rgb([r, g, b])
        })
    }

    #[test]
    fn a_view_depends_on_its_seed_alone() {
        let view = |seed| clip_italian(&photo(), 32, &mut StdRng::seed_from_u64(seed));
        assert_eq!(view(1).dimensions(), (32, 32));
        assert_eq!(view(1), view(1));
        assert_ne!(view(1), view(2));
    }

    #[test]
    fn hues_turn_and_greys_stay() {
        let mut picture = RgbImage::from_raw(3, 1, vec![255, 0, 0, 90, 90, 90, 10, 200, 30]);
        let picture = picture.as_mut().unwrap();
        let before = picture.clone();
        turn_hue(picture, 1.0 / 3.0);
        assert_eq!(picture.get_pixel(0, 0).0, [0, 255, 0]);
        assert_eq!(picture.get_pixel(1, 0).0, [90, 90, 90]);
        turn_hue(picture, 2.0 / 3.0);
        assert_eq!(*picture, before, "a whole turn");
    }

    #[test]
    fn maps_that_change_nothing_change_nothing() {
        let picture = image::imageops::crop_imm(&photo(), 0, 0, 40, 40).to_image();
        let affine = inverse_affine(19.5, 0.0, (0.0, 0.0), 1.0, (0.0, 0.0));
        assert_eq!(warped(&picture, affine), picture);
        let corners = [(0.0, 0.0), (39.0, 0.0), (39.0, 39.0), (0.0, 39.0)];
        assert_eq!(warped(&picture, from_corners(39.0, corners)), picture);
    }

    #[test]
    fn a_move_leaves_grey_behind_and_corners_go_where_they_are_sent() {
        let picture = RgbImage::from_pixel(40, 40, image::Rgb([9, 9, 9]));
        let right = inverse_affine(19.5, 0.0, (5.0, 0.0), 1.0, (0.0, 0.0));
        let moved = warped(&picture, right);
        assert_eq!(moved.get_pixel(4, 20).0, [127; 3]);
        assert_eq!(moved.get_pixel(5, 20).0, [9; 3]);

        let corners = [(3.0, 2.0), (35.0, 4.0), (38.0, 36.0), (1.0, 37.0)];
        let source = from_corners(39.0, corners);
        let square = [(0.0, 0.0), (39.0, 0.0), (39.0, 39.0), (0.0, 39.0)];
        for ((x, y), (to_x, to_y)) in corners.into_iter().zip(square) {
            let [u, v, w] = source.map(|row| row[0] * x + row[1] * y + row[2]);
            assert!((u / w - to_x).abs() < 1e-3 && (v / w - to_y).abs() < 1e-3);
        }
    }

    #[test]
    fn corners_move_by_every_number_of_pixels_up_to_the_largest() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            // 0.3 · 20 / 2 = 3.
            let moved = inwards(20, &mut rng);
            counts[(0..4).find(|n| moved == *n as f32).unwrap()] += 1;
        }
        assert!(counts.iter().all(|n| (800..1200).contains(n)), "{counts:?}");
    }

    #[test]
    fn channels_are_stretched_and_equalized_by_themselves() {
        let column = |values: [u8; 4]| values.map(|v| [v, v / 2, 7]).concat();
        let mut picture = RgbImage::from_raw(4, 1, column([100, 110, 140, 200])).unwrap();
        autocontrast(&mut picture);
        let red: Vec<u8> = picture.pixels().map(|p| p[0]).collect();
        assert_eq!(red, [0, 25, 102, 255]);
        assert!(picture.pixels().all(|p| p[2] == 7), "nothing to stretch");

        // 512 of each of four levels: a step is 1536/255 = 6.
        let levels = (0..2048).flat_map(|i| [[50u8, 60, 70, 80][i / 512]; 3]);
        let mut picture = RgbImage::from_raw(2048, 1, levels.collect()).unwrap();
        equalize(&mut picture);
        let at = |x: u32| picture.get_pixel(x, 0)[0];
        assert_eq!([at(0), at(512), at(1024), at(1536)], [0, 85, 171, 255]);
    }
}
