//! V4L2 four-character codes of the formats that can be decoded.

use std::fmt;

use crate::frame::{Bayer, BayerOrder, PixelFormat};

/// A V4L2 pixel format code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// The code as the kernel's 32-bit number.
    pub fn code(self) -> u32 {
        u32::from_le_bytes(self.0)
    }

    /// From the kernel's number.
    pub fn from_code(code: u32) -> Self {
        Self(code.to_le_bytes())
    }

    /// The format behind the code, where it can be decoded.
    pub fn format(self) -> Option<PixelFormat> {
        let found = TABLE.iter().find(|(code, _)| **code == self.0);
        found.map(|(_, format)| *format)
    }
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            let printable = byte.is_ascii_graphic() || byte == b' ';
            write!(f, "{}", if printable { char::from(byte) } else { '?' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const fn bayer(order: BayerOrder, bits: u8) -> PixelFormat {
    PixelFormat::Bayer(Bayer { order, bits })
}

/// Codes of the Linux media userspace API, `videodev2.h`. The first code of a format is the one it
/// is asked for with.
const TABLE: [(&[u8; 4], PixelFormat); 20] = [
    (b"YUYV", PixelFormat::Yuyv),
    (b"UYVY", PixelFormat::Uyvy),
    (b"NV12", PixelFormat::Nv12),
    (b"MJPG", PixelFormat::Mjpeg),
    (b"JPEG", PixelFormat::Mjpeg),
    (b"RGB3", PixelFormat::Rgb24),
    (b"BGR3", PixelFormat::Bgr24),
    (b"GREY", PixelFormat::Grey),
    (b"RGGB", bayer(BayerOrder::Rggb, 8)),
    (b"BA81", bayer(BayerOrder::Bggr, 8)),
    (b"GRBG", bayer(BayerOrder::Grbg, 8)),
    (b"GBRG", bayer(BayerOrder::Gbrg, 8)),
    (b"RG10", bayer(BayerOrder::Rggb, 10)),
    (b"BG10", bayer(BayerOrder::Bggr, 10)),
    (b"BA10", bayer(BayerOrder::Grbg, 10)),
    (b"GB10", bayer(BayerOrder::Gbrg, 10)),
    (b"RG12", bayer(BayerOrder::Rggb, 12)),
    (b"BG12", bayer(BayerOrder::Bggr, 12)),
    (b"BA12", bayer(BayerOrder::Grbg, 12)),
    (b"GB12", bayer(BayerOrder::Gbrg, 12)),
];

impl fmt::Display for PixelFormat {
    /// The V4L2 code, `YUYV`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TABLE.iter().find(|(_, format)| format == self) {
            Some((code, _)) => FourCc(**code).fmt(f),
            None => write!(f, "{self:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_formats_belong_together() {
        assert_eq!(FourCc(*b"JPEG").format(), Some(PixelFormat::Mjpeg));
        assert_eq!(FourCc(*b"BA10").format(), Some(bayer(BayerOrder::Grbg, 10)));
        assert_eq!(FourCc(*b"H264").format(), None);
        assert_eq!(PixelFormat::Mjpeg.to_string(), "MJPG");
        assert_eq!(FourCc::from_code(0x5659_5559), FourCc(*b"YUYV"));
        assert_eq!(FourCc([0, b'A', 255, b' ']).to_string(), "?A? ");
    }
}
