//! Scores, probabilities and the mix of the values, for some queries of a head.

use std::f32::consts::LOG2_E;

use super::super::gemm::{MOST_ROWS, Microkernel, Sums, Tile};
use super::super::lanes::{LANES, Lanes};
use super::super::layout::{GROUP, PANEL, padded_k};
use super::super::math::exp2;
use super::super::norm::fold;
use super::super::rows::{quantize_row, stride};
use super::int8::Head;

/// Steps of a probability: codes are 0..=65535, in two bytes.
const STEPS: f32 = 65_535.0;
impl Head<'_> {
    /// Scores of `count` queries from `first`, turned into probabilities.
    ///
    /// # Safety
    /// The CPU has the instruction set; keys, values and mask are packed.
    #[inline(always)]
    pub(super) unsafe fn scores<M: Microkernel>(
        &mut self,
        kernel: &mut M,
        first: usize,
        count: usize,
    ) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let (padded, depth) = (padded_k(tokens), padded_k(dim));
        let mut row_scales = [0.0; MOST_ROWS];
        let mut row_zeros = [0; MOST_ROWS];
        for i in 0..count {
            let q = self.row(first + i, 0).as_ptr();
            let codes = self.scratch.queries[i * stride(depth)..].as_mut_ptr();
            // SAFETY: the caller has the instruction set; the row holds `dim` values, the codes
            // `dim` rounded up to 64.
            let (scale, zero) = unsafe { quantize_row::<M::Lanes>(q, dim, codes) };
            (row_scales[i], row_zeros[i]) = (scale * (self.scale * LOG2_E), zero);
        }
        let mut sums = Sums::new();
        let sums = sums.as_mut_ptr();
        for panel in 0..padded / PANEL {
            let weights = self.scratch.keys[panel * PANEL * depth..].as_ptr();
            let tile = Tile {
                rows: self.scratch.queries.as_ptr(),
                stride: stride(depth),
                count,
                panel: weights,
                groups: depth / GROUP,
                sums,
                ahead: weights,
                ahead_len: 0,
                out: std::ptr::null(),
                out_stride: 0,
            };
            let end = tokens.min((panel + 1) * PANEL);
            let vectors = (end - panel * PANEL).div_ceil(LANES);
            // SAFETY: the caller has the instruction set; queries and keys have `depth` values.
            unsafe { kernel.narrow_tile(tile, vectors) };
            for at in (panel * PANEL..end).step_by(LANES) {
                let scratch = &mut *self.scratch;
                let key_sums = scratch.key_sums[at..at + LANES].as_ptr();
                let scores = &mut scratch.scores[at..(count - 1) * padded + at + LANES];
                // SAFETY: the caller has the instruction set; everything holds sixteen from `at`, the
                // scores in each of `count` rows.
                unsafe {
                    let mask = M::Lanes::load(scratch.mask[at..at + LANES].as_ptr());
                    let key_scale = M::Lanes::load(scratch.key_scales[at..at + LANES].as_ptr());
                    for i in 0..count {
                        let zero = row_zeros[i] - i32::from(M::Lanes::CENTRE);
                        let row = sums.add(i * PANEL + at % PANEL);
                        let exact = M::Lanes::dequantize(row, key_sums, zero);
                        let factor = key_scale.mul(mask.same(row_scales[i]));
                        let out = scores.as_mut_ptr().add(i * padded);
                        exact.mul_add(factor, mask).store(out);
                    }
                }
            }
        }
    }

    /// Softmax of the scores, and the mix of the values.
    ///
    /// # Safety
    /// The CPU has the instruction set; the scores of these queries are there.
    #[inline(always)]
    pub(super) unsafe fn mix<M: Microkernel>(
        &mut self,
        kernel: &mut M,
        first: usize,
        count: usize,
    ) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let (padded, width) = (padded_k(tokens), padded_k(dim));
        let step = stride(padded);
        let groups = tokens
            .div_ceil(GROUP)
            .next_multiple_of(M::GROUPS.max(LANES / GROUP));
        let mut factors = [0.0; MOST_ROWS];
        for i in 0..count {
            let columns = tokens.next_multiple_of(LANES);
            let scores = &mut self.scratch.scores[i * padded..][..columns];
            if self.causal {
                scores[first + i + 1..].fill(f32::NEG_INFINITY);
            }
            let codes = &mut self.scratch.probabilities[2 * i * step..2 * (i + 1) * step];
            // SAFETY: the caller has the instruction set.
            factors[i] = 1.0 / unsafe { probabilities::<M::Lanes>(scores, codes, step) };
        }
        let mut sums = Sums::new();
        let sums = sums.as_mut_ptr();
        for panel in 0..width / PANEL {
            let weights = self.scratch.values[panel * PANEL * padded..].as_ptr();
            let mut row = 0;
            while row < count {
                let rows = (count - row).min((M::ROWS / 2).max(1));
                let tile = Tile {
                    rows: self.scratch.probabilities[2 * row * step..].as_ptr(),
                    stride: step,
                    count: 2 * rows,
                    panel: weights,
                    groups,
                    sums,
                    ahead: weights,
                    ahead_len: 0,
                    out: std::ptr::null(),
                    out_stride: 0,
                };
                // SAFETY: the caller has the instruction set; both sides have `padded` values, and
                // `2 · rows` is at most the kernel's.
                unsafe { kernel.tile(tile) };
                for at in (panel * PANEL..dim.min((panel + 1) * PANEL)).step_by(LANES) {
                    let n = (dim - at).min(LANES);
                    // SAFETY: the caller has the instruction set; scales and sums hold sixteen from
                    // `at`; this part of the output belongs to this head and these queries.
                    unsafe {
                        let scale = M::Lanes::load(self.scratch.value_scales[at..].as_ptr());
                        for (i, &factor) in factors.iter().enumerate().skip(row).take(rows) {
                            let value_sums = self.scratch.value_sums[at..].as_ptr();
                            let exact = |byte: usize| {
                                M::Lanes::dequantize(
                                    sums.add((2 * (i - row) + byte) * PANEL + at % PANEL),
                                    value_sums,
                                    -i32::from(M::Lanes::CENTRE),
                                )
                            };
                            let sum = exact(0).mul_add(scale.same(256.0), exact(1));
                            let value = sum.mul(scale).mul(scale.same(factor));
                            let place = (self.out_row + first + i) * self.shape.width;
                            let out = self.out.part(place + self.column + at, n);
                            if n == LANES {
                                value.store(out);
                            } else {
                                value.store_partial(out, n);
                            }
                        }
                    }
                }
                row += rows;
            }
        }
    }
}

/// Softmax of one query in codes of 16 bits: high bytes to the first `step` bytes of `codes`, low
/// bytes to the next. Returns the sum of the codes.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn probabilities<L: Lanes>(scores: &[f32], codes: &mut [u8], step: usize) -> f32 {
    let n = scores.len();
    let (high, low) = codes.split_at_mut(step);
    assert!(n.is_multiple_of(LANES) && n <= high.len() && n <= low.len());
    // SAFETY: the caller has the instruction set; all three hold `n` values, whole vectors.
    unsafe {
        let lowest = L::splat(f32::NEG_INFINITY);
        let [a, b, c, d] = fold::<L>(scores.as_ptr(), n, 0.0, lowest, |m, s| s.max(m));
        let max = lowest.same(a.max(b).max(c.max(d)).reduce_max());
        let zero = lowest.same(0.0);
        let mut sums = [zero; 4];
        let mut at = 0;
        while at + 4 * LANES <= n {
            let four = [
                code(&scores[at..], max),
                code(&scores[at + LANES..], max),
                code(&scores[at + 2 * LANES..], max),
                code(&scores[at + 3 * LANES..], max),
            ];
            L::store_four_halves(four, high[at..].as_mut_ptr(), low[at..].as_mut_ptr());
            for (sum, code) in sums.iter_mut().zip(four) {
                *sum = sum.add(code);
            }
            at += 4 * LANES;
        }
        while at < n {
            let code = code(&scores[at..], max);
            code.store_halves(high[at..].as_mut_ptr(), low[at..].as_mut_ptr());
            sums[0] = sums[0].add(code);
            at += LANES;
        }
        let [a, b, c, d] = sums;
        a.add(b).add(c.add(d)).reduce_add()
    }
}

/// The codes of sixteen probabilities.
///
/// # Safety
/// The CPU has the instruction set.
///
/// # Panics
/// When there are fewer scores.
#[inline(always)]
unsafe fn code<L: Lanes>(scores: &[f32], max: L) -> L {
    // SAFETY: the caller has the instruction set; there are sixteen scores.
    let power = unsafe { L::load(scores[..LANES].as_ptr()) }.sub(max);
    let power = power.same(-126.0).max(power);
    exp2(power).mul(power.same(STEPS)).round()
}
