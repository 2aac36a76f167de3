//! Sixteen f32 lanes, the vector that every float stage is written in.
//!
//! A stage is one generic function over [`Lanes`]. Each instruction set gives the same IEEE 754
//! operations in the same order, so the results are the same bits everywhere:
//!
//! - `mul_add` rounds once (every instruction set here has it; scalar code calls `f32::mul_add`);
//! - `max(a, b)` is `if a > b { a } else { b }` and `min` likewise with `<`: a NaN in either
//!   gives `b`;
//! - `round` is to nearest, ties to even;
//! - a reduction over lanes is a fixed tree: lanes `i` and `i + 8`, then `+ 4`, `+ 2`, `+ 1`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use super::isa::Isa;

/// Lanes of the virtual vector.
pub(super) const LANES: usize = 16;

/// Sixteen f32. A value exists only where its instruction set does (the constructors are unsafe
/// for that reason), so operations on values are safe.
pub(super) trait Lanes: Copy {
    /// Vectors side by side in a tile of six rows that fit the register file.
    const TILE_COLUMNS: usize;
    /// What is subtracted from the codes 0..=255 before they are stored as bytes: 128 where the
    /// kernels of the instruction set multiply signed bytes.
    const CENTRE: u8 = 0;

    /// All lanes `x`.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    unsafe fn splat(x: f32) -> Self;

    /// # Safety
    /// The CPU has the instruction set; `p` is readable for 16 f32, no alignment asked.
    unsafe fn load(p: *const f32) -> Self;

    /// # Safety
    /// `p` is writable for 16 f32, no alignment asked.
    unsafe fn store(self, p: *mut f32);

    /// The lanes rounded to nearest even, less [`Lanes::CENTRE`] (wrapping), as bytes.
    ///
    /// # Safety
    /// `p` is writable for 16 bytes. Every lane is in 0..=255 (else the byte is unspecified).
    unsafe fn store_codes(self, p: *mut u8);

    /// Four vectors as [`Lanes::store_codes`] stores them, one after another. Lanes below 0 give the
    /// code 0, lanes above 255 the code 255.
    ///
    /// # Safety
    /// `p` is writable for 64 bytes. Every lane is in ±2³⁰ (else the byte is unspecified).
    #[inline(always)]
    unsafe fn store_four_codes(four: [Self; 4], p: *mut u8) {
        for (j, lanes) in four.into_iter().enumerate() {
            let lanes = lanes.max(lanes.same(0.0)).min(lanes.same(255.0));
            // SAFETY: the caller gives 64 bytes.
            unsafe { lanes.store_codes(p.add(j * LANES)) };
        }
    }

    /// The lanes rounded to nearest even, as signed bytes.
    ///
    /// # Safety
    /// `p` is writable for 16 bytes. Every lane is in −128..=127 (else the byte is unspecified).
    unsafe fn store_signed(self, p: *mut i8);

    /// The lanes rounded to nearest even, as two bytes: `c / 256` and `c mod 256`, each less
    /// [`Lanes::CENTRE`] (wrapping).
    ///
    /// # Safety
    /// Both are writable for 16 bytes. Every lane is in 0..=65535 (else the bytes are unspecified).
    unsafe fn store_halves(self, high: *mut u8, low: *mut u8);

    /// Four vectors as [`Lanes::store_halves`] stores them, one after another.
    ///
    /// # Safety
    /// As [`Lanes::store_halves`], for 64 bytes.
    #[inline(always)]
    unsafe fn store_four_halves(four: [Self; 4], high: *mut u8, low: *mut u8) {
        for (j, lanes) in four.into_iter().enumerate() {
            // SAFETY: the caller gives 64 bytes in each.
            unsafe { lanes.store_halves(high.add(j * LANES), low.add(j * LANES)) };
        }
    }

    /// Four vectors rounded to nearest even, as signed bytes side by side: byte `4 i + j` is lane `i`
    /// of vector `j`.
    ///
    /// # Safety
    /// `p` is writable for 64 bytes. Every lane is in −128..=127 (else the byte is unspecified).
    unsafe fn store_groups(four: [Self; 4], p: *mut i8);

    /// `(acc[i] − zero · sums[i]) as f32`, the integer part wrapping.
    ///
    /// # Safety
    /// The CPU has the instruction set; both pointers are readable for 16 i32.
    unsafe fn dequantize(acc: *const i32, sums: *const i32, zero: i32) -> Self;

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self · b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    fn abs(self) -> Self;
    fn round(self) -> Self;
    /// 2ⁿ for lanes that hold an integer n in −126..=127, 0 for −127 (else unspecified).
    fn exp2_of_integer(self) -> Self;
    /// self · 2ⁿ, rounded once, for lanes of `n` that hold an integer in −126..=126.
    #[inline(always)]
    fn scale_by_exp2(self, n: Self) -> Self {
        self.mul(n.exp2_of_integer())
    }
    /// Interleaves: `(a0 b0 … a7 b7, a8 b8 … a15 b15)`.
    fn zip(self, other: Self) -> (Self, Self);

    /// All lanes `x`, on the authority of an existing value.
    #[inline(always)]
    fn same(self, x: f32) -> Self {
        // SAFETY: `self` exists, so the CPU has the instruction set.
        unsafe { Self::splat(x) }
    }

    /// The first `n` ≤ 16 lanes from memory, the others `fill`.
    ///
    /// # Safety
    /// The CPU has the instruction set; `p` is readable for `n` f32.
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize, fill: f32) -> Self {
        let mut lanes = [fill; LANES];
        // SAFETY: n ≤ 16, and both sides hold that many f32 (the caller's promise for `p`).
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n.min(LANES));
            Self::load(lanes.as_ptr())
        }
    }

    /// Writes the first `n` ≤ 16 lanes.
    ///
    /// # Safety
    /// `p` is writable for `n` f32.
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        let lanes = self.to_array();
        // SAFETY: n ≤ 16, and both sides hold that many f32 (the caller's promise for `p`).
        unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n.min(LANES)) };
    }

    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array holds 16 f32.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }

    /// Sum over the lanes, by the tree of the module.
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        tree(self.to_array(), |a, b| a + b)
    }

    /// Largest lane, by the tree of the module.
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        tree(self.to_array(), |a, b| if a > b { a } else { b })
    }

    /// Smallest lane, by the tree of the module.
    #[inline(always)]
    fn reduce_min(self) -> f32 {
        tree(self.to_array(), |a, b| if a < b { a } else { b })
    }
}

#[inline(always)]
fn tree(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Transposes sixteen vectors in place: `rows[i].lane(j)` and `rows[j].lane(i)` change places.
#[inline(always)]
pub(super) fn transpose<L: Lanes>(rows: &mut [L; LANES]) {
    // Interleaving rows i and i + 8 moves one bit of the row number into the lane number; four
    // rounds move them all.
    for _ in 0..4 {
        let before = *rows;
        for i in 0..LANES / 2 {
            (rows[2 * i], rows[2 * i + 1]) = before[i].zip(before[i + LANES / 2]);
        }
    }
}

/// A computation written once over [`Lanes`].
pub(super) trait Stage {
    /// Runs it. Implementations are `#[inline(always)]`, so that the body is compiled with the
    /// instruction set of the caller.
    ///
    /// # Safety
    /// The CPU has the instruction set of `L`.
    unsafe fn run<L: Lanes>(self);
}

/// Runs a stage on the lanes of an instruction set.
///
/// # Safety
/// The CPU supports `isa`.
#[inline]
pub(super) unsafe fn run_stage<S: Stage>(isa: Isa, stage: S) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: both instruction sets include AVX-512.
        Isa::Amx | Isa::Avx512Vnni => unsafe { avx512::run(stage) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: both instruction sets include AVX2 and FMA.
        Isa::AvxVnni | Isa::Avx2 => unsafe { avx2::run(stage) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: NEON is part of aarch64.
        Isa::NeonI8mm | Isa::NeonDot | Isa::Neon => unsafe { stage.run::<neon::Neon>() },
        // SAFETY: portable code.
        _ => unsafe { stage.run::<scalar::Scalar>() },
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use self::{avx2::Avx2, avx512::Avx512};
#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use scalar::Scalar;
