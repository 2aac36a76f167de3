//! What a driver's colour fields mean for decoding.

use crate::frame::{Colorimetry, Range, YcbcrMatrix};

// Codes of `enum v4l2_colorspace`, `v4l2_ycbcr_encoding` and `v4l2_quantization` in `videodev2.h`.
const COLORSPACE_SMPTE240M: u32 = 2;
const COLORSPACE_REC709: u32 = 3;
const COLORSPACE_JPEG: u32 = 7;
const COLORSPACE_BT2020: u32 = 10;
const COLORSPACE_DCI_P3: u32 = 12;
const YCBCR_ENC_DEFAULT: u32 = 0;
const YCBCR_ENC_709: u32 = 2;
const YCBCR_ENC_XV709: u32 = 4;
const YCBCR_ENC_BT2020: u32 = 6;
const YCBCR_ENC_BT2020_CONST_LUM: u32 = 7;
const YCBCR_ENC_SMPTE240M: u32 = 8;
const QUANTIZATION_FULL: u32 = 1;
const QUANTIZATION_LIMITED: u32 = 2;

/// The colorimetry of a YCbCr format from the three numbers of `v4l2_pix_format`.
///
/// Defaults follow the kernel's `V4L2_MAP_YCBCR_ENC_DEFAULT` and `V4L2_MAP_QUANTIZATION_DEFAULT`:
/// Rec. 709 and DCI-P3 use the BT.709 matrix, everything else BT.601; only JPEG is full range.
/// BT.2020 and SMPTE 240M, whose luma weights lie near BT.709's, are decoded as BT.709. Unknown
/// numbers count as default.
pub fn from_v4l2(colorspace: u32, ycbcr_enc: u32, quantization: u32) -> Colorimetry {
    let matrix = match (ycbcr_enc, colorspace) {
        (
            YCBCR_ENC_709
            | YCBCR_ENC_XV709
            | YCBCR_ENC_BT2020
            | YCBCR_ENC_BT2020_CONST_LUM
            | YCBCR_ENC_SMPTE240M,
            _,
        )
        | (
            YCBCR_ENC_DEFAULT,
            COLORSPACE_REC709 | COLORSPACE_DCI_P3 | COLORSPACE_BT2020 | COLORSPACE_SMPTE240M,
        ) => YcbcrMatrix::Bt709,
        _ => YcbcrMatrix::Bt601,
    };
    let range = match (quantization, colorspace) {
        (QUANTIZATION_FULL, _) => Range::Full,
        (QUANTIZATION_LIMITED, _) => Range::Limited,
        (_, COLORSPACE_JPEG) => Range::Full,
        _ => Range::Limited,
    };
    Colorimetry { matrix, range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_kernel() {
        let of = |colorspace, enc, quantization| {
            let c = from_v4l2(colorspace, enc, quantization);
            (c.matrix, c.range)
        };
        // sRGB, as webcams say.
        assert_eq!(of(8, 0, 0), (YcbcrMatrix::Bt601, Range::Limited));
        assert_eq!(of(3, 0, 0), (YcbcrMatrix::Bt709, Range::Limited));
        assert_eq!(of(7, 0, 0), (YcbcrMatrix::Bt601, Range::Full));
        // What is said wins over the default.
        assert_eq!(of(3, 1, 1), (YcbcrMatrix::Bt601, Range::Full));
        assert_eq!(of(7, 2, 2), (YcbcrMatrix::Bt709, Range::Limited));
        assert_eq!(
            of(u32::MAX, u32::MAX, u32::MAX),
            (YcbcrMatrix::Bt601, Range::Limited)
        );
    }
}
