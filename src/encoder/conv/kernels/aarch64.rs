//! The register of aarch64.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vbslq_f32, vcgtq_f32, vcltq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32,
    vst1q_f32,
};

use super::register::Register;

/// NEON, which every aarch64 has.
#[derive(Clone, Copy)]
pub struct Neon(float32x4_t);

impl Register for Neon {
    const WIDTH: usize = 4;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: NEON is part of the baseline.
        Self(unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: NEON is part of the baseline; the caller vouches for the values.
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: NEON is part of the baseline; the caller vouches for the place.
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: NEON is part of the baseline.
        Self(unsafe { vfmaq_f32(self.0, a.0, b.0) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: NEON is part of the baseline.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn prefetch(address: *const f32) {
        // SAFETY: a hint that faults nowhere and changes no register.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{0}]", in(reg) address,
                options(nostack, preserves_flags, readonly));
        }
    }

    /// By comparison and selection: `fmax` and `fmin` treat NaN and the sign of zero differently.
    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // SAFETY: NEON is part of the baseline.
        unsafe {
            let value = vbslq_f32(vcgtq_f32(self.0, low.0), self.0, low.0);
            Self(vbslq_f32(vcltq_f32(value, high.0), value, high.0))
        }
    }
}
