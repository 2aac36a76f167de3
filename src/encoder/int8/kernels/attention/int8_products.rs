//! Scores, weights and the mix of the values, for some queries of a head.

use std::f32::consts::LOG2_E;

use super::super::gemm::{MOST_ROWS, Microkernel, Sums, Tile, prefetch_for_writing};
use super::super::lanes::{LANES, Lanes};
use super::super::layout::{GROUP, PANEL, padded_k};
use super::super::math::weight_code;
use super::super::rows::{quantize_row, stride};
use super::int8::Head;

/// Column vectors of a panel.
const VECTORS: usize = PANEL / LANES;

/// Scale and zero point of the quantized queries of a tile.
#[derive(Clone, Copy)]
struct Query {
    scale: f32,
    zero: i32,
}

impl Head<'_> {
    /// Scores of `count` queries from `first`, and the largest of each.
    ///
    /// # Safety
    /// The CPU has the instruction set; keys and values are packed.
    #[inline(always)]
    pub(super) unsafe fn scores<M: Microkernel>(
        &mut self,
        kernel: &mut M,
        first: usize,
        count: usize,
    ) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let depth = padded_k(dim);
        let mut queries = [Query {
            scale: 0.0,
            zero: 0,
        }; MOST_ROWS];
        let queries = &mut queries[..count];
        for (i, query) in queries.iter_mut().enumerate() {
            let q = self.rows.row(first + i, 0).as_ptr();
            let codes = self.scratch.queries[i * stride(depth)..].as_mut_ptr();
            // SAFETY: the caller has the instruction set; the row holds `dim` values, the codes
            // `dim` rounded up to 64.
            let (scale, zero) = unsafe { quantize_row::<M::Lanes>(q, dim, codes) };
            query.scale = scale * (self.scale * LOG2_E);
            query.zero = zero - i32::from(M::Lanes::CENTRE);
        }
        self.scratch.largest[..count * LANES].fill(f32::NEG_INFINITY);
        let mut sums = Sums::new();
        let sums = sums.as_mut_ptr();
        for start in (0..tokens).step_by(PANEL) {
            let panel = self.scratch.keys[start * depth..].as_ptr();
            let tile = Tile {
                rows: self.scratch.queries.as_ptr(),
                stride: stride(depth),
                count,
                panel,
                groups: depth / GROUP,
                sums,
                ahead: panel,
                ahead_len: 0,
                out: std::ptr::null(),
                out_stride: 0,
            };
            let vectors = (tokens - start).min(PANEL).div_ceil(LANES);
            // SAFETY: the caller has the instruction set; queries and keys have `depth` values; the
            // sums hold `count` rows of a panel.
            unsafe {
                kernel.narrow_tile(tile, vectors);
                if vectors == VECTORS {
                    self.finish_scores::<M::Lanes, VECTORS>(sums, start, queries);
                } else {
                    for vector in 0..vectors {
                        let (at, sums) = (start + vector * LANES, sums.add(vector * LANES));
                        self.finish_scores::<M::Lanes, 1>(sums, at, queries);
                    }
                }
            }
        }
    }

    /// Scores from the sums of `V` vectors of keys from `at` on.
    ///
    /// # Safety
    /// The CPU has the instruction set; `sums` holds these columns of a row of 64 for each query.
    #[inline(always)]
    unsafe fn finish_scores<L: Lanes, const V: usize>(
        &mut self,
        sums: *const i32,
        at: usize,
        queries: &[Query],
    ) {
        let padded = padded_k(self.shape.tokens);
        let scratch = &mut *self.scratch;
        let key_sums = &scratch.key_sums[at..at + V * LANES];
        let key_scales = &scratch.key_scales[at..at + V * LANES];
        let offsets = &scratch.offsets[at..at + V * LANES];
        // SAFETY: the caller has the instruction set; everything holds `V` vectors.
        unsafe {
            let key_scales: [L; V] = load_vectors(key_scales);
            let offsets: [L; V] = load_vectors(offsets);
            for (i, query) in queries.iter().enumerate() {
                let out = &mut scratch.scores[i * padded + at..][..V * LANES];
                let largest = &mut scratch.largest[i * LANES..(i + 1) * LANES];
                let mut most = L::load(largest.as_ptr());
                for j in 0..V {
                    let (row, key_sums) = (sums.add(i * PANEL + j * LANES), &key_sums[j * LANES..]);
                    let exact = L::dequantize(row, key_sums.as_ptr(), query.zero);
                    let factor = key_scales[j].mul(most.same(query.scale));
                    let score = exact.mul_add(factor, offsets[j]);
                    score.store(out[j * LANES..].as_mut_ptr());
                    most = score.max(most);
                }
                most.store(largest.as_mut_ptr());
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
        self.prefetch_output(first, count);
        let mut factors = [0.0; MOST_ROWS];
        for (i, factor) in factors.iter_mut().enumerate().take(count) {
            // SAFETY: the caller has the instruction set.
            *factor = self.value_scale / unsafe { self.weights::<M::Lanes>(i) };
        }
        let mut sums = Sums::new();
        let sums = sums.as_mut_ptr();
        for panel in 0..width / PANEL {
            let weights = self.scratch.values[panel * PANEL * padded..].as_ptr();
            let mut row = 0;
            while row < count {
                let rows = (count - row).min(M::PAIRS);
                let tile = Tile {
                    rows: self.scratch.weights[2 * row * step..].as_ptr(),
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
                // `rows` is at most what the kernel takes.
                unsafe { kernel.pairs(tile) };
                let start = panel * PANEL;
                let factors = &factors[row..row + rows];
                let width = (dim - start).min(PANEL);
                // SAFETY: the caller has the instruction set; the sums hold two rows for each query.
                unsafe {
                    if width == PANEL {
                        let first = first + row;
                        self.finish_mix::<M::Lanes, VECTORS>(sums, start, LANES, first, factors);
                    } else {
                        for at in (start..start + width).step_by(LANES) {
                            let (n, first) = ((dim - at).min(LANES), first + row);
                            let sums = sums.add(at - start);
                            self.finish_mix::<M::Lanes, 1>(sums, at, n, first, factors);
                        }
                    }
                }
                row += rows;
            }
        }
    }

    /// `V` vectors of the output from column `at` of the head, the last `width` wide, for as many
    /// queries from `first` as there are factors.
    ///
    /// # Safety
    /// The CPU has the instruction set; `sums` holds these columns of two rows of 64 for each query;
    /// this part of the output belongs to this head and these queries.
    #[inline(always)]
    unsafe fn finish_mix<L: Lanes, const V: usize>(
        &self,
        sums: *const i32,
        at: usize,
        width: usize,
        first: usize,
        factors: &[f32],
    ) {
        let row_len = self.shape.width();
        let value_sums = &self.scratch.value_sums[at..at + V * LANES];
        // SAFETY: as the caller promises; means and sums hold whole vectors.
        unsafe {
            let means: [L; V] = load_vectors(&self.scratch.value_mean[at..]);
            for (i, &factor) in factors.iter().enumerate() {
                let place = (self.out_row + first + i) * row_len + self.column + at;
                let out = self.out.part(place, (V - 1) * LANES + width);
                for (j, mean) in means.into_iter().enumerate() {
                    let value_sums = value_sums[j * LANES..].as_ptr();
                    let zero = -i32::from(L::CENTRE);
                    let high = sums.add(2 * i * PANEL + j * LANES);
                    let high = L::dequantize(high, value_sums, zero);
                    let low = sums.add((2 * i + 1) * PANEL + j * LANES);
                    let low = L::dequantize(low, value_sums, zero);
                    let sum = high.mul_add(mean.same(256.0), low);
                    let value = sum.mul_add(mean.same(factor), mean);
                    let out = out.add(j * LANES);
                    if V > 1 || width == LANES {
                        value.store(out);
                    } else {
                        value.store_partial(out, width);
                    }
                }
            }
        }
    }

    /// Asks for the lines of `count` rows of the output from `first` on, which other heads' parts have
    /// pushed out of the cache: they are written when the weights are there.
    #[inline(always)]
    fn prefetch_output(&self, first: usize, count: usize) {
        for i in first..first + count {
            let place = (self.out_row + i) * self.shape.width() + self.column;
            for at in (0..self.shape.dim).step_by(2 * LANES) {
                // SAFETY: only an address.
                prefetch_for_writing(unsafe { self.out.part(place + at, 1) });
            }
        }
    }

    /// The weights of query `i` of a tile, in two rows of bytes. Returns what they add up to without
    /// the scales of the values.
    ///
    /// # Safety
    /// The CPU has the instruction set; the scores are there.
    #[inline(always)]
    unsafe fn weights<L: Lanes>(&mut self, i: usize) -> f32 {
        let padded = padded_k(self.shape.tokens);
        let step = stride(padded);
        let columns = self.shape.tokens.next_multiple_of(LANES);
        let scratch = &mut *self.scratch;
        let scores = &scratch.scores[i * padded..][..columns];
        let shares = &scratch.shares[..columns];
        let (high, low) = scratch.weights[2 * i * step..2 * (i + 1) * step].split_at_mut(step);
        let largest = scratch.largest[i * LANES..(i + 1) * LANES].as_ptr();
        // SAFETY: the caller has the instruction set; slices are as long as what is read and written
        // of them.
        unsafe {
            let most = L::load(largest);
            let most = most.same(most.reduce_max());
            let zero = most.same(0.0);
            let mut sums = [zero; 4];
            let mut at = 0;
            while at + 4 * LANES <= columns {
                let mut four: [L; 4] = load_vectors(&scores[at..at + 4 * LANES]);
                let shares: [L; 4] = load_vectors(&shares[at..at + 4 * LANES]);
                for ((sum, code), share) in sums.iter_mut().zip(&mut four).zip(shares) {
                    *code = weight_code(code.sub(most));
                    *sum = code.mul_add(share, *sum);
                }
                let (high, low) = (&mut high[at..at + 4 * LANES], &mut low[at..at + 4 * LANES]);
                L::store_four_halves(four, high.as_mut_ptr(), low.as_mut_ptr());
                at += 4 * LANES;
            }
            while at < columns {
                let code = weight_code(L::load(scores[at..at + LANES].as_ptr()).sub(most));
                let shares = L::load(shares[at..at + LANES].as_ptr());
                let sum = &mut sums[at / LANES % 4];
                *sum = code.mul_add(shares, *sum);
                let (high, low) = (&mut high[at..at + LANES], &mut low[at..at + LANES]);
                code.store_halves(high.as_mut_ptr(), low.as_mut_ptr());
                at += LANES;
            }
            let [a, b, c, d] = sums;
            a.add(b).add(c.add(d)).reduce_add()
        }
    }
}

/// `V` vectors from the start of `values`.
///
/// # Safety
/// The CPU has the instruction set.
///
/// # Panics
/// When there are fewer values.
#[inline(always)]
unsafe fn load_vectors<L: Lanes, const V: usize>(values: &[f32]) -> [L; V] {
    // SAFETY: the caller has the instruction set; each part is sixteen values.
    unsafe {
        let mut vectors = [L::splat(0.0); V];
        for (vector, part) in vectors
            .iter_mut()
            .zip(values[..V * LANES].chunks_exact(LANES))
        {
            *vector = L::load(part.as_ptr());
        }
        vectors
    }
}
