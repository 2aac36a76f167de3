//! How many bytes a frame of a format takes, and where its rows are.

use super::{DecodeError, MAX_EDGE_PX, MAX_PIXELS};
use crate::frame::PixelFormat;

/// Byte layout of an uncompressed frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    format: PixelFormat,
    width_px: u32,
    height_px: u32,
    /// Bytes of one row of the first plane that carry pixels.
    pub row_bytes: usize,
    /// Bytes from one row to the next, at least `row_bytes`; the same in both planes of NV12.
    pub stride: usize,
    /// Bytes the whole frame takes; what pads the last row may be missing.
    pub needed_bytes: usize,
}

impl Layout {
    /// The layout of `format`; a `stride_bytes` of 0 means rows without padding.
    ///
    /// Row and plane rules are V4L2's ("Image Formats" in the Linux media userspace API): packed
    /// 4:2:2 comes in pairs of pixels, NV12's chroma plane follows `height` rows of luma.
    pub fn of(
        format: PixelFormat,
        width_px: u32,
        height_px: u32,
        stride_bytes: u32,
    ) -> Result<Self, DecodeError> {
        check_dimensions(width_px, height_px, MAX_PIXELS)?;
        // Edges are at most 2^13 and strides below 2^32, so products stay below 2^46.
        let (width, height) = (width_px as usize, height_px as usize);
        let row_bytes = match format {
            PixelFormat::Yuyv | PixelFormat::Uyvy => width.div_ceil(2) * 4,
            PixelFormat::Nv12 => width.div_ceil(2) * 2,
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => width * 3,
            PixelFormat::Grey => width,
            PixelFormat::Bayer(bayer) if bayer.bits == 8 => width,
            PixelFormat::Bayer(_) => width * 2,
            PixelFormat::Mjpeg => {
                return Err(DecodeError::Unsupported("MJPEG has no fixed layout".into()));
            }
        };
        let stride = match stride_bytes as usize {
            0 => row_bytes,
            stride if stride >= row_bytes => stride,
            _ => {
                return Err(DecodeError::Stride {
                    format,
                    width_px,
                    stride_bytes,
                    row_bytes,
                });
            }
        };
        let row_count = match format {
            PixelFormat::Nv12 => height + height.div_ceil(2),
            _ => height,
        };
        Ok(Self {
            format,
            width_px,
            height_px,
            row_bytes,
            stride,
            needed_bytes: stride * (row_count - 1) + row_bytes,
        })
    }

    /// Refuses a frame of fewer than `needed_bytes` bytes.
    pub fn check(&self, got_bytes: usize) -> Result<(), DecodeError> {
        if got_bytes >= self.needed_bytes {
            return Ok(());
        }
        Err(DecodeError::Short {
            format: self.format,
            width_px: self.width_px,
            height_px: self.height_px,
            got_bytes,
            needed_bytes: self.needed_bytes,
        })
    }
}

/// Refuses pictures that are empty or larger than `limit` pixels or [`MAX_EDGE_PX`] a side.
pub(super) fn check_dimensions(
    width_px: u32,
    height_px: u32,
    limit: u64,
) -> Result<(), DecodeError> {
    let edge = 1..=MAX_EDGE_PX;
    let area = u64::from(width_px) * u64::from(height_px);
    if edge.contains(&width_px) && edge.contains(&height_px) && area <= limit {
        return Ok(());
    }
    Err(DecodeError::Dimensions {
        width_px,
        height_px,
        limit,
    })
}
