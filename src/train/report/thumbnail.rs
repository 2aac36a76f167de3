//! Small photos inside the page.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, RgbImage};

const QUALITY: u8 = 78;

/// A JPEG with a longer edge of at most `edge_px`, as `data:` URI.
pub fn data_uri(photo: &RgbImage, edge_px: u32) -> String {
    let photo = DynamicImage::ImageRgb8(photo.clone());
    let small = if photo.width().max(photo.height()) > edge_px {
        photo.resize(edge_px, edge_px, FilterType::Triangle)
    } else {
        photo
    };
    let mut bytes = Cursor::new(Vec::new());
    let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    if let Err(error) = small.write_with_encoder(encoder) {
        log::warn!("a thumbnail is left out: {error}");
        return String::new();
    }
    format!("data:image/jpeg;base64,{}", base64(bytes.get_ref()))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i > chunk.len() {
                out.push('=');
                continue;
            }
            let letter = usize::try_from(word >> (18 - 6 * i) & 63).unwrap_or(0);
            out.push(char::from(LETTERS[letter]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in pairs {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn a_large_photo_becomes_small_in_proportion() {
        let photo = RgbImage::new(400, 100);
        assert!(data_uri(&photo, 64).starts_with("data:image/jpeg;base64,/9j/"));
        assert!(data_uri(&photo, 64).len() < data_uri(&photo, 400).len());
    }
}
