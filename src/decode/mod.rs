//! Turns an undecoded [`Frame`] into RGB.
//!
//! Frames are hostile input: a driver, a cable or a file may deliver anything. Every size is checked
//! before memory is taken, and what cannot be decoded is an error, never a panic and never a picture
//! that is grey from the middle on.

mod baseline;
mod bayer;
mod huffman;
mod jpeg;
mod layout;
mod picture;
mod ycbcr;

use image::RgbImage;
use thiserror::Error;

use crate::frame::{Frame, PixelFormat};

pub use baseline::{Expected, Plane, Scale};
#[cfg(any(test, feature = "v4l2"))]
pub(crate) use jpeg::is_complete as is_complete_jpeg;
pub(crate) use layout::Layout;
pub use picture::Picture;

/// Longest edge that is decoded, in pixels.
pub const MAX_EDGE_PX: u32 = 8192;

/// Largest area that is decoded, in pixels.
pub const MAX_PIXELS: u64 = 40_000_000;

/// Why a frame could not be decoded. All of them concern this one frame; the next may be good.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Empty, or larger than [`MAX_EDGE_PX`] or [`MAX_PIXELS`].
    #[error(
        "the picture is {width_px}x{height_px} pixels; up to {MAX_EDGE_PX} a side and {limit} in all \
         are decoded"
    )]
    Dimensions {
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
        /// The area limit that applied.
        limit: u64,
    },
    /// Rows that overlap.
    #[error(
        "the driver says rows are {stride_bytes} bytes apart, but {width_px} pixels of {format:?} \
         take {row_bytes}"
    )]
    Stride {
        /// Layout of the frame.
        format: PixelFormat,
        /// Width in pixels.
        width_px: u32,
        /// What the driver said.
        stride_bytes: u32,
        /// Bytes of one row.
        row_bytes: usize,
    },
    /// Fewer bytes than the picture takes.
    #[error(
        "the frame has {got_bytes} bytes; {width_px}x{height_px} of {format:?} needs {needed_bytes}"
    )]
    Short {
        /// Layout of the frame.
        format: PixelFormat,
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
        /// Bytes that came.
        got_bytes: usize,
        /// Bytes that are needed.
        needed_bytes: usize,
    },
    /// A kind of picture that is not decoded.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// A JPEG that is damaged or incomplete.
    #[error("corrupt JPEG: {0}")]
    Jpeg(String),
}

/// Decodes one frame to 8-bit RGB of its full size.
///
/// YCbCr is converted with the frame's own [`Colorimetry`](crate::frame::Colorimetry); chroma is
/// repeated, not interpolated. JPEG is BT.601 full range by definition (JFIF 1.02). `Grey` and
/// greyscale JPEG give three equal channels. For raw sensor data see the module's `bayer` part.
///
/// # Errors
/// A frame that is too large, too short, damaged, or of a kind no camera should send (CMYK).
pub fn decode(frame: &Frame) -> Result<RgbImage, DecodeError> {
    if frame.format == PixelFormat::Mjpeg {
        return jpeg::decode(&frame.data);
    }
    let layout = Layout::of(
        frame.format,
        frame.width_px,
        frame.height_px,
        frame.stride_bytes,
    )?;
    layout.check(frame.data.len())?;
    let mut image = RgbImage::new(frame.width_px, frame.height_px);
    match frame.format {
        PixelFormat::Yuyv => ycbcr::yuyv(frame, &layout, &mut image),
        PixelFormat::Uyvy => ycbcr::uyvy(frame, &layout, &mut image),
        PixelFormat::Nv12 => ycbcr::nv12(frame, &layout, &mut image),
        PixelFormat::Rgb24 => rows(frame, &layout, &mut image, <[u8]>::copy_from_slice),
        PixelFormat::Bgr24 => rows(frame, &layout, &mut image, |out, row| {
            let (out, _) = out.as_chunks_mut::<3>();
            let (row, _) = row.as_chunks::<3>();
            for (rgb, &[b, g, r]) in out.iter_mut().zip(row) {
                *rgb = [r, g, b];
            }
        }),
        PixelFormat::Grey => rows(frame, &layout, &mut image, |out, row| {
            let (out, _) = out.as_chunks_mut::<3>();
            for (rgb, &grey) in out.iter_mut().zip(row) {
                *rgb = [grey; 3];
            }
        }),
        PixelFormat::Bayer(bayer) => bayer::demosaic(frame, bayer, &layout, &mut image)?,
        PixelFormat::Mjpeg => {}
    }
    Ok(image)
}

/// Applies `convert(out_row, row)` to each row of a one-plane frame.
fn rows(frame: &Frame, layout: &Layout, image: &mut RgbImage, convert: impl Fn(&mut [u8], &[u8])) {
    let out_row_bytes = frame.width_px as usize * 3;
    let out = image.chunks_exact_mut(out_row_bytes);
    for (out, row) in out.zip(frame.data.chunks(layout.stride)) {
        convert(out, &row[..layout.row_bytes]);
    }
}

#[cfg(test)]
mod tests;
