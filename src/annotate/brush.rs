//! Antialiased shapes, blended into a picture.

use image::{Rgb, RgbImage};

use super::{to_f32, to_px};

/// Mixes `alpha` (0–1) of `colour` into one pixel; what lies outside of the picture is ignored.
pub(super) fn blend(picture: &mut RgbImage, x: u32, y: u32, colour: Rgb<u8>, alpha: f32) {
    let Some(pixel) = picture.get_pixel_mut_checked(x, y) else {
        return;
    };
    let alpha = alpha.clamp(0.0, 1.0);
    for (channel, ink) in pixel.0.iter_mut().zip(colour.0) {
        let mixed = f32::from(*channel) * (1.0 - alpha) + f32::from(ink) * alpha;
        *channel = u8::try_from(to_px(mixed + 0.5)).unwrap_or(u8::MAX);
    }
}

/// Fills `(left, top, width, height)`, its corners rounded by `radius` pixels.
pub(super) fn fill_rounded(
    picture: &mut RgbImage,
    (left, top, width, height): (u32, u32, u32, u32),
    radius: f32,
    colour: Rgb<u8>,
    opacity: f32,
) {
    let (half_width, half_height) = (to_f32(width) / 2.0, to_f32(height) / 2.0);
    let radius = radius.min(half_width).min(half_height);
    for y in 0..height.min(picture.height()) {
        let dy = (to_f32(y) + 0.5 - half_height).abs() - (half_height - radius);
        for x in 0..width.min(picture.width()) {
            let dx = (to_f32(x) + 0.5 - half_width).abs() - (half_width - radius);
            // Signed distance to the rounded rectangle's edge.
            let outside = dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius;
            let coverage = (0.5 - outside).clamp(0.0, 1.0);
            blend(picture, left + x, top + y, colour, coverage * opacity);
        }
    }
}

/// Draws the closed line through `corners`, `thickness` pixels wide.
pub(super) fn outline(
    picture: &mut RgbImage,
    corners: &[(f32, f32)],
    thickness: f32,
    colour: Rgb<u8>,
    opacity: f32,
) {
    for (n, from) in corners.iter().enumerate() {
        let to = corners[(n + 1) % corners.len()];
        segment(picture, *from, to, thickness / 2.0, colour, opacity);
    }
}

/// A straight line with round ends: steps along its longer axis and covers what is nearer than
/// `radius` to it.
fn segment(
    picture: &mut RgbImage,
    from: (f32, f32),
    to: (f32, f32),
    radius: f32,
    colour: Rgb<u8>,
    opacity: f32,
) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let steep = dy.abs() > dx.abs();
    let length2 = dx * dx + dy * dy;
    // Along a line of 45° the band is √2 times as high as it is thick.
    let reach = radius * std::f32::consts::SQRT_2 + 1.0;
    let (start, end) = if steep {
        (from.1, to.1)
    } else {
        (from.0, to.0)
    };
    let slope = match (steep, length2 > 0.0) {
        (_, false) => 0.0,
        (true, true) => dx / dy,
        (false, true) => dy / dx,
    };
    let across = if steep { from.0 } else { from.1 };
    let edge = if steep {
        picture.height()
    } else {
        picture.width()
    };
    let first = to_px(start.min(end) - radius - 1.0);
    let last = to_px(start.max(end) + radius + 1.0).min(edge);
    for major in first..=last {
        let centre = across + (to_f32(major) - start) * slope;
        let (low, high) = (to_px(centre - reach), to_px(centre + reach));
        for minor in low..=high {
            let (x, y) = if steep {
                (minor, major)
            } else {
                (major, minor)
            };
            let (px, py) = (to_f32(x) - from.0, to_f32(y) - from.1);
            let along = if length2 > 0.0 {
                ((px * dx + py * dy) / length2).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let distance = (px - along * dx).hypot(py - along * dy);
            let coverage = (radius + 0.5 - distance).clamp(0.0, 1.0);
            if coverage > 0.0 {
                blend(picture, x, y, colour, coverage * opacity);
            }
        }
    }
}
