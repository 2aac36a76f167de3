//! Frames of every format, with whatever size and stride the bytes ask for; as a whole, and in parts.

use std::time::Instant;

use vedetta::decode::{Expected, Picture, Scale, decode};
use vedetta::frame::{Bayer, BayerOrder, Colorimetry, Frame, PixelFormat};
use vedetta::preprocess::Region;

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
    let frame = Frame {
        sequence: 0,
        captured_at: Instant::now(),
        format: formats[usize::from(*format) % formats.len()],
        width_px: u32::from(u16::from_le_bytes([*w0, *w1])),
        height_px: u32::from(u16::from_le_bytes([*h0, *h1])),
        stride_bytes: u32::from(*stride) * 16,
        colorimetry: Colorimetry::default(),
        data: data.to_vec(),
    };
    let is_whole = decode(&frame).is_ok();
    let Ok(picture) = Picture::of(frame.clone()) else {
        return is_whole;
    };
    if let Some((width, height)) = picture.size_in_parts() {
        let corner = |x, y| Region {
            x,
            y,
            width: width - x,
            height: height - y,
        };
        let regions = [corner(0, 0), corner(width / 2, height / 3)];
        for scale in Scale::ALL {
            let expected = Expected {
                size: (width, height),
                regions: regions.to_vec(),
                scale,
            };
            let ahead = Picture::expecting(frame.clone(), Some(&expected));
            let ahead = ahead.and_then(|ahead| ahead.planes(&regions, scale));
            assert_eq!(ahead, picture.planes(&regions, scale), "expected or not");
        }
    }
    is_whole
}
