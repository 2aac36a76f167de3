//! Draws what was seen onto a picture: zones with their labels, or a panel of scores.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, Rgb, RgbImage, imageops};

use crate::config::Shape;

mod brush;
mod lettering;

use brush::{fill_rounded, outline};
use lettering::Lettering;

const GREEN: Rgb<u8> = Rgb([74, 222, 128]);
const BLUE: Rgb<u8> = Rgb([125, 170, 220]);
const GREY: Rgb<u8> = Rgb([190, 196, 204]);
const WHITE: Rgb<u8> = Rgb([245, 247, 250]);
const DARK: Rgb<u8> = Rgb([12, 16, 22]);

/// How much of the picture the panel covers, 0–1.
const PANEL_OPACITY: f32 = 0.78;

/// A picture of this short edge gets text one pixel high; the height is then kept within
/// [`TEXT_HEIGHTS_PX`].
const SHORT_EDGE_PER_TEXT_PX: u32 = 26;

/// Smallest and largest text, pixels.
const TEXT_HEIGHTS_PX: (u32, u32) = (13, 120);

/// Lowest JPEG quality before the picture is made smaller instead.
const LOWEST_QUALITY: u8 = 50;

/// Lines drawn at most, whatever is asked for.
const MAX_LINES: usize = 40;

/// One zone and what holds in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its outline.
    pub shape: Shape,
    /// What people read, and its probability.
    pub labels: Vec<(String, f32)>,
}

/// Outlines every zone and writes its labels at its top left corner. Zones with a label are green,
/// others grey; a zone that is the whole frame gets no outline.
pub fn zones(picture: &mut RgbImage, marks: &[Mark]) {
    let height = text_height(picture);
    let thickness = to_f32(height) / 7.0;
    for mark in marks {
        let colour = if mark.labels.is_empty() { GREY } else { GREEN };
        let corners = corners(&mark.shape, picture.width(), picture.height());
        if mark.shape != Shape::Full {
            outline(picture, &corners, thickness * 1.8, DARK, 0.45);
            outline(picture, &corners, thickness, colour, 1.0);
        }
        let left = corners.iter().map(|c| c.0).fold(f32::INFINITY, f32::min);
        let top = corners.iter().map(|c| c.1).fold(f32::INFINITY, f32::min);
        tags(picture, (left, top), &mark.labels, height);
    }
}

/// One chip per label, stacked upwards from `corner`; inside of the picture where there is no room.
fn tags(picture: &mut RgbImage, corner: (f32, f32), labels: &[(String, f32)], height: u32) {
    let pad = height / 3;
    let chip_height = height + 2 * (pad / 2) + 1;
    let most = picture.width().saturating_sub(2 * pad);
    let count = u32::try_from(labels.len().min(MAX_LINES)).unwrap_or(0);
    let mut y = to_px(corner.1).saturating_sub(count * chip_height);
    for (label, probability) in labels.iter().take(MAX_LINES) {
        let percent = Lettering::new(&percent(*probability), height, most);
        let room = most.saturating_sub(percent.width() + height / 2);
        let text = Lettering::new(label, height, room);
        let width = text.width() + height / 2 + percent.width() + 2 * pad;
        let x = to_px(corner.0).min(picture.width().saturating_sub(width));
        let radius = to_f32(pad) * 0.8;
        fill_rounded(picture, (x, y, width, chip_height), radius, GREEN, 0.94);
        text.draw(picture, (x + pad, y + pad / 2), DARK);
        percent.draw(
            picture,
            (x + width - pad - percent.width(), y + pad / 2),
            DARK,
        );
        y += chip_height + 1;
    }
}

/// A panel of scores at the lower left, in the order given: what people read, and its probability.
/// As many as fit.
pub fn scores(picture: &mut RgbImage, scores: &[(String, f32)]) {
    let height = text_height(picture);
    let (margin, pad, bar) = (height * 2 / 3, height * 2 / 3, (height / 4).max(3));
    let row = height + bar + height * 2 / 3;
    let fits = picture.height().saturating_sub(2 * (margin + pad)) / row.max(1);
    let count = scores.len().min(MAX_LINES).min(fits as usize);
    let inner = picture.width().saturating_sub(2 * (margin + pad));
    if count == 0 || inner == 0 {
        return;
    }
    let percents: Vec<Lettering> = scores[..count]
        .iter()
        .map(|(_, p)| Lettering::new(&percent(*p), height, inner))
        .collect();
    let widest = percents.iter().map(Lettering::width).max().unwrap_or(0) + height;
    let labels: Vec<Lettering> = scores[..count]
        .iter()
        .map(|(label, _)| Lettering::new(label, height, inner.saturating_sub(widest)))
        .collect();
    let longest = labels.iter().map(Lettering::width).max().unwrap_or(0);
    let content = (longest + widest).max(height * 12).min(inner);
    let rows = u32::try_from(count).unwrap_or(0) * row - height * 2 / 3;
    let panel = (
        margin,
        picture.height() - margin - rows - 2 * pad,
        content + 2 * pad,
        rows + 2 * pad,
    );
    fill_rounded(picture, panel, to_f32(height) / 2.0, DARK, PANEL_OPACITY);
    let (left, mut y) = (panel.0 + pad, panel.1 + pad);
    for (n, ((label, number), (_, p))) in labels.iter().zip(&percents).zip(scores).enumerate() {
        let (ink, fill) = if n == 0 { (WHITE, GREEN) } else { (GREY, BLUE) };
        label.draw(picture, (left, y), ink);
        number.draw(picture, (left + content - number.width(), y), ink);
        let track = (left, y + height + bar / 2, content, bar);
        let radius = to_f32(bar) / 2.0;
        fill_rounded(picture, track, radius, WHITE, 0.16);
        let filled = to_px(to_f32(content) * p.clamp(0.0, 1.0));
        if filled > 0 {
            let part = (track.0, track.1, filled.max(bar), bar);
            fill_rounded(picture, part, radius, fill, 1.0);
        }
        y += row;
    }
}

/// `86%`, and never 100 or 0 for what is not quite.
fn percent(probability: f32) -> String {
    let p = probability * 100.0;
    match p {
        p if p > 99.0 && p < 99.95 => format!("{p:.1}%"),
        p if p > 0.0 && p < 0.5 => "<1%".to_owned(),
        p => format!("{p:.0}%"),
    }
}

/// JPEG of at most `max_bytes`: quality is lowered first, then the size, down to a thumbnail of 16
/// px. Empty for a picture that JPEG cannot hold (no pixels, or an edge over 65535).
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
        log::warn!("a {width}x{height} picture cannot be encoded: {error}");
        bytes.clear();
    }
    bytes
}

fn text_height(picture: &RgbImage) -> u32 {
    let short = picture.width().min(picture.height());
    (short / SHORT_EDGE_PER_TEXT_PX).clamp(TEXT_HEIGHTS_PX.0, TEXT_HEIGHTS_PX.1)
}

/// The shape's corners in pixels, kept inside of the picture.
fn corners(shape: &Shape, width: u32, height: u32) -> Vec<(f32, f32)> {
    let at = |x: f32, y: f32| {
        let inside = |f: f32, edge: u32| f.clamp(0.0, 1.0) * to_f32(edge.saturating_sub(1));
        (inside(x, width), inside(y, height))
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

#[expect(
    clippy::cast_precision_loss,
    reason = "pixel positions are far below 2^24"
)]
fn to_f32(px: u32) -> f32 {
    px as f32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and NaN becomes 0"
)]
fn to_px(position: f32) -> u32 {
    position as u32
}

#[cfg(test)]
mod tests;
