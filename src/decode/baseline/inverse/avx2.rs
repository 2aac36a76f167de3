//! The transform with AVX2: even rows of coefficients and odd ones are multiplied apart
//! (`vpmaddwd`), their sum and their difference are two mirrored rows. The same integers as the
//! specification's.

use std::arch::x86_64::*;

use super::{Block, FIRST_HALF, FIRST_SHIFT, Inverse, LAST_BIAS, LAST_SHIFT, Transformed, basis};

const FIRST: i32 = FIRST_SHIFT.cast_signed();
const LAST: i32 = LAST_SHIFT.cast_signed();

/// AVX2 is there, and BMI2, whose shifts by a variable read codes faster.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// `None` where it is not.
    pub fn detect() -> Option<Self> {
        let is_there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2");
        is_there.then_some(Self(()))
    }

    /// Does it with this transform.
    pub fn run<T: Transformed, I: Inverse>(self, computation: T, transform: I) -> T::Output {
        // SAFETY: `self` says that they are there.
        unsafe { run(computation, transform) }
    }
}

#[target_feature(enable = "avx2,bmi2")]
fn run<T: Transformed, I: Inverse>(computation: T, transform: I) -> T::Output {
    computation.with(transform)
}

/// Four points.
#[derive(Clone, Copy)]
pub struct Half(pub Avx2);

impl Inverse for Half {
    const EDGE: usize = 4;

    #[inline(always)]
    fn inverse(self, block: &Block, out: &mut [u8], stride: usize) {
        // SAFETY: `Avx2` says that it is there.
        unsafe { half(block, out, stride) }
    }
}

/// Eight points.
#[derive(Clone, Copy)]
pub struct Whole(pub Avx2);

impl Inverse for Whole {
    const EDGE: usize = 8;

    #[inline(always)]
    fn inverse(self, block: &Block, out: &mut [u8], stride: usize) {
        // SAFETY: `Avx2` says that it is there.
        unsafe { whole(block, out, stride) }
    }
}

/// Two weights that are multiplied with a pair.
const fn pair(first: i16, second: i16) -> i32 {
    (second as i32) << 16 | (first.cast_unsigned() as i32)
}

#[inline]
#[target_feature(enable = "avx2")]
fn half(block: &Block, out: &mut [u8], stride: usize) {
    const C: [[i16; 4]; 4] = basis::<4>();
    let (pairs, _) = block.0.as_chunks::<8>();
    // SAFETY: each chunk holds the 16 bytes that are read.
    let (even, odd) = unsafe {
        (
            _mm_loadu_si128(pairs[0].as_ptr().cast()),
            _mm_loadu_si128(pairs[1].as_ptr().cast()),
        )
    };
    // Rows 0 and 1 in the two halves.
    let weights = |even: bool| {
        let row = |y: usize| match even {
            true => pair(C[0][y], C[2][y]),
            false => pair(C[1][y], C[3][y]),
        };
        _mm256_setr_m128i(_mm_set1_epi32(row(0)), _mm_set1_epi32(row(1)))
    };
    let even = _mm256_madd_epi16(_mm256_broadcastsi128_si256(even), weights(true));
    let odd = _mm256_madd_epi16(_mm256_broadcastsi128_si256(odd), weights(false));
    let even = _mm256_add_epi32(even, _mm256_set1_epi32(FIRST_HALF));
    // Rows 0, 3 | 1, 2; in each the columns 0, 2, 1, 3.
    let rows = _mm256_packs_epi32(
        _mm256_srai_epi32::<FIRST>(_mm256_add_epi32(even, odd)),
        _mm256_srai_epi32::<FIRST>(_mm256_sub_epi32(even, odd)),
    );
    let rows = _mm256_shufflehi_epi16::<0xd8>(_mm256_shufflelo_epi16::<0xd8>(rows));
    // Of each row the even sum and the odd one.
    let sums = |x: usize| {
        let (even, odd) = (pair(C[0][x], C[2][x]), pair(C[1][x], C[3][x]));
        let weights = _mm256_setr_epi32(even, odd, even, odd, even, odd, even, odd);
        _mm256_madd_epi16(rows, weights)
    };
    let (first, second) = (sums(0), sums(1));
    let bias = _mm256_set1_epi32(LAST_BIAS);
    let near = _mm256_add_epi32(_mm256_hadd_epi32(first, second), bias);
    let far = _mm256_add_epi32(_mm256_hsub_epi32(first, second), bias);
    // Columns 0, 1, 3, 2, each of two rows.
    let columns = _mm256_packs_epi32(
        _mm256_srai_epi32::<LAST>(near),
        _mm256_srai_epi32::<LAST>(far),
    );
    let bytes = _mm256_packus_epi16(columns, columns);
    let order = _mm256_setr_epi8(
        0, 2, 6, 4, 1, 3, 7, 5, -1, -1, -1, -1, -1, -1, -1, -1, //
        0, 2, 6, 4, 1, 3, 7, 5, -1, -1, -1, -1, -1, -1, -1, -1,
    );
    let bytes = _mm256_shuffle_epi8(bytes, order);
    let outer = _mm256_extract_epi64::<0>(bytes).to_le_bytes();
    let inner = _mm256_extract_epi64::<2>(bytes).to_le_bytes();
    let rows = [&outer[..4], &inner[..4], &inner[4..], &outer[4..]];
    for (out, row) in out.chunks_mut(stride).zip(rows) {
        out[..4].copy_from_slice(row);
    }
}

/// The sum and the difference of even and odd parts, of rows or columns `n` and `7 − n`.
#[inline]
#[target_feature(enable = "avx2")]
fn mirrored<const SHIFT: i32>(pairs: [__m256i; 4], n: usize, bias: i32) -> [__m256i; 2] {
    const C: [[i16; 8]; 8] = basis::<8>();
    let product = |pairs: __m256i, k: usize| {
        _mm256_madd_epi16(pairs, _mm256_set1_epi32(pair(C[k][n], C[k + 2][n])))
    };
    let even = _mm256_add_epi32(product(pairs[0], 0), product(pairs[1], 4));
    let odd = _mm256_add_epi32(product(pairs[2], 1), product(pairs[3], 5));
    let even = _mm256_add_epi32(even, _mm256_set1_epi32(bias));
    [
        _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(even, odd)),
        _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(even, odd)),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn whole(block: &Block, out: &mut [u8], stride: usize) {
    let (pairs, _) = block.0.as_chunks::<16>();
    // SAFETY: each chunk holds the 32 bytes that are read.
    let load = |n: usize| unsafe { _mm256_loadu_si256(pairs[n].as_ptr().cast()) };
    let pairs = [load(0), load(1), load(2), load(3)];
    // Of two mirrored rows the columns 0–3 | 4–7, ordered to pairs: 0 and 2 of both, 1 and 3 of both.
    let order = _mm256_setr_epi8(
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, //
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
    );
    let rows = |n: usize| {
        let [near, far] = mirrored::<FIRST>(pairs, n, FIRST_HALF);
        _mm256_shuffle_epi8(_mm256_packs_epi32(near, far), order)
    };
    let rows = [rows(0), rows(1), rows(2), rows(3)];
    // From here on the lanes are rows 0, 7, 1, 6 | 2, 5, 3, 4.
    let low = [
        _mm256_unpacklo_epi64(rows[0], rows[1]),
        _mm256_unpacklo_epi64(rows[2], rows[3]),
    ];
    let high = [
        _mm256_unpackhi_epi64(rows[0], rows[1]),
        _mm256_unpackhi_epi64(rows[2], rows[3]),
    ];
    let pairs = [
        _mm256_permute2x128_si256::<0x20>(low[0], low[1]),
        _mm256_permute2x128_si256::<0x31>(low[0], low[1]),
        _mm256_permute2x128_si256::<0x20>(high[0], high[1]),
        _mm256_permute2x128_si256::<0x31>(high[0], high[1]),
    ];
    let columns = |n: usize| mirrored::<LAST>(pairs, n, LAST_BIAS);
    let [[c0, c7], [c1, c6], [c2, c5], [c3, c4]] = [columns(0), columns(1), columns(2), columns(3)];
    // Four columns of four rows, then four rows of four columns.
    let turn = _mm256_setr_epi8(
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, //
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
    );
    let quarter = |a, b, c, d| {
        let bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        _mm256_shuffle_epi8(bytes, turn)
    };
    let (left, right) = (quarter(c0, c1, c2, c3), quarter(c4, c5, c6, c7));
    let near = _mm256_unpacklo_epi32(left, right);
    let far = _mm256_unpackhi_epi32(left, right);
    let rows = [
        _mm256_extract_epi64::<0>(near),
        _mm256_extract_epi64::<0>(far),
        _mm256_extract_epi64::<2>(near),
        _mm256_extract_epi64::<2>(far),
        _mm256_extract_epi64::<3>(far),
        _mm256_extract_epi64::<3>(near),
        _mm256_extract_epi64::<1>(far),
        _mm256_extract_epi64::<1>(near),
    ];
    for (out, row) in out.chunks_mut(stride).zip(rows) {
        out[..8].copy_from_slice(&row.to_le_bytes());
    }
}
