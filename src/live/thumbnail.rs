//! A photo in half blocks: one cell is two pixels, one above the other.

use std::path::Path;

use image::{ImageError, ImageReader, Limits, RgbImage};

use super::line::{Line, Style};

/// Larger photos are not drawn; a folder of photos is somebody else's.
const MAX_EDGE_PX: u32 = 16_384;
/// Memory a decoder may take for one photo, bytes.
const MAX_ALLOC_BYTES: u64 = 256 << 20;

/// A small copy of a photo, `[height, width]` pixels.
#[derive(Clone, Debug)]
pub struct Thumbnail {
    pixels: RgbImage,
}

impl Thumbnail {
    /// Reads a JPEG or PNG and shrinks it to fit into `columns`×`rows` cells, in proportion.
    ///
    /// # Errors
    /// The file cannot be read or decoded, or is too large to be worth it.
    pub fn read(path: &Path, columns: u32, rows: u32) -> Result<Self, ImageError> {
        let mut reader = ImageReader::open(path)?.with_guessed_format()?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_EDGE_PX);
        limits.max_image_height = Some(MAX_EDGE_PX);
        limits.max_alloc = Some(MAX_ALLOC_BYTES);
        reader.limits(limits);
        let photo = reader.decode()?;
        let (width, height) = (columns.max(1), rows.max(1).saturating_mul(2));
        let pixels = photo.thumbnail(width, height).to_rgb8();
        Ok(Self { pixels })
    }

    /// Cells from left to right.
    pub fn columns(&self) -> usize {
        usize::try_from(self.pixels.width()).unwrap_or(0)
    }

    /// One line for two rows of pixels.
    pub fn lines(&self) -> Vec<Line> {
        let (width, height) = self.pixels.dimensions();
        let cell = |line: Line, x: u32, y: u32| {
            let upper = self.pixels.get_pixel(x, y).0;
            // An odd last row is drawn twice as high.
            let lower = self.pixels.get_pixel(x, (y + 1).min(height - 1)).0;
            line.with(Style::Pixels(upper, lower), "▀")
        };
        let row = |y| (0..width).fold(Line::new(), |line, x| cell(line, x, y));
        (0..height).step_by(2).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::line::Palette;

    #[test]
    fn two_rows_of_pixels_make_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let mut photo = RgbImage::from_pixel(40, 40, image::Rgb([255, 0, 0]));
        (20..40).for_each(|y| (0..40).for_each(|x| photo.put_pixel(x, y, image::Rgb([0, 0, 255]))));
        photo.save(&path).unwrap();
        let thumbnail = Thumbnail::read(&path, 2, 8).unwrap();
        let lines = thumbnail.lines();
        assert_eq!((thumbnail.columns(), lines.len()), (2, 1));
        let cell = "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m";
        assert_eq!(lines[0].ansi(Palette::Full), cell.repeat(2));
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpg");
        std::fs::write(&path, "no picture").unwrap();
        assert!(Thumbnail::read(&path, 8, 8).is_err());
        assert!(Thumbnail::read(&folder.path().join("b.jpg"), 8, 8).is_err());
    }
}
