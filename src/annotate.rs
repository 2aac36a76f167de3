//! Draws what was seen onto a picture: zones with their labels, or a panel of scores.

use embedded_graphics::mono_font::iso_8859_1::FONT_10X20;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Pixel, mono_font::MonoTextStyle};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, Rgb, RgbImage, imageops};

use crate::config::Shape;

const GREEN: Rgb<u8> = Rgb([64, 220, 120]);
const GREY: Rgb<u8> = Rgb([150, 150, 150]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
const PANEL: Rgb<u8> = Rgb([12, 14, 18]);
/// Of 255: how much of the panel's colour covers the picture.
const PANEL_OPACITY: u32 = 190;
/// Edge of the font's cell, px.
const CELL: (u32, u32) = (10, 20);
/// A picture this wide gets text of the font's own size; wider ones get it magnified.
const TEXT_PER_WIDTH_PX: u32 = 640;
/// Lowest JPEG quality before the picture is made smaller instead.
const LOWEST_QUALITY: u8 = 50;

/// One zone and what holds in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its outline.
    pub shape: Shape,
    /// What people read, and its probability.
    pub labels: Vec<(String, f32)>,
}

/// Outlines every zone and writes its labels into it. Zones with a label are green, others grey; a
/// zone that is the whole frame gets no outline.
pub fn zones(picture: &mut RgbImage, marks: &[Mark]) {
    let scale = text_scale(picture);
    for mark in marks {
        let color = if mark.labels.is_empty() { GREY } else { GREEN };
        let corners = corners(&mark.shape, picture.width(), picture.height());
        if mark.shape != Shape::Full {
            for (n, from) in corners.iter().enumerate() {
                line(
                    picture,
                    *from,
                    corners[(n + 1) % corners.len()],
                    scale * 2,
                    color,
                );
            }
        }
        let lines: Vec<Line> = mark
            .labels
            .iter()
            .map(|(label, p)| Line {
                text: format!("{label} {:.0}%", p * 100.0),
                bar: None,
                color,
            })
            .collect();
        let left = corners.iter().map(|c| c.0).min().unwrap_or(0);
        let top = corners.iter().map(|c| c.1).min().unwrap_or(0);
        panel(picture, (left, top), &lines, scale);
    }
}

/// A panel of scores, best first: what people read, and its probability.
pub fn scores(picture: &mut RgbImage, scores: &[(String, f32)]) {
    let scale = text_scale(picture);
    let lines: Vec<Line> = scores
        .iter()
        .enumerate()
        .map(|(n, (label, p))| Line {
            text: format!("{:3.0}% {label}", p * 100.0),
            bar: Some(*p),
            color: if n == 0 { GREEN } else { WHITE },
        })
        .collect();
    panel(picture, (0, 0), &lines, scale);
}

/// JPEG of at most `max_bytes`: quality is lowered first, then the size, down to a thumbnail.
pub fn jpeg_at_most(picture: &RgbImage, max_bytes: usize) -> Vec<u8> {
    let mut picture = std::borrow::Cow::Borrowed(picture);
    loop {
        for quality in [88, 75, 62, LOWEST_QUALITY] {
            let jpeg = jpeg(&picture, quality);
            if jpeg.len() <= max_bytes {
                return jpeg;
            }
        }
        let (width, height) = (picture.width() * 3 / 4, picture.height() * 3 / 4);
        if width < 16 || height < 16 {
            return jpeg(&picture, LOWEST_QUALITY);
        }
        picture = std::borrow::Cow::Owned(imageops::thumbnail(&*picture, width, height));
    }
}

fn jpeg(picture: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = picture.dimensions();
    let outcome = JpegEncoder::new_with_quality(&mut bytes, quality).encode(
        picture.as_raw(),
        width,
        height,
        ExtendedColorType::Rgb8,
    );
    if let Err(error) = outcome {
        // Only a picture without pixels, or one of more than 65535 of them in a row.
        log::warn!("a {width}x{height} picture cannot be encoded: {error}");
        bytes.clear();
    }
    bytes
}

struct Line {
    text: String,
    bar: Option<f32>,
    color: Rgb<u8>,
}

fn text_scale(picture: &RgbImage) -> u32 {
    (picture.width() / TEXT_PER_WIDTH_PX).max(1)
}

fn corners(shape: &Shape, width: u32, height: u32) -> Vec<(u32, u32)> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "fractions are clamped into the picture"
    )]
    let at = |x: f32, y: f32| {
        let pixel = |f: f32, edge: u32| (f.clamp(0.0, 1.0) * edge.saturating_sub(1) as f32) as u32;
        (pixel(x, width), pixel(y, height))
    };
    match shape {
        Shape::Full => vec![at(0.0, 0.0), at(1.0, 0.0), at(1.0, 1.0), at(0.0, 1.0)],
        Shape::Rectangle {
            x,
            y,
            width,
            height,
        } => vec![
            at(*x, *y),
            at(x + width, *y),
            at(x + width, y + height),
            at(*x, y + height),
        ],
        Shape::Polygon(points) => points.iter().map(|[x, y]| at(*x, *y)).collect(),
    }
}

/// A straight line of `thickness` pixels.
fn line(picture: &mut RgbImage, from: (u32, u32), to: (u32, u32), thickness: u32, color: Rgb<u8>) {
    let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1)).max(1);
    let between = |a: u32, b: u32, n: u32| {
        let (a, b, n, steps) = (i64::from(a), i64::from(b), i64::from(n), i64::from(steps));
        u32::try_from(a + (b - a) * n / steps).unwrap_or(0)
    };
    for n in 0..=steps {
        let (x, y) = (between(from.0, to.0, n), between(from.1, to.1, n));
        for (dx, dy) in (0..thickness).flat_map(|dx| (0..thickness).map(move |dy| (dx, dy))) {
            if let Some(pixel) = picture.get_pixel_mut_checked(x + dx, y + dy) {
                *pixel = color;
            }
        }
    }
}

/// Lines of text on a half-transparent ground, its top left corner at `origin` or as near as fits.
fn panel(picture: &mut RgbImage, origin: (u32, u32), lines: &[Line], scale: u32) {
    if lines.is_empty() {
        return;
    }
    let longest = lines
        .iter()
        .map(|line| line.text.chars().count())
        .max()
        .unwrap_or(0);
    let longest = u32::try_from(longest).unwrap_or(u32::MAX).min(200);
    let (cell_width, cell_height) = (CELL.0 * scale, CELL.1 * scale);
    let pad = 4 * scale;
    let bar_width = if lines.iter().any(|line| line.bar.is_some()) {
        8 * cell_width
    } else {
        0
    };
    let width = (longest * cell_width + 2 * pad + bar_width).min(picture.width());
    let count = u32::try_from(lines.len()).unwrap_or(u32::MAX).min(100);
    let height = (count * cell_height + 2 * pad).min(picture.height());
    let left = origin.0.min(picture.width() - width);
    let top = origin.1.min(picture.height() - height);
    for y in top..top + height {
        for x in left..left + width {
            let pixel = picture.get_pixel_mut(x, y);
            for (channel, ground) in pixel.0.iter_mut().zip(PANEL.0) {
                let mixed =
                    u32::from(*channel) * (255 - PANEL_OPACITY) + u32::from(ground) * PANEL_OPACITY;
                *channel = u8::try_from(mixed / 255).unwrap_or(u8::MAX);
            }
        }
    }
    for (n, line) in (0..).zip(lines) {
        let y = top + pad + n * cell_height;
        if let Some(value) = line.bar {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of the bar's width"
            )]
            let filled = (value.clamp(0.0, 1.0) * (bar_width - cell_width) as f32) as u32;
            for (dx, dy) in (0..filled).flat_map(|dx| (0..cell_height / 2).map(move |dy| (dx, dy)))
            {
                let (x, y) = (left + pad + dx, y + cell_height / 4 + dy);
                if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
                    *pixel = line.color;
                }
            }
        }
        let mut canvas = Canvas {
            picture,
            origin: (left + pad + bar_width, y),
            scale,
            color: line.color,
        };
        let style = MonoTextStyle::new(&FONT_10X20, BinaryColor::On);
        // Drawing onto a picture cannot fail.
        let _ =
            Text::with_baseline(&line.text, Point::zero(), style, Baseline::Top).draw(&mut canvas);
    }
}

/// Magnifies drawn pixels by a whole factor.
struct Canvas<'a> {
    picture: &'a mut RgbImage,
    origin: (u32, u32),
    scale: u32,
    color: Rgb<u8>,
}

impl OriginDimensions for Canvas<'_> {
    fn size(&self) -> Size {
        Size::new(
            self.picture.width() / self.scale,
            self.picture.height() / self.scale,
        )
    }
}

impl DrawTarget for Canvas<'_> {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<BinaryColor>>,
    {
        for Pixel(point, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else {
                continue;
            };
            if color == BinaryColor::Off {
                continue;
            }
            for (dx, dy) in (0..self.scale).flat_map(|dx| (0..self.scale).map(move |dy| (dx, dy))) {
                let (x, y) = (
                    self.origin.0 + x * self.scale + dx,
                    self.origin.1 + y * self.scale + dy,
                );
                if let Some(pixel) = self.picture.get_pixel_mut_checked(x, y) {
                    *pixel = self.color;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_full_of_noise_fits_its_limit_all_the_same() {
        let mut seed = 1u32;
        let noise = RgbImage::from_fn(640, 480, |_, _| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [a, b, c, _] = seed.to_be_bytes();
            Rgb([a, b, c])
        });
        let jpeg = jpeg_at_most(&noise, 96 * 1024);
        assert!(jpeg.len() <= 96 * 1024, "{} bytes", jpeg.len());
        assert!(image::load_from_memory(&jpeg).is_ok());
    }

    #[test]
    fn zones_are_drawn_where_they_are() {
        let mut picture = RgbImage::new(100, 100);
        let shape = Shape::Rectangle {
            x: 0.5,
            y: 0.5,
            width: 0.4,
            height: 0.4,
        };
        zones(
            &mut picture,
            &[Mark {
                shape,
                labels: vec![],
            }],
        );
        assert_eq!(*picture.get_pixel(49, 60), GREY);
        assert_eq!(*picture.get_pixel(20, 20), Rgb([0, 0, 0]));
    }

    #[test]
    fn any_picture_and_any_text_can_be_annotated() {
        let long = "è così perché più ".repeat(40);
        for (width, height) in [(1, 1), (3, 200), (200, 3), (1920, 1080)] {
            let mut picture = RgbImage::new(width, height);
            scores(
                &mut picture,
                &[(long.clone(), 2.0), ("\u{1F34C}".into(), f32::NAN)],
            );
            let marks = [
                Mark {
                    shape: Shape::Polygon(vec![[0.0, 0.0], [9.0, 0.5], [0.2, -1.0]]),
                    labels: vec![],
                },
                Mark {
                    shape: Shape::Full,
                    labels: vec![(long.clone(), 0.5)],
                },
            ];
            zones(&mut picture, &marks);
        }
    }
}
