//! Two 256-bit registers.

use std::arch::x86_64::*;

use super::{Lanes, Stage};

/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<S: Stage>(stage: S) {
    // SAFETY: the features of `Avx2` are enabled here.
    unsafe { stage.run::<Avx2>() };
}

#[derive(Clone, Copy)]
pub(in super::super) struct Avx2(__m256, __m256);

/// An operation on both halves of values: each exists only where AVX2 and FMA do.
macro_rules! op {
    ($f:ident $(::<$c:tt>)?, $($arg:expr),+) => {
        // SAFETY: a value of `Avx2` exists, so the CPU has AVX2 and FMA.
        unsafe { Self($f$(::<$c>)?($($arg.0),+), $f$(::<$c>)?($($arg.1),+)) }
    };
}

/// Folds eight lanes by the rest of the module's tree, lanes `i` and `i + 4` first. An unsafe
/// expression: the CPU has AVX.
macro_rules! reduce_eight {
    ($v:expr, $narrow:ident) => {{
        let v = $v;
        let v = $narrow(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = $narrow(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32($narrow(v, _mm_movehdup_ps(v)))
    }};
}
pub(super) use reduce_eight;

impl Lanes for Avx2 {
    const TILE_COLUMNS: usize = 1;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller has AVX2 and gives 16 readable f32.
        unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: a value exists, so the CPU has AVX2; the caller gives 16 writable f32.
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn store_codes(self, p: *mut u8) {
        // SAFETY: a value exists, so the CPU has AVX2; the caller gives 16 writable bytes.
        unsafe {
            // Packing works within 128-bit lanes: 0–3 8–11 | 4–7 12–15, put right by the permute.
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packus_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(p.cast(), bytes);
        }
    }

    #[inline(always)]
    unsafe fn store_signed(self, p: *mut i8) {
        // SAFETY: as in `store_codes`.
        unsafe {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packs_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(p.cast(), bytes);
        }
    }

    #[inline(always)]
    unsafe fn store_halves(self, high: *mut u8, low: *mut u8) {
        // SAFETY: a value exists, so the CPU has AVX2; the caller gives 16 writable bytes in each.
        unsafe {
            let words = _mm256_packus_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let above = _mm256_srli_epi16::<8>(words);
            let below = _mm256_and_si256(words, _mm256_set1_epi16(0xff));
            for (half, p) in [(above, high), (below, low)] {
                let bytes = _mm_packus_epi16(
                    _mm256_castsi256_si128(half),
                    _mm256_extracti128_si256::<1>(half),
                );
                _mm_storeu_si128(p.cast(), bytes);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_groups(four: [Self; 4], p: *mut i8) {
        let [a, b, c, d] = four;
        // SAFETY: values exist, so the CPU has AVX2; the caller gives 64 writable bytes.
        unsafe {
            _mm256_storeu_si256(p.cast(), groups(a.0, b.0, c.0, d.0));
            _mm256_storeu_si256(p.add(32).cast(), groups(a.1, b.1, c.1, d.1));
        }
    }

    #[inline(always)]
    unsafe fn dequantize(acc: *const i32, sums: *const i32, zero: i32) -> Self {
        // SAFETY: the caller has AVX2 and gives 16 readable i32 in each.
        unsafe {
            Self(
                dequantize_eight(acc, sums, zero),
                dequantize_eight(acc.add(8), sums.add(8), zero),
            )
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        op!(_mm256_add_ps, self, other)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        op!(_mm256_sub_ps, self, other)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        op!(_mm256_mul_ps, self, other)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        op!(_mm256_div_ps, self, other)
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        op!(_mm256_fmadd_ps, self, b, c)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        op!(_mm256_max_ps, self, other)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        op!(_mm256_min_ps, self, other)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        let sign = self.same(-0.0);
        op!(_mm256_andnot_ps, sign, self)
    }

    #[inline(always)]
    fn round(self) -> Self {
        op!(
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>,
            self
        )
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        unsafe {
            let half = |n: __m256| {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            };
            Self(half(self.0), half(self.1))
        }
    }

    #[inline(always)]
    fn reduce_add(self) -> f32 {
        // SAFETY: a value exists, so the CPU has AVX2.
        unsafe { reduce_eight!(_mm256_add_ps(self.0, self.1), _mm_add_ps) }
    }

    #[inline(always)]
    fn reduce_max(self) -> f32 {
        // SAFETY: a value exists, so the CPU has AVX2.
        unsafe { reduce_eight!(_mm256_max_ps(self.0, self.1), _mm_max_ps) }
    }

    #[inline(always)]
    fn reduce_min(self) -> f32 {
        // SAFETY: a value exists, so the CPU has AVX2.
        unsafe { reduce_eight!(_mm256_min_ps(self.0, self.1), _mm_min_ps) }
    }

    #[inline(always)]
    fn zip(self, other: Self) -> (Self, Self) {
        // SAFETY: a value exists, so the CPU has AVX2.
        unsafe {
            let half = |a: __m256, b: __m256| {
                let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                Self(
                    _mm256_permute2f128_ps::<0x20>(low, high),
                    _mm256_permute2f128_ps::<0x31>(low, high),
                )
            };
            (half(self.0, other.0), half(self.1, other.1))
        }
    }
}

/// Byte `4 i + j` is lane `i` of vector `j`, rounded to nearest even.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn groups(a: __m256, b: __m256, c: __m256, d: __m256) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let low = _mm256_set1_epi32(0xff);
        let a = _mm256_and_si256(_mm256_cvtps_epi32(a), low);
        let b = _mm256_slli_epi32::<8>(_mm256_and_si256(_mm256_cvtps_epi32(b), low));
        let c = _mm256_slli_epi32::<16>(_mm256_and_si256(_mm256_cvtps_epi32(c), low));
        let d = _mm256_slli_epi32::<24>(_mm256_cvtps_epi32(d));
        _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d))
    }
}

/// Half of [`Lanes::dequantize`].
///
/// # Safety
/// The CPU has AVX2; both pointers are readable for 8 i32.
#[inline(always)]
unsafe fn dequantize_eight(acc: *const i32, sums: *const i32, zero: i32) -> __m256 {
    // SAFETY: as the caller promises.
    unsafe {
        let sums = _mm256_loadu_si256(sums.cast());
        let shift = _mm256_mullo_epi32(sums, _mm256_set1_epi32(zero));
        let exact = _mm256_sub_epi32(_mm256_loadu_si256(acc.cast()), shift);
        _mm256_cvtepi32_ps(exact)
    }
}
