//! One line of text as a coverage mask, of any height.
//!
//! The glyphs are ISO 8859-1 bitmap fonts (all Italian accents, no font files). Small text uses the
//! font that fits pixel by pixel; larger text magnifies the largest one smoothly and sharpens the
//! edge again, which rounds the steps off.

use embedded_graphics::mono_font::iso_8859_1::{FONT_7X13_BOLD, FONT_9X15_BOLD, FONT_9X18_BOLD};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};
use image::imageops::{FilterType, resize};
use image::{GrayImage, Luma, Rgb, RgbImage};

use super::brush::blend;
use super::{to_f32, to_px};

/// A line of text, ready to be drawn in any colour.
pub(super) struct Lettering(GrayImage);

impl Lettering {
    /// Renders `text`, `height` pixels high and at most `max_width` wide; what is longer ends in
    /// three dots.
    pub fn new(text: &str, height: u32, max_width: u32) -> Self {
        let font = font(height);
        let cell = font.character_size;
        let advance = to_f32(cell.width) * to_f32(height) / to_f32(cell.height);
        let fits = to_px(to_f32(max_width) / advance) as usize;
        let mut letters: Vec<char> = text.chars().map(plain).take(fits + 1).collect();
        if letters.len() > fits {
            letters.truncate(fits.saturating_sub(3));
            letters.extend(std::iter::repeat_n('.', fits.min(3)));
        }
        let text: String = letters.iter().collect();
        let columns = u32::try_from(letters.len()).unwrap_or(0) * cell.width;
        let mut mask = Mask(GrayImage::new(columns, cell.height));
        let style = MonoTextStyle::new(font, BinaryColor::On);
        // Drawing onto a mask cannot fail.
        let _ = Text::with_baseline(&text, Point::zero(), style, Baseline::Top).draw(&mut mask);
        if height == cell.height || columns == 0 {
            return Self(mask.0);
        }
        let width = to_px((to_f32(columns) * to_f32(height) / to_f32(cell.height)).round());
        let mut large = resize(&mask.0, width.max(1), height, FilterType::CatmullRom);
        for pixel in large.pixels_mut() {
            let coverage = f32::from(pixel.0[0]) / 255.0;
            let t = ((coverage - 0.25) / 0.5).clamp(0.0, 1.0);
            let sharp = t * t * (3.0 - 2.0 * t);
            pixel.0[0] = u8::try_from(to_px(sharp * 255.0)).unwrap_or(u8::MAX);
        }
        Self(large)
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.0.width()
    }

    /// Draws the text with its top left corner at `(x, y)`.
    pub fn draw(&self, picture: &mut RgbImage, (x, y): (u32, u32), colour: Rgb<u8>) {
        for (dx, dy, coverage) in self.0.enumerate_pixels() {
            if coverage.0[0] > 0 {
                let alpha = f32::from(coverage.0[0]) / 255.0;
                blend(picture, x + dx, y + dy, colour, alpha);
            }
        }
    }
}

fn font(height: u32) -> &'static MonoFont<'static> {
    match height {
        ..15 => &FONT_7X13_BOLD,
        15..18 => &FONT_9X15_BOLD,
        _ => &FONT_9X18_BOLD,
    }
}

/// The nearest letter of ISO 8859-1.
fn plain(letter: char) -> char {
    match letter {
        '\u{2018}' | '\u{2019}' => '\'',
        '\u{201c}' | '\u{201d}' => '"',
        '\u{2010}'..='\u{2015}' => '-',
        c if c.is_control() => ' ',
        c => c,
    }
}

struct Mask(GrayImage);

impl OriginDimensions for Mask {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Mask {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<BinaryColor>>,
    {
        for Pixel(point, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else {
                continue;
            };
            if let (BinaryColor::On, Some(pixel)) = (colour, self.0.get_pixel_mut_checked(x, y)) {
                *pixel = Luma([255]);
            }
        }
        Ok(())
    }
}
