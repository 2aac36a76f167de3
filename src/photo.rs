//! Reads a picture file: format by content, sizes capped, turned upright.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use thiserror::Error;

/// Longest picture file, bytes.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

/// Longest edge, pixels: JPEG allows 65535.
const MAX_EDGE_PX: u32 = 20_000;

/// Most memory for one decoded picture, bytes: 100 megapixels of RGB and as much again for turning.
const MAX_DECODED_BYTES: u64 = 600 << 20;

/// Why a picture could not be read.
#[derive(Debug, Error)]
pub enum PhotoError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The file is longer than [`MAX_FILE_BYTES`].
    #[error("is longer than {MAX_FILE_BYTES} bytes; shrink it first")]
    TooLong,
    /// Neither JPEG nor PNG, damaged, or too many pixels.
    #[error("is no readable JPEG or PNG: {0}")]
    Decode(#[from] image::ImageError),
}

/// Reads the picture at `path`.
///
/// # Errors
/// See [`PhotoError`].
pub fn read(path: &Path) -> Result<RgbImage, PhotoError> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    decode(&bytes)
}

/// Decodes JPEG or PNG bytes: EXIF orientation is applied, an alpha channel is dropped.
///
/// # Errors
/// See [`PhotoError`].
pub fn decode(bytes: &[u8]) -> Result<RgbImage, PhotoError> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(PhotoError::TooLong);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_EDGE_PX);
    limits.max_image_height = Some(MAX_EDGE_PX);
    limits.max_alloc = Some(MAX_DECODED_BYTES / 2);
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageFormat;

    /// A 4×2 JPEG, left half red, with an EXIF orientation.
    fn jpeg(orientation: u8) -> Vec<u8> {
        let picture = RgbImage::from_fn(32, 16, |x, _| {
            image::Rgb(if x < 16 { [250, 0, 0] } else { [0, 0, 250] })
        });
        let mut bytes = Vec::new();
        picture
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Jpeg)
            .unwrap();
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        let mut turned = bytes[..2].to_vec();
        turned.extend([0xff, 0xe1]);
        turned.extend(length);
        turned.extend(exif);
        turned.extend(&bytes[2..]);
        turned
    }

    #[test]
    fn a_photo_is_turned_upright() {
        let upright = decode(&jpeg(1)).unwrap();
        assert_eq!(upright.dimensions(), (32, 16));
        let turned = decode(&jpeg(6)).unwrap();
        assert_eq!(turned.dimensions(), (16, 32));
        let top = turned.get_pixel(8, 2).0;
        assert!(top[0] > 200 && top[2] < 50, "{top:?} is red");
    }

    #[test]
    fn the_content_decides_not_the_extension() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.txt");
        std::fs::write(&path, jpeg(1)).unwrap();
        assert_eq!(read(&path).unwrap().dimensions(), (32, 16));
    }

    #[test]
    fn damaged_files_are_errors() {
        let good = jpeg(1);
        for bytes in [&b""[..], b"hello", &good[..20], &[0xff, 0xd8, 0xff]] {
            assert!(decode(bytes).is_err());
        }
        assert!(read(Path::new("/nonexistent.jpg")).is_err());
        assert!(read(Path::new("/")).is_err());
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        // A PNG header that claims 50000 × 50000 pixels.
        let mut png = Vec::new();
        RgbImage::new(1, 1)
            .write_to(&mut Cursor::new(&mut png), ImageFormat::Png)
            .unwrap();
        png[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
        assert!(decode(&png).is_err());
    }
}
