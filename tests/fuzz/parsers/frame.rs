//! Frames of every format, with whatever size and stride the bytes ask for.

use std::time::Instant;

use vedetta::decode::decode;
use vedetta::frame::{Bayer, BayerOrder, Colorimetry, Frame, PixelFormat};

/// Format, bits, width, height, stride, then the frame.
pub fn read(input: &[u8]) -> bool {
    let [format, bits, w0, w1, h0, h1, stride, data @ ..] = input else {
        return false;
    };
    let order = BayerOrder::Grbg;
    let formats = [
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::Mjpeg,
        PixelFormat::Rgb24,
        PixelFormat::Bgr24,
        PixelFormat::Grey,
        PixelFormat::Bayer(Bayer {
            order,
            bits: [8, 10, 12][usize::from(bits % 3)],
        }),
    ];
    let decoded = decode(&Frame {
        sequence: 0,
        captured_at: Instant::now(),
        format: formats[usize::from(*format) % formats.len()],
        width_px: u32::from(u16::from_le_bytes([*w0, *w1])),
        height_px: u32::from(u16::from_le_bytes([*h0, *h1])),
        stride_bytes: u32::from(*stride) * 16,
        colorimetry: Colorimetry::default(),
        data: data.to_vec(),
    });
    decoded.is_ok()
}
