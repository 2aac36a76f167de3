//! YCbCr to RGB in integer arithmetic.
//!
//! With luma weights `Kr`, `Kb` and `Kg = 1 − Kr − Kb` (BT.601: 0.299, 0.114; BT.709: 0.2126,
//! 0.0722) and `Y` in 0–1, `Cb`, `Cr` in −0.5–0.5, ITU-R BT.601-7 §2.5 and BT.709-6 §3 give
//!
//! ```text
//! R = Y + 2(1 − Kr)·Cr
//! G = Y − 2Kb(1 − Kb)/Kg·Cb − 2Kr(1 − Kr)/Kg·Cr
//! B = Y + 2(1 − Kb)·Cb
//! ```
//!
//! Limited range codes Y as 16–235 and C as 16–240 around 128; full range codes both over 0–255.
//! The coefficients are scaled by 2^16 and rounded; results are within 1 of the exact value.

use image::RgbImage;

use super::Layout;
use crate::frame::{Colorimetry, Frame, Range, YcbcrMatrix};

const SHIFT: u32 = 16;
const HALF: i32 = 1 << (SHIFT - 1);

/// Conversion coefficients, scaled by 2^16.
#[derive(Clone, Copy, Debug)]
struct Coefficients {
    luma: i32,
    /// Added once per pixel: the luma offset and the rounding half.
    bias: i32,
    red_cr: i32,
    green_cb: i32,
    green_cr: i32,
    blue_cb: i32,
}

impl Coefficients {
    fn of(colorimetry: Colorimetry) -> Self {
        let (kr, kb) = match colorimetry.matrix {
            YcbcrMatrix::Bt601 => (0.299, 0.114),
            YcbcrMatrix::Bt709 => (0.2126, 0.0722),
        };
        let (luma_offset, luma_scale, chroma_scale) = match colorimetry.range {
            Range::Limited => (16, 255.0 / 219.0, 255.0 / 224.0),
            Range::Full => (0, 1.0, 1.0),
        };
        let kg = 1.0 - kr - kb;
        let luma = fixed(luma_scale);
        Self {
            luma,
            bias: HALF - luma * luma_offset,
            red_cr: fixed(2.0 * (1.0 - kr) * chroma_scale),
            green_cb: fixed(-2.0 * kb * (1.0 - kb) / kg * chroma_scale),
            green_cr: fixed(-2.0 * kr * (1.0 - kr) / kg * chroma_scale),
            blue_cb: fixed(2.0 * (1.0 - kb) * chroma_scale),
        }
    }

    /// What one chroma sample adds to red, green and blue.
    #[inline]
    fn chroma(&self, cb: u8, cr: u8) -> [i32; 3] {
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        [
            self.red_cr * cr,
            self.green_cb * cb + self.green_cr * cr,
            self.blue_cb * cb,
        ]
    }

    #[inline]
    fn rgb(&self, y: u8, chroma: [i32; 3]) -> [u8; 3] {
        let luma = self.luma * i32::from(y) + self.bias;
        chroma.map(|c| saturate((luma + c) >> SHIFT))
    }

    /// Two pixels that share one chroma sample.
    #[inline]
    fn pair(&self, out: &mut [u8; 6], luma: [u8; 2], cb: u8, cr: u8) {
        let chroma = self.chroma(cb, cr);
        let [r0, g0, b0] = self.rgb(luma[0], chroma);
        let [r1, g1, b1] = self.rgb(luma[1], chroma);
        *out = [r0, g0, b0, r1, g1, b1];
    }
}

/// From codes of JFIF (BT.601, full range) to RGB.
pub(super) fn full_range() -> impl Fn(u8, u8, u8) -> [u8; 3] {
    let coefficients = Coefficients::of(Colorimetry {
        matrix: YcbcrMatrix::Bt601,
        range: Range::Full,
    });
    move |y, cb, cr| coefficients.rgb(y, coefficients.chroma(cb, cr))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "coefficients are below 3, far inside i32 once scaled"
)]
fn fixed(coefficient: f64) -> i32 {
    (coefficient * f64::from(1 << SHIFT)).round() as i32
}

#[expect(clippy::cast_sign_loss, reason = "clamped to 0–255 first")]
#[inline]
fn saturate(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

/// `Y0 Cb Y1 Cr` to RGB.
pub(super) fn yuyv(frame: &Frame, layout: &Layout, image: &mut RgbImage) {
    packed(frame, layout, image, |[y0, cb, y1, cr]| ([y0, y1], cb, cr));
}

/// `Cb Y0 Cr Y1` to RGB.
pub(super) fn uyvy(frame: &Frame, layout: &Layout, image: &mut RgbImage) {
    packed(frame, layout, image, |[cb, y0, cr, y1]| ([y0, y1], cb, cr));
}

/// Packed 4:2:2; `unpack` gives the two lumas, Cb and Cr of four bytes.
fn packed(
    frame: &Frame,
    layout: &Layout,
    image: &mut RgbImage,
    unpack: impl Fn([u8; 4]) -> ([u8; 2], u8, u8) + Copy,
) {
    let coefficients = Coefficients::of(frame.colorimetry);
    super::rows(frame, layout, image, |out, row| {
        let (macropixels, _) = row.as_chunks::<4>();
        let (pairs, last) = out.as_chunks_mut::<6>();
        for (out, &bytes) in pairs.iter_mut().zip(macropixels) {
            let (luma, cb, cr) = unpack(bytes);
            coefficients.pair(out, luma, cb, cr);
        }
        if let (false, Some(&bytes)) = (last.is_empty(), macropixels.last()) {
            let (luma, cb, cr) = unpack(bytes);
            last.copy_from_slice(&coefficients.rgb(luma[0], coefficients.chroma(cb, cr)));
        }
    });
}

/// A luma plane and an interleaved `Cb Cr` plane of half the width and height to RGB.
pub(super) fn nv12(frame: &Frame, layout: &Layout, image: &mut RgbImage) {
    let coefficients = Coefficients::of(frame.colorimetry);
    let width = frame.width_px as usize;
    let (luma_plane, chroma_plane) = frame
        .data
        .split_at(layout.stride * frame.height_px as usize);
    let luma_rows = luma_plane.chunks_exact(layout.stride);
    for (y, (out, luma)) in image.chunks_exact_mut(width * 3).zip(luma_rows).enumerate() {
        let chroma = &chroma_plane[y / 2 * layout.stride..][..layout.row_bytes];
        let (lumas, last_luma) = luma[..width].as_chunks::<2>();
        let (chromas, _) = chroma.as_chunks::<2>();
        let (pairs, last) = out.as_chunks_mut::<6>();
        for ((out, &luma), &[cb, cr]) in pairs.iter_mut().zip(lumas).zip(chromas) {
            coefficients.pair(out, luma, cb, cr);
        }
        if let ([y], Some(&[cb, cr])) = (last_luma, chromas.last()) {
            last.copy_from_slice(&coefficients.rgb(*y, coefficients.chroma(cb, cr)));
        }
    }
}
