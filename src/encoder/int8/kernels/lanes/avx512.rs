//! One 512-bit register.

use std::arch::x86_64::*;

use super::{Lanes, Stage};

/// # Safety
/// The CPU has AVX-512 F, BW, VL, DQ.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn run<S: Stage>(stage: S) {
    // SAFETY: the features of `Avx512` are enabled here.
    unsafe { stage.run::<Avx512>() };
}

#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(__m512);

/// An operation on values: each exists only where AVX-512 does.
macro_rules! op {
    ($expr:expr) => {
        // SAFETY: a value of `Avx512` exists, so the CPU has AVX-512.
        Self(unsafe { $expr })
    };
}

/// One vector out of the halves of a register, lanes `i` and `i + 8` combined, then folded by the
/// rest of the tree.
macro_rules! reduce {
    ($v:expr, $wide:ident, $narrow:ident) => {
        // SAFETY: a value of `Avx512` exists, so the CPU has AVX-512.
        unsafe {
            let low = _mm512_castps512_ps256($v);
            let high = _mm512_extractf32x8_ps::<1>($v);
            super::avx2::reduce_eight!($wide(low, high), $narrow)
        }
    };
}

impl Lanes for Avx512 {
    const TILE_COLUMNS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller has AVX-512 and gives 16 readable f32.
        Self(unsafe { _mm512_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: a value exists, so the CPU has AVX-512; the caller gives 16 writable f32.
        unsafe { _mm512_storeu_ps(p, self.0) };
    }

    #[inline(always)]
    unsafe fn store_codes(self, p: *mut u8) {
        // SAFETY: a value exists, so the CPU has AVX-512; the caller gives 16 writable bytes.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) };
    }

    #[inline(always)]
    unsafe fn store_signed(self, p: *mut i8) {
        // SAFETY: a value exists, so the CPU has AVX-512; the caller gives 16 writable bytes.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) };
    }

    #[inline(always)]
    unsafe fn store_halves(self, high: *mut u8, low: *mut u8) {
        // SAFETY: a value exists, so the CPU has AVX-512; the caller gives 16 writable bytes in each.
        unsafe {
            let codes = _mm512_cvtps_epi32(self.0);
            let above = _mm512_srli_epi32::<8>(codes);
            _mm_storeu_si128(high.cast(), _mm512_cvtepi32_epi8(above));
            _mm_storeu_si128(low.cast(), _mm512_cvtepi32_epi8(codes));
        }
    }

    #[inline(always)]
    unsafe fn store_four_codes(four: [Self; 4], p: *mut u8) {
        // SAFETY: values exist, so the CPU has AVX-512; the caller gives 64 writable bytes.
        unsafe {
            // Both packs saturate, which is what clamps.
            let [a, b, c, d] = integers(four);
            let words = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let bytes = _mm512_packus_epi16(words.0, words.1);
            _mm512_storeu_si512(p.cast(), in_order(bytes));
        }
    }

    #[inline(always)]
    unsafe fn store_four_halves(four: [Self; 4], high: *mut u8, low: *mut u8) {
        // SAFETY: values exist, so the CPU has AVX-512; the caller gives 64 writable bytes in each.
        unsafe {
            let [a, b, c, d] = integers(four);
            let words = [_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d)];
            let [a, b] = words;
            let above = _mm512_packus_epi16(_mm512_srli_epi16::<8>(a), _mm512_srli_epi16::<8>(b));
            let byte = _mm512_set1_epi16(0xff);
            let below = _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte));
            _mm512_storeu_si512(high.cast(), in_order(above));
            _mm512_storeu_si512(low.cast(), in_order(below));
        }
    }

    #[inline(always)]
    unsafe fn store_groups(four: [Self; 4], p: *mut i8) {
        // SAFETY: values exist, so the CPU has AVX-512; the caller gives 64 writable bytes.
        unsafe {
            let low = _mm512_set1_epi32(0xff);
            let [a, b, c, d] = integers(four);
            let a = _mm512_and_si512(a, low);
            let b = _mm512_slli_epi32::<8>(_mm512_and_si512(b, low));
            let c = _mm512_slli_epi32::<16>(_mm512_and_si512(c, low));
            let d = _mm512_slli_epi32::<24>(d);
            let groups = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
            _mm512_storeu_si512(p.cast(), groups);
        }
    }

    #[inline(always)]
    unsafe fn dequantize(acc: *const i32, sums: *const i32, zero: i32) -> Self {
        // SAFETY: the caller has AVX-512 and gives 16 readable i32 in each.
        unsafe {
            let shift =
                _mm512_mullo_epi32(_mm512_loadu_si512(sums.cast()), _mm512_set1_epi32(zero));
            let exact = _mm512_sub_epi32(_mm512_loadu_si512(acc.cast()), shift);
            Self(_mm512_cvtepi32_ps(exact))
        }
    }

    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize, fill: f32) -> Self {
        // SAFETY: the caller has AVX-512; lanes that the mask leaves out are not read.
        Self(unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(n), p) })
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        // SAFETY: a value exists, so the CPU has AVX-512; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(p, first(n), self.0) };
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        op!(_mm512_add_ps(self.0, other.0))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        op!(_mm512_sub_ps(self.0, other.0))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        op!(_mm512_mul_ps(self.0, other.0))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        op!(_mm512_div_ps(self.0, other.0))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        op!(_mm512_fmadd_ps(self.0, b.0, c.0))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        op!(_mm512_max_ps(self.0, other.0))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        op!(_mm512_min_ps(self.0, other.0))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        op!(_mm512_abs_ps(self.0))
    }

    #[inline(always)]
    fn round(self) -> Self {
        op!(_mm512_roundscale_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(self.0))
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        op!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(
            _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127),)
        )))
    }

    #[inline(always)]
    fn scale_by_exp2(self, n: Self) -> Self {
        op!(_mm512_scalef_ps(self.0, n.0))
    }

    #[inline(always)]
    fn reduce_add(self) -> f32 {
        reduce!(self.0, _mm256_add_ps, _mm_add_ps)
    }

    #[inline(always)]
    fn reduce_max(self) -> f32 {
        reduce!(self.0, _mm256_max_ps, _mm_max_ps)
    }

    #[inline(always)]
    fn reduce_min(self) -> f32 {
        reduce!(self.0, _mm256_min_ps, _mm_min_ps)
    }

    #[inline(always)]
    fn zip(self, other: Self) -> (Self, Self) {
        // SAFETY: a value exists, so the CPU has AVX-512.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high =
                _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            (
                Self(_mm512_permutex2var_ps(self.0, low, other.0)),
                Self(_mm512_permutex2var_ps(self.0, high, other.0)),
            )
        }
    }
}

/// Rounded to nearest even.
#[inline(always)]
fn integers([a, b, c, d]: [Avx512; 4]) -> [__m512i; 4] {
    // SAFETY: values exist, so the CPU has AVX-512.
    unsafe {
        [
            _mm512_cvtps_epi32(a.0),
            _mm512_cvtps_epi32(b.0),
            _mm512_cvtps_epi32(c.0),
            _mm512_cvtps_epi32(d.0),
        ]
    }
}

/// Undoes what packing four vectors to bytes does: each 128 bits hold four bytes of every vector.
///
/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn in_order(packed: __m512i) -> __m512i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, packed)
    }
}

/// The mask of the first `n` ≤ 16 lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    debug_assert!(n <= 16, "{n} lanes of 16");
    if n >= 16 { !0 } else { (1 << n) - 1 }
}
