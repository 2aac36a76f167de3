//! What the kernels ask of a vector register, and the portable one.

use super::LANES;

/// A register of [`Register::WIDTH`] f32.
///
/// Every implementation rounds as the portable one does, so that a kernel written over this trait
/// gives the same bits with each of them; [`Register::FUSED`] names the exception.
pub trait Register: Copy {
    /// Values held; divides [`LANES`].
    const WIDTH: usize;

    /// Whether [`Register::mul_add`] rounds once. Without fused multiply–add in hardware (x86 before
    /// 2013, small Atoms) it rounds twice: emulation would be ten times slower.
    const FUSED: bool;

    /// All lanes hold `value`.
    ///
    /// # Safety
    /// The CPU has the instructions the implementation is named after.
    unsafe fn splat(value: f32) -> Self;

    /// Lanes from `WIDTH` consecutive values; no alignment is required.
    ///
    /// # Safety
    /// As [`Register::splat`]; `from` is valid for reading `WIDTH` values.
    unsafe fn load(from: *const f32) -> Self;

    /// Lanes to `WIDTH` consecutive values; no alignment is required.
    ///
    /// # Safety
    /// As [`Register::splat`]; `to` is valid for writing `WIDTH` values.
    unsafe fn store(self, to: *mut f32);

    /// `self + a · b`.
    ///
    /// # Safety
    /// As [`Register::splat`].
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;

    /// `self + other`.
    ///
    /// # Safety
    /// As [`Register::splat`].
    unsafe fn add(self, other: Self) -> Self;

    /// Asks for the cache line of `address`, which may be any, in the second-level cache.
    fn prefetch(address: *const f32);

    /// `self > low ? self : low`, then `that < high ? that : high`. NaN becomes `low`.
    ///
    /// # Safety
    /// As [`Register::splat`].
    unsafe fn clamp(self, low: Self, high: Self) -> Self;
}

/// The specification: one lane after the other.
#[derive(Clone, Copy)]
pub struct Portable([f32; LANES]);

impl Register for Portable {
    const WIDTH: usize = LANES;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for LANES values; an array of f32 has their alignment.
        Self(unsafe { from.cast::<[f32; LANES]>().read() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for LANES values; an array of f32 has their alignment.
        unsafe { to.cast::<[f32; LANES]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| a.0[i].mul_add(b.0[i], self.0[i])))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        Self(std::array::from_fn(|i| {
            let value = self.0[i];
            let value = if value > low.0[i] { value } else { low.0[i] };
            if value < high.0[i] { value } else { high.0[i] }
        }))
    }
}
