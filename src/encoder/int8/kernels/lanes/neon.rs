//! Four 128-bit registers.

use std::arch::aarch64::*;

use super::Lanes;

#[derive(Clone, Copy)]
pub(in super::super) struct Neon(float32x4_t, float32x4_t, float32x4_t, float32x4_t);

/// An operation on the four quarters. NEON is part of every aarch64 this is compiled for.
macro_rules! op {
    ($f:ident, $($arg:expr),+) => {
        // SAFETY: NEON is part of aarch64.
        unsafe { Self($f($($arg.0),+), $f($($arg.1),+), $f($($arg.2),+), $f($($arg.3),+)) }
    };
}

/// `if a > b { a } else { b }`.
#[inline(always)]
fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// `if a < b { a } else { b }`.
#[inline(always)]
fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
}

/// `a · b + c`; the instruction takes the addend first.
#[inline(always)]
fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe { vfmaq_f32(c, a, b) }
}

#[inline(always)]
fn exp2_of_integer(n: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
    }
}

/// The lanes rounded to nearest even, as signed bytes.
#[inline(always)]
fn signed(v: Neon) -> int8x16_t {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let half =
            |a, b| vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a)), vqmovn_s32(vcvtnq_s32_f32(b)));
        vcombine_s8(vqmovn_s16(half(v.0, v.1)), vqmovn_s16(half(v.2, v.3)))
    }
}

impl Lanes for Neon {
    const TILE_COLUMNS: usize = 1;
    const CENTRE: u8 = 128;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: NEON is part of aarch64.
        let v = unsafe { vdupq_n_f32(x) };
        Self(v, v, v, v)
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller gives 16 readable f32.
        unsafe {
            Self(
                vld1q_f32(p),
                vld1q_f32(p.add(4)),
                vld1q_f32(p.add(8)),
                vld1q_f32(p.add(12)),
            )
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller gives 16 writable f32.
        unsafe {
            vst1q_f32(p, self.0);
            vst1q_f32(p.add(4), self.1);
            vst1q_f32(p.add(8), self.2);
            vst1q_f32(p.add(12), self.3);
        }
    }

    #[inline(always)]
    unsafe fn store_codes(self, p: *mut u8) {
        // SAFETY: the caller gives 16 writable bytes.
        unsafe {
            let half = |a, b| {
                vcombine_u16(
                    vqmovun_s32(vcvtnq_s32_f32(a)),
                    vqmovun_s32(vcvtnq_s32_f32(b)),
                )
            };
            let bytes = vcombine_u8(
                vqmovn_u16(half(self.0, self.1)),
                vqmovn_u16(half(self.2, self.3)),
            );
            vst1q_u8(p, veorq_u8(bytes, vdupq_n_u8(Self::CENTRE)));
        }
    }

    #[inline(always)]
    unsafe fn store_signed(self, p: *mut i8) {
        // SAFETY: the caller gives 16 writable bytes.
        unsafe { vst1q_s8(p, signed(self)) };
    }

    #[inline(always)]
    unsafe fn store_halves(self, high: *mut u8, low: *mut u8) {
        // SAFETY: the caller gives 16 writable bytes in each.
        unsafe {
            let half = |a, b| {
                vcombine_u16(
                    vqmovun_s32(vcvtnq_s32_f32(a)),
                    vqmovun_s32(vcvtnq_s32_f32(b)),
                )
            };
            let (a, b) = (half(self.0, self.1), half(self.2, self.3));
            let above = vcombine_u8(vshrn_n_u16::<8>(a), vshrn_n_u16::<8>(b));
            let below = vcombine_u8(vmovn_u16(a), vmovn_u16(b));
            let centre = vdupq_n_u8(Self::CENTRE);
            vst1q_u8(high, veorq_u8(above, centre));
            vst1q_u8(low, veorq_u8(below, centre));
        }
    }

    #[inline(always)]
    unsafe fn store_groups(four: [Self; 4], p: *mut i8) {
        let [a, b, c, d] = four.map(signed);
        // SAFETY: the caller gives 64 writable bytes.
        unsafe { vst4q_s8(p, int8x16x4_t(a, b, c, d)) };
    }

    #[inline(always)]
    unsafe fn dequantize(acc: *const i32, sums: *const i32, zero: i32) -> Self {
        // SAFETY: the caller gives 16 readable i32 in each.
        unsafe {
            let quarter = |at: usize| {
                let shifted = vmlsq_s32(
                    vld1q_s32(acc.add(at)),
                    vld1q_s32(sums.add(at)),
                    vdupq_n_s32(zero),
                );
                vcvtq_f32_s32(shifted)
            };
            Self(quarter(0), quarter(4), quarter(8), quarter(12))
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        op!(vaddq_f32, self, other)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        op!(vsubq_f32, self, other)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        op!(vmulq_f32, self, other)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        op!(vdivq_f32, self, other)
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(
            mul_add(self.0, b.0, c.0),
            mul_add(self.1, b.1, c.1),
            mul_add(self.2, b.2, c.2),
            mul_add(self.3, b.3, c.3),
        )
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(
            max(self.0, other.0),
            max(self.1, other.1),
            max(self.2, other.2),
            max(self.3, other.3),
        )
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(
            min(self.0, other.0),
            min(self.1, other.1),
            min(self.2, other.2),
            min(self.3, other.3),
        )
    }

    #[inline(always)]
    fn abs(self) -> Self {
        op!(vabsq_f32, self)
    }

    #[inline(always)]
    fn round(self) -> Self {
        op!(vrndnq_f32, self)
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        Self(
            exp2_of_integer(self.0),
            exp2_of_integer(self.1),
            exp2_of_integer(self.2),
            exp2_of_integer(self.3),
        )
    }

    #[inline(always)]
    fn zip(self, other: Self) -> (Self, Self) {
        // SAFETY: NEON is part of aarch64.
        unsafe {
            (
                Self(
                    vzip1q_f32(self.0, other.0),
                    vzip2q_f32(self.0, other.0),
                    vzip1q_f32(self.1, other.1),
                    vzip2q_f32(self.1, other.1),
                ),
                Self(
                    vzip1q_f32(self.2, other.2),
                    vzip2q_f32(self.2, other.2),
                    vzip1q_f32(self.3, other.3),
                    vzip2q_f32(self.3, other.3),
                ),
            )
        }
    }
}
