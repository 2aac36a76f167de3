//! Both passes with AVX2.
//!
//! A weight has 23 bits with its sign, a sample 8: too wide for the 16-bit multiply-add of pairs
//! (`vpmaddwd`), which is four times as fast as 32-bit products. So a weight is split into
//! `high·2¹² + low` with `0 ≤ low < 2¹²`, both halves are summed apart, and `Σ s·w = (Σ s·high)·2¹²
//! + Σ s·low` is the same integer. Sums wrap modulo 2³²; the result fits, so it is exact.

use std::arch::x86_64::*;

use super::{HALF, PRECISION_BITS, Source, Taps, clip, vertical_pass};

/// Bits of the low half.
const LOW_BITS: u32 = 12;
const _: () = assert!(2 << (PRECISION_BITS - LOW_BITS) <= i16::MAX as u32);

/// Pixels that one step takes: 12 of 16 bytes.
const STEP: usize = 4;

/// Rows that share each load of weights.
const ROWS: usize = 4;

/// See [`super::resample`].
#[target_feature(enable = "avx2")]
pub(super) fn resample(source: Source<'_>, horizontal: &Taps, vertical: &Taps) -> Vec<u8> {
    let rows = vertical.span();
    let squeezed = horizontal_pass(source, &rows, horizontal);
    vertical_pass(&squeezed, rows.start, horizontal.bounds.len() * 3, vertical)
}

/// Weights of four pixels, high and low halves, each twice: for red and green, and for blue.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Split {
    high: [i16; 8],
    low: [i16; 8],
}

/// The weights of every output position, padded with zeros to whole steps.
fn split(taps: &Taps) -> (Vec<Split>, usize) {
    let steps = taps.stride.div_ceil(STEP);
    let mut all = Vec::with_capacity(taps.bounds.len() * steps);
    for position in 0..taps.bounds.len() {
        let (_, weights) = taps.get(position);
        for step in 0..steps {
            let weight = |n: usize| weights.get(step * STEP + n % STEP).copied().unwrap_or(0);
            let half = |value: i32| i16::try_from(value).expect("a weight has 23 bits");
            all.push(Split {
                high: std::array::from_fn(|n| half(weight(n) >> LOW_BITS)),
                low: std::array::from_fn(|n| half(weight(n) & ((1 << LOW_BITS) - 1))),
            });
        }
    }
    (all, steps)
}

/// See [`super::horizontal_pass`].
#[target_feature(enable = "avx2")]
fn horizontal_pass(source: Source<'_>, rows: &std::ops::Range<usize>, taps: &Taps) -> Vec<u8> {
    let width = taps.bounds.len() * 3;
    let (weights, steps) = split(taps);
    // The last row may end at the end of the buffer, where whole steps would read past it.
    let columns = taps.span();
    let padded = (columns.len() + (steps + 1) * STEP) * 3;
    let mut lines = vec![0u8; ROWS * padded];
    let mut out = vec![0u8; rows.len() * width];
    for (block, target) in out.chunks_mut(width * ROWS).enumerate() {
        let count = target.len() / width;
        for (n, line) in lines.chunks_exact_mut(padded).take(count).enumerate() {
            let row = source.row(rows.start + block * ROWS + n, &columns);
            line[..row.len()].copy_from_slice(row);
        }
        for position in 0..taps.bounds.len() {
            let (start, _) = taps.get(position);
            let at = (start - columns.start) * 3;
            let weights = &weights[position * steps..(position + 1) * steps];
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for (step, weight) in weights.iter().enumerate() {
                // SAFETY: both arrays hold the 16 bytes that are read.
                let (high, low) = unsafe {
                    (
                        _mm_loadu_si128(weight.high.as_ptr().cast()),
                        _mm_loadu_si128(weight.low.as_ptr().cast()),
                    )
                };
                let high = _mm256_broadcastsi128_si256(high);
                let low = _mm256_broadcastsi128_si256(low);
                for (n, sum) in sums.iter_mut().enumerate() {
                    let begin = n * padded + at + step * STEP * 3;
                    let pixels = planes(lines[begin..begin + 16].try_into().expect("16 bytes"));
                    sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(pixels, high));
                    sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(pixels, low));
                }
            }
            for (n, sum) in sums.iter().take(count).enumerate() {
                let pixel = &mut target[n * width + position * 3..][..3];
                pixel.copy_from_slice(&total(sum[0], sum[1]));
            }
        }
    }
    out
}

/// Four RGB pixels as 16-bit numbers: red ×4, green ×4 | blue ×4, zero ×4.
#[target_feature(enable = "avx2")]
fn planes(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: the array holds the 16 bytes that are read.
    let pixels = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    let order = _mm256_setr_epi8(
        0, -1, 3, -1, 6, -1, 9, -1, 1, -1, 4, -1, 7, -1, 10, -1, //
        2, -1, 5, -1, 8, -1, 11, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    );
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(pixels), order)
}

/// Joins the halves and the pairs, rounds and clips: red, green, blue.
#[target_feature(enable = "avx2")]
fn total(high: __m256i, low: __m256i) -> [u8; 3] {
    const SHIFT: i32 = LOW_BITS.cast_signed();
    let sum = _mm256_add_epi32(_mm256_slli_epi32::<SHIFT>(high), low);
    let sum = _mm256_hadd_epi32(sum, sum);
    [
        clip(HALF.wrapping_add(_mm256_extract_epi32::<0>(sum))),
        clip(HALF.wrapping_add(_mm256_extract_epi32::<1>(sum))),
        clip(HALF.wrapping_add(_mm256_extract_epi32::<4>(sum))),
    ]
}
