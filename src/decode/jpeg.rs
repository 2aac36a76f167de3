//! JPEG, and what UVC cameras call Motion JPEG.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::baseline::{Baseline, Expected};
use super::layout::check_dimensions;
use super::{DecodeError, MAX_EDGE_PX, MAX_PIXELS, huffman};

/// Largest progressive JPEG, in pixels: its decoder holds every coefficient, 6 bytes a pixel. No
/// camera sends progressive frames, but a replay folder may hold some.
const MAX_PROGRESSIVE_PIXELS: u64 = 16_000_000;

/// From this width on the end-of-image marker is held back from the decoder; see [`decode`].
const MIN_WIDTH_WITHOUT_END_PX: u32 = 256;

const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const HUFFMAN_TABLES: u8 = 0xc4;

/// What the segments before the picture data say.
#[derive(Debug)]
struct Headers {
    width_px: u32,
    height_px: u32,
    components: u8,
    is_progressive: bool,
    /// The first scan holds every component.
    is_interleaved: bool,
    has_huffman_tables: bool,
    /// Where the start-of-scan marker is.
    scan_at: usize,
    /// Where the picture data begin.
    data_at: usize,
}

/// Whether `bytes` have the headers and the end of a JPEG; the picture data are not looked at.
#[cfg(any(test, feature = "v4l2"))]
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    headers(bytes).is_ok_and(|headers| end_of_image(bytes, &headers).is_some())
}

/// Decodes one JPEG to RGB.
///
/// Without Huffman tables the standard ones are put in, as Motion JPEG implies them. A truncated
/// picture is an error: an end-of-image marker has to be there, and for ordinary baseline pictures
/// it is then held back from the decoder, which otherwise takes an early one for the end and fills
/// the rest with noise.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let Checked {
        headers,
        limit,
        end,
    } = check(bytes)?;
    let is_ordinary = !headers.is_progressive && headers.is_interleaved;
    let bytes = if is_ordinary && headers.width_px >= MIN_WIDTH_WITHOUT_END_PX {
        &bytes[..end]
    } else {
        &bytes[..end + 2]
    };
    if headers.has_huffman_tables {
        return decode_checked(bytes, limit);
    }
    let (before, from_scan) = bytes.split_at(headers.scan_at);
    decode_checked(
        &[before, &huffman::STANDARD_SEGMENT, from_scan].concat(),
        limit,
    )
}

/// A JPEG that is decoded in parts, those that are expected at once; `None` for a kind that has to be
/// decoded as a whole.
pub(super) fn survey(
    bytes: &[u8],
    expected: Option<&Expected>,
) -> Result<Option<Baseline>, DecodeError> {
    let Checked { headers, end, .. } = check(bytes)?;
    if headers.is_progressive || !headers.is_interleaved {
        return Ok(None);
    }
    Baseline::read(&bytes[..end], headers.has_huffman_tables, expected)
}

struct Checked {
    headers: Headers,
    /// Most pixels.
    limit: u64,
    /// Where the end-of-image marker is.
    end: usize,
}

/// What has to hold before anything is decoded.
fn check(bytes: &[u8]) -> Result<Checked, DecodeError> {
    let headers = headers(bytes)?;
    let limit = if headers.is_progressive {
        MAX_PROGRESSIVE_PIXELS
    } else {
        MAX_PIXELS
    };
    check_dimensions(headers.width_px, headers.height_px, limit)?;
    if !matches!(headers.components, 1 | 3) {
        return Err(DecodeError::Unsupported(format!(
            "a JPEG with {} components (CMYK?); greyscale and YCbCr are decoded",
            headers.components
        )));
    }
    let end = end_of_image(bytes, &headers).ok_or_else(|| {
        DecodeError::Jpeg(format!(
            "it ends after {} bytes without an end-of-image marker",
            bytes.len()
        ))
    })?;
    Ok(Checked {
        headers,
        limit,
        end,
    })
}

/// Decodes a JPEG that has all its tables, checking the decoder's own view of its size again.
fn decode_checked(bytes: &[u8], limit: u64) -> Result<RgbImage, DecodeError> {
    let decode = || {
        let options = DecoderOptions::default()
            .set_strict_mode(true)
            .set_max_width(MAX_EDGE_PX as usize)
            .set_max_height(MAX_EDGE_PX as usize)
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        let corrupt = |error| DecodeError::Jpeg(format!("{error:?}"));
        decoder.decode_headers().map_err(corrupt)?;
        let (width, height) = decoder
            .dimensions()
            .ok_or_else(|| DecodeError::Jpeg("it has no dimensions".into()))?;
        let edge = |edge| u32::try_from(edge).unwrap_or(u32::MAX);
        let (width, height) = (edge(width), edge(height));
        check_dimensions(width, height, limit)?;
        let pixels = decoder.decode().map_err(corrupt)?;
        RgbImage::from_raw(width, height, pixels)
            .ok_or_else(|| DecodeError::Jpeg("the decoder returned too few pixels".into()))
    };
    // The decoder indexes and asserts its way through hostile data; what it holds dies with it.
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(DecodeError::Jpeg("the decoder gave up".into())))
}

/// Offset of the last end-of-image marker after the headers; what follows it is padding.
fn end_of_image(bytes: &[u8], headers: &Headers) -> Option<usize> {
    bytes[headers.data_at..]
        .windows(2)
        .rposition(|pair| pair == [0xff, END_OF_IMAGE])
        .map(|at| headers.data_at + at)
}

/// Walks the segments up to the picture data (ITU-T T.81, Annex B).
fn headers(bytes: &[u8]) -> Result<Headers, DecodeError> {
    let corrupt = |what: &str| DecodeError::Jpeg(what.to_owned());
    if !bytes.starts_with(&[0xff, START_OF_IMAGE]) {
        return Err(corrupt("it does not start like a JPEG"));
    }
    let mut frame = None;
    let mut has_huffman_tables = false;
    let mut at = 2;
    loop {
        let cut = || corrupt("it ends within its headers");
        // Cameras pad between segments; any number of 0xff may precede a marker.
        at += bytes[at..]
            .iter()
            .position(|&b| b == 0xff)
            .ok_or_else(cut)?;
        at += bytes[at..]
            .iter()
            .position(|&b| b != 0xff)
            .ok_or_else(cut)?;
        let (marker, marker_at) = (bytes[at], at - 1);
        at += 1;
        if matches!(marker, 0x00 | 0x01 | 0xd0..=START_OF_IMAGE) {
            continue;
        }
        if marker == END_OF_IMAGE {
            return Err(corrupt("it ends before its picture"));
        }
        let length = bytes.get(at..at + 2).ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length < 2 {
            return Err(corrupt("a segment has an impossible length"));
        }
        let body = bytes.get(at + 2..at + length).ok_or_else(cut)?;
        at += length;
        match marker {
            HUFFMAN_TABLES => has_huffman_tables = true,
            // Start of frame: sample bits, height, width, components.
            0xc0..=0xc2 => {
                let &[_, h1, h0, w1, w0, components, ..] = body else {
                    return Err(cut());
                };
                if frame.is_some() {
                    return Err(corrupt("it has two frame headers"));
                }
                let edge = |high, low| u32::from(u16::from_be_bytes([high, low]));
                frame = Some((edge(w1, w0), edge(h1, h0), components, marker == 0xc2));
            }
            START_OF_SCAN => {
                let (width_px, height_px, components, is_progressive) =
                    frame.ok_or_else(|| corrupt("it has no frame header"))?;
                return Ok(Headers {
                    width_px,
                    height_px,
                    components,
                    is_progressive,
                    is_interleaved: body.first() == Some(&components),
                    has_huffman_tables,
                    scan_at: marker_at,
                    data_at: at,
                });
            }
            _ => {}
        }
    }
}
