//! A camera frame as the device delivered it, before any decoding.

use std::time::{Duration, Instant};

/// Pixel layout of a [`Frame`], named after the V4L2 four-character code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// `YUYV`: packed 4:2:2, 2 bytes per pixel.
    Yuyv,
    /// `UYVY`: packed 4:2:2, chroma first.
    Uyvy,
    /// `NV12`: a luma plane, then an interleaved CbCr plane at half size.
    Nv12,
    /// `MJPG`/`JPEG`: one JPEG image per frame.
    Mjpeg,
    /// `RGB3`: 3 bytes per pixel, red first.
    Rgb24,
    /// `BGR3`: 3 bytes per pixel, blue first.
    Bgr24,
    /// `GREY`: 1 byte per pixel.
    Grey,
    /// Raw sensor data; see [`Bayer`].
    Bayer(Bayer),
}

/// A raw Bayer layout: the order of the top-left 2×2 cell and the sample width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Bayer {
    /// Colours of the top-left 2×2 cell, row by row.
    pub order: BayerOrder,
    /// Significant bits per sample: 8 (one byte), 10 or 12 (two bytes, little endian, low bits).
    pub bits: u8,
}

/// Colour order of a Bayer cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BayerOrder {
    /// Red first.
    Rggb,
    /// Blue first.
    Bggr,
    /// Green first, red beside it.
    Grbg,
    /// Green first, blue beside it.
    Gbrg,
}

/// Luma coefficients of a YCbCr frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum YcbcrMatrix {
    /// ITU-R BT.601 (webcams, JPEG).
    #[default]
    Bt601,
    /// ITU-R BT.709 (HD).
    Bt709,
}

/// Code range of a YCbCr frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Range {
    /// Y 16–235, C 16–240.
    #[default]
    Limited,
    /// 0–255.
    Full,
}

/// How to turn YCbCr codes into RGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Colorimetry {
    /// Luma coefficients.
    pub matrix: YcbcrMatrix,
    /// Code range.
    pub range: Range,
}

/// One frame of one camera, undecoded.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Counts frames of this camera since the daemon started; gaps are frames lost in the driver.
    pub sequence: u64,
    /// When the frame left the driver.
    pub captured_at: Instant,
    /// Layout of `data`.
    pub format: PixelFormat,
    /// Width in pixels (for MJPEG what the driver promised; the JPEG header decides).
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
    /// Bytes from one row to the next in the first plane; 0 for compressed formats.
    pub stride_bytes: u32,
    /// Only meaningful for YCbCr formats.
    pub colorimetry: Colorimetry,
    /// Exactly the bytes the driver reported as used.
    pub data: Vec<u8>,
}

impl Frame {
    /// A JPEG that leaves the driver now, the first of its camera.
    pub fn mjpeg(width_px: u32, height_px: u32, data: Vec<u8>) -> Self {
        Self {
            sequence: 0,
            captured_at: Instant::now(),
            format: PixelFormat::Mjpeg,
            width_px,
            height_px,
            stride_bytes: 0,
            colorimetry: Colorimetry::default(),
            data,
        }
    }

    /// Time since the frame left the driver.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.captured_at)
    }
}
