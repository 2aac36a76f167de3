//! Where a zone lies in a frame, in whole pixels, and what of it is outside of a polygon.

use std::ops::Range;

use crate::config::Shape;

/// How far, in pixels, a coordinate may be over a pixel's edge and still count as on it: fractions
/// are kept as `f32`, so that 0.1 of 640 is a little more than 64.
const SLACK_PX: f64 = 1e-3;

/// A rectangle of whole pixels inside a frame, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Left column.
    pub x: u32,
    /// Top row.
    pub y: u32,
    /// Columns, ≥ 1.
    pub width: u32,
    /// Rows, ≥ 1.
    pub height: u32,
}

impl Region {
    /// The pixels that `shape` touches in a frame of `width × height` pixels, rounded outwards: for
    /// a polygon its bounding box. `None` for a frame without pixels.
    pub fn of(shape: &Shape, width: u32, height: u32) -> Option<Self> {
        if width == 0 || height == 0 {
            return None;
        }
        let (left, top, right, bottom) = match shape {
            Shape::Full => (0.0, 0.0, 1.0, 1.0),
            Shape::Rectangle {
                x,
                y,
                width,
                height,
            } => (
                f64::from(*x),
                f64::from(*y),
                f64::from(*x) + f64::from(*width),
                f64::from(*y) + f64::from(*height),
            ),
            Shape::Polygon(corners) => corners.iter().fold(
                (1.0, 1.0, 0.0, 0.0),
                |(left, top, right, bottom): (f64, f64, f64, f64), [x, y]| {
                    let (x, y) = (f64::from(*x), f64::from(*y));
                    (left.min(x), top.min(y), right.max(x), bottom.max(y))
                },
            ),
        };
        let columns = outwards(left, right, width);
        let rows = outwards(top, bottom, height);
        Some(Self {
            x: columns.start,
            y: rows.start,
            width: columns.end - columns.start,
            height: rows.end - rows.start,
        })
    }
}

/// Fractions `from..to` of `size` pixels as whole pixels, at least one of them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=size before the cast; `as` turns NaN into 0"
)]
fn outwards(from: f64, to: f64, size: u32) -> Range<u32> {
    let whole = f64::from(size);
    let start = (from * whole + SLACK_PX).floor().clamp(0.0, whole - 1.0) as u32;
    let end = (to * whole - SLACK_PX).ceil().clamp(0.0, whole) as u32;
    start..end.max(start + 1)
}

/// Fills what lies outside of the polygon `corners` (fractions of a frame of `size` pixels) with `fill`.
/// `samples` are interleaved, `N` a pixel, `width` pixels a row, and begin at `origin` in the frame. A
/// pixel is inside when its centre is, by the even-odd rule.
pub(super) fn fill_outside<const N: usize>(
    samples: &mut [u8],
    width: usize,
    origin: (f64, f64),
    corners: &[[f32; 2]],
    size: (f64, f64),
    fill: [u8; N],
) {
    let corner = |i: usize| {
        let [x, y] = corners[i % corners.len()];
        (f64::from(x) * size.0, f64::from(y) * size.1)
    };
    let mut crossings = Vec::new();
    for (row, y) in samples.chunks_exact_mut(width.max(1) * N).zip(0_u32..) {
        let y = origin.1 + f64::from(y) + 0.5;
        crossings.clear();
        for i in 0..corners.len() {
            let ((x0, y0), (x1, y1)) = (corner(i), corner(i + 1));
            if (y0 <= y) != (y1 <= y) {
                crossings.push(x0 + (y - y0) / (y1 - y0) * (x1 - x0));
            }
        }
        for (pixel, x) in row.chunks_exact_mut(N).zip(0_u32..) {
            let x = origin.0 + f64::from(x) + 0.5;
            if crossings.iter().filter(|c| **c <= x).count() % 2 == 0 {
                pixel.copy_from_slice(&fill);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rectangle(x: f32, y: f32, width: f32, height: f32) -> Shape {
        Shape::Rectangle {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn a_rectangle_is_rounded_outwards() {
        let region = Region::of(&rectangle(0.26, 0.26, 0.5, 0.5), 10, 10);
        let expected = Region {
            x: 2,
            y: 2,
            width: 6,
            height: 6,
        };
        assert_eq!(region, Some(expected));
    }

    #[test]
    fn fractions_that_mean_whole_pixels_stay_whole() {
        let region = Region::of(&rectangle(0.1, 0.1, 0.2, 0.6), 640, 480);
        let expected = Region {
            x: 64,
            y: 48,
            width: 128,
            height: 288,
        };
        assert_eq!(region, Some(expected));
    }

    #[test]
    fn a_frame_without_pixels_has_no_region() {
        assert_eq!(Region::of(&Shape::Full, 0, 10), None);
    }

    proptest! {
        #[test]
        fn a_region_is_never_empty_and_never_outside(
            (x, y) in (-0.5f32..1.5, -0.5f32..1.5),
            (w, h) in (0.0f32..1.5, 0.0f32..1.5),
            (width, height) in (1u32..50, 1u32..50),
        ) {
            let region = Region::of(&rectangle(x, y, w, h), width, height).unwrap();
            prop_assert!(region.width >= 1 && region.height >= 1);
            prop_assert!(region.x + region.width <= width);
            prop_assert!(region.y + region.height <= height);
        }
    }

    #[test]
    fn a_triangle_keeps_its_inside_and_fills_its_outside() {
        let corners = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]];
        let shape = Shape::Polygon(corners.to_vec());
        let region = Region::of(&shape, 4, 4).unwrap();
        let mut samples = vec![200u8; 4 * 4 * 3];
        fill_outside(&mut samples, 4, (0.0, 0.0), &corners, (4.0, 4.0), [1, 2, 3]);
        assert_eq!((region.width, region.height), (4, 4));
        let kept: Vec<String> = samples
            .chunks(12)
            .map(|row| {
                row.chunks(3)
                    .map(|p| if p[0] == 200 { '#' } else { '.' })
                    .collect()
            })
            .collect();
        assert_eq!(kept, ["###.", "##..", "#...", "...."]);
    }
}
