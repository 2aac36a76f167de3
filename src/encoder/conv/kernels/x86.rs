//! Registers of x86-64.

use std::arch::x86_64::{
    __m128, __m256, __m512, _MM_HINT_T1, _mm_add_ps, _mm_loadu_ps, _mm_max_ps, _mm_min_ps,
    _mm_mul_ps, _mm_prefetch, _mm_set1_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_add_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_set1_ps,
    _mm512_storeu_ps,
};

use super::register::Register;

/// `maxps` and `minps` give their second operand when the comparison is false, NaN and equal zeros
/// included: exactly what [`Register::clamp`] asks for.
macro_rules! register {
    ($(#[$doc:meta])* $name:ident($raw:ty), $width:literal, $fused:literal,
     $splat:ident, $load:ident, $store:ident, $add:ident, $max:ident, $min:ident,
     |$sum:ident, $a:ident, $b:ident| $mul_add:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name($raw);

        impl Register for $name {
            const WIDTH: usize = $width;
            const FUSED: bool = $fused;

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: the caller vouches for the CPU.
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller vouches for the CPU and for the values.
                Self(unsafe { $load(from) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller vouches for the CPU and for the place.
                unsafe { $store(to, self.0) }
            }

            #[inline(always)]
            unsafe fn mul_add(self, a: Self, b: Self) -> Self {
                let ($sum, $a, $b) = (self.0, a.0, b.0);
                // SAFETY: the caller vouches for the CPU.
                Self(unsafe { $mul_add })
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller vouches for the CPU.
                Self(unsafe { $add(self.0, other.0) })
            }

            #[inline(always)]
            fn prefetch(address: *const f32) {
                // SAFETY: a hint that faults nowhere; part of SSE, which every x86-64 has.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
            }

            #[inline(always)]
            unsafe fn clamp(self, low: Self, high: Self) -> Self {
                // SAFETY: the caller vouches for the CPU.
                Self(unsafe { $min($max(self.0, low.0), high.0) })
            }
        }
    };
}

register!(
    /// AVX-512F.
    Avx512(__m512), 16, true,
    _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_max_ps, _mm512_min_ps,
    |sum, a, b| _mm512_fmadd_ps(a, b, sum)
);

register!(
    /// AVX2 with FMA.
    Avx2(__m256), 8, true,
    _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_max_ps, _mm256_min_ps,
    |sum, a, b| _mm256_fmadd_ps(a, b, sum)
);

register!(
    /// What every x86-64 has; products and sums round separately.
    Sse2(__m128), 4, false,
    _mm_set1_ps, _mm_loadu_ps, _mm_storeu_ps, _mm_add_ps, _mm_max_ps, _mm_min_ps,
    |sum, a, b| _mm_add_ps(sum, _mm_mul_ps(a, b))
);
