//! Both passes with AVX2: products of pairs (`vpmaddwd`) of two rows, or of two columns. Integers, so the
//! same sums.

use std::arch::x86_64::*;

use super::{AT_ONCE, HALF, LANES, Rows, SHIFT, ToValues, UNIT, Window};

/// AVX2 is there.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// `None` where it is not.
    pub fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// See [`Rows::row`].
    pub fn row(self, rows: &mut Rows<'_>, position: usize, out: &mut [f32]) {
        // SAFETY: `self` says that AVX2 is there.
        unsafe { row(rows, position, out) }
    }

    /// See [`ToValues::row`].
    pub fn to_values(self, to_values: ToValues, codes: &[Vec<f32>], out: &mut [f32]) {
        // SAFETY: `self` says that AVX2 is there.
        unsafe { values(to_values, codes, out) }
    }
}

#[target_feature(enable = "avx2")]
fn values(to_values: ToValues, codes: &[Vec<f32>], out: &mut [f32]) {
    to_values.values(codes, out);
}

#[target_feature(enable = "avx2")]
fn row(rows: &mut Rows<'_>, position: usize, out: &mut [f32]) {
    rows.down(position, |window, weights, sums| {
        column_sums(window, weights, sums);
    });
    rows.along(out, |samples, weights| codes(samples, weights));
}

/// See [`super::column_sums`].
#[inline]
#[target_feature(enable = "avx2")]
fn column_sums(window: Window<'_>, weights: &[i16], out: &mut [i16; LANES]) {
    match window.all(weights.len()) {
        // SAFETY: sixteen samples of that many rows lie there.
        Some((first, stride)) => add_rows(weights, out, |row| unsafe {
            _mm_loadu_si128(first.add(row * stride).cast())
        }),
        None => last_column_sums(window, weights, out),
    }
}

/// Of columns at the end, some of which are not there.
#[cold]
#[target_feature(enable = "avx2")]
fn last_column_sums(window: Window<'_>, weights: &[i16], out: &mut [i16; LANES]) {
    add_rows(weights, out, |row| {
        let samples = window.row(row);
        // SAFETY: the array holds the 16 bytes that are read.
        unsafe { _mm_loadu_si128(samples.as_ptr().cast()) }
    });
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_rows(weights: &[i16], out: &mut [i16; LANES], load: impl Fn(usize) -> __m128i) {
    let mut low = _mm256_set1_epi32(HALF);
    let mut high = low;
    let mut add = |first: __m128i, second: __m128i, weights: [i16; 2]| {
        let [first_weight, second_weight] = weights.map(i32::from);
        let weights = _mm256_set1_epi32(second_weight << 16 | first_weight & 0xffff);
        let product = |pairs| _mm256_madd_epi16(_mm256_cvtepu8_epi16(pairs), weights);
        low = _mm256_add_epi32(low, product(_mm_unpacklo_epi8(first, second)));
        high = _mm256_add_epi32(high, product(_mm_unpackhi_epi8(first, second)));
    };
    let (pairs, last) = weights.as_chunks::<2>();
    for (n, pair) in pairs.iter().enumerate() {
        add(load(2 * n), load(2 * n + 1), *pair);
    }
    if let [weight] = last {
        add(load(2 * pairs.len()), _mm_setzero_si128(), [*weight, 0]);
    }
    const TO_BETWEEN: i32 = SHIFT.cast_signed();
    let sums = _mm256_packs_epi32(
        _mm256_srai_epi32::<TO_BETWEEN>(low),
        _mm256_srai_epi32::<TO_BETWEEN>(high),
    );
    let sums = _mm256_permute4x64_epi64::<0xd8>(sums);
    // SAFETY: the array holds the 32 bytes that are written.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) };
}

/// Codes from four times [`super::dot`], of lengths that are multiples of [`super::STEP`].
#[inline]
#[target_feature(enable = "avx2")]
fn codes(samples: [&[i16]; AT_ONCE], weights: [&[i16]; AT_ONCE]) -> [f32; AT_ONCE] {
    let sum = |n: usize| {
        let (samples, _) = samples[n].as_chunks::<8>();
        let (weights, _) = weights[n].as_chunks::<8>();
        let mut sum = _mm_setzero_si128();
        for (samples, weights) in samples.iter().zip(weights) {
            // SAFETY: both arrays hold the 16 bytes that are read.
            let product = unsafe {
                _mm_madd_epi16(
                    _mm_loadu_si128(samples.as_ptr().cast()),
                    _mm_loadu_si128(weights.as_ptr().cast()),
                )
            };
            sum = _mm_add_epi32(sum, product);
        }
        sum
    };
    let sums = _mm_hadd_epi32(
        _mm_hadd_epi32(sum(0), sum(1)),
        _mm_hadd_epi32(sum(2), sum(3)),
    );
    let codes = _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(UNIT));
    let mut out = [0.0; AT_ONCE];
    // SAFETY: the array holds the 16 bytes that are written.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), codes) };
    out
}
