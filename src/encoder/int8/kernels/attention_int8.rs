//! Multi-head attention with integer products.

use std::cell::RefCell;

use super::attention::{Shape, parts};
use super::buffer::{Aligned, Disjoint};
use super::context::Context;
use super::gemm::{MOST_ROWS, Microkernel, Sums, Tile, TileStage, run_tiles};
use super::lanes::{LANES, Lanes, transpose};
use super::layout::{GROUP, MAX_K, PANEL, padded_k};
use super::math::exp;
use super::norm::fold;
use super::rows::{quantize_row, stride};

/// Steps of a probability: codes are 0..=65535, in two bytes.
const STEPS: f32 = 65_535.0;
/// Queries per task at least.
const BLOCK: usize = 16;

/// As [`attention`](super::attention()), with both products in int8: three to four times as fast in
/// the products, and no longer exact.
///
/// - q is quantized like activations (per token and head, u8), k per token and head to symmetric s8,
///   v per channel over the tokens of the image to symmetric s8;
/// - probabilities are held in 16 bits, p ≈ code / 65535, as two rows of bytes: eight bits would lose
///   the many small ones that together weigh as much as the largest. The divisor is the sum of the
///   codes, so that weights sum to one exactly.
///
/// Integer sums are exact, so every instruction set gives the same bits here too.
///
/// # Panics
/// As [`attention`](super::attention()), or when `tokens` or `dim` exceeds [`MAX_K`].
#[expect(
    clippy::too_many_arguments,
    reason = "the shape and parameters of one operator"
)]
pub fn attention_int8(
    cx: &Context,
    qkv: &[f32],
    batch: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
    scale: f32,
    mask: Option<&[f32]>,
    causal: bool,
    out: &mut [f32],
) {
    let shape = Shape {
        tokens,
        width: heads * dim,
        dim,
    };
    shape.check(batch, qkv, mask, out);
    assert!(
        tokens <= MAX_K && dim <= MAX_K,
        "attention of {tokens} tokens, heads of {dim}: at most {MAX_K}"
    );
    if out.is_empty() {
        return;
    }
    let width = shape.width;
    let blocks = tokens.div_ceil(BLOCK);
    let parts = parts(cx.threads(), batch * heads, blocks);
    let out = Disjoint::new(out);
    cx.parallel(batch * heads * parts, |task| {
        let (unit, part) = (task / parts, task % parts);
        let (image, head) = (unit / heads, unit % heads);
        let queries = (
            part * blocks / parts * BLOCK,
            ((part + 1) * blocks / parts * BLOCK).min(tokens),
        );
        SCRATCH.with_borrow_mut(|scratch| {
            let head = Head {
                shape,
                qkv: &qkv[image * tokens * 3 * width..][..tokens * 3 * width],
                column: head * dim,
                scale,
                mask: mask.map(|mask| &mask[image * tokens..][..tokens]),
                causal,
                queries,
                out,
                out_row: image * tokens,
                scratch,
            };
            // SAFETY: the context supports its instruction set; heads and parts have different
            // places in the output.
            unsafe { run_tiles(cx.isa(), head) };
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// Memory that a thread keeps between calls. T is the tokens padded to 64, D the head padded to 64.
struct Scratch {
    /// `[T / 64][D / 4][64][4] s8`: k as the weights of a product.
    keys: Aligned<i8>,
    /// `[T] f32`, `[T] i32`.
    key_scales: Aligned<f32>,
    key_sums: Aligned<i32>,
    /// `[D / 64][T / 4][64][4] s8`: v as the weights of a product.
    values: Aligned<i8>,
    /// `[D] f32`, `[D] i32`.
    value_scales: Aligned<f32>,
    value_sums: Aligned<i32>,
    /// Added to the scores, `[T] f32`, −∞ past the tokens.
    mask: Aligned<f32>,
    /// Sixteen rows of k, `[16][D] s8`.
    rows: Aligned<i8>,
    /// `[rows][D + 64] u8`.
    queries: Aligned<u8>,
    /// `[rows][T] f32`.
    scores: Aligned<f32>,
    /// High and low bytes in turn, `[2 · rows][T + 64] u8`.
    probabilities: Aligned<u8>,
}

impl Scratch {
    const fn new() -> Self {
        Self {
            keys: Aligned::new(),
            key_scales: Aligned::new(),
            key_sums: Aligned::new(),
            values: Aligned::new(),
            value_scales: Aligned::new(),
            value_sums: Aligned::new(),
            mask: Aligned::new(),
            rows: Aligned::new(),
            queries: Aligned::new(),
            scores: Aligned::new(),
            probabilities: Aligned::new(),
        }
    }

    fn resize(&mut self, tokens: usize, dim: usize, rows: usize) {
        self.keys.resize(tokens * dim);
        self.key_scales.resize(tokens);
        self.key_sums.resize(tokens);
        self.values.resize(tokens * dim);
        self.value_scales.resize(dim);
        self.value_sums.resize(dim);
        self.mask.resize(tokens);
        self.rows.resize(LANES * dim);
        self.queries.resize(rows * stride(dim));
        self.scores.resize(rows * tokens);
        self.probabilities.resize(2 * rows * stride(tokens));
    }
}

/// Some queries of one head of one image.
struct Head<'a> {
    shape: Shape,
    /// `[tokens, 3 · width]`.
    qkv: &'a [f32],
    /// Where the head starts in q, k, v and the output.
    column: usize,
    scale: f32,
    /// `[tokens]`.
    mask: Option<&'a [f32]>,
    causal: bool,
    /// From and to.
    queries: (usize, usize),
    /// `[batch · tokens, width]`.
    out: Disjoint<'a, f32>,
    /// The row of the image's first token in the output.
    out_row: usize,
    scratch: &'a mut Scratch,
}

impl TileStage for Head<'_> {
    #[inline(always)]
    unsafe fn run<M: Microkernel>(mut self) {
        let tokens = padded_k(self.shape.tokens);
        self.scratch
            .resize(tokens, padded_k(self.shape.dim), M::ROWS);
        self.scratch.mask.fill(f32::NEG_INFINITY);
        let mask = &mut self.scratch.mask[..self.shape.tokens];
        match self.mask {
            Some(given) => mask.copy_from_slice(given),
            None => mask.fill(0.0),
        }
        // SAFETY: the caller has the instruction set.
        unsafe {
            self.pack_keys::<M::Lanes>();
            self.pack_values::<M::Lanes>();
            let mut kernel = M::begin();
            let mut first = self.queries.0;
            while first < self.queries.1 {
                let count = (self.queries.1 - first).min(M::ROWS);
                self.scores(&mut kernel, first, count);
                self.mix(&mut kernel, first, count);
                first += count;
            }
        }
    }
}

impl Head<'_> {
    /// Row `token` of q (0), k (1) or v (2).
    fn row(&self, token: usize, which: usize) -> &[f32] {
        self.shape.row(self.qkv, self.column, token, which)
    }

    /// Quantizes the keys, sixteen at a time, and turns their groups into columns.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    unsafe fn pack_keys<L: Lanes>(&mut self) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let (padded, depth) = (padded_k(tokens), padded_k(dim));
        for first in (0..padded).step_by(LANES) {
            for i in 0..LANES {
                self.scratch.rows[i * depth..(i + 1) * depth].fill(0);
                let token = first + i;
                let (scale, sum) = if token < tokens {
                    let row = self.row(token, 1).as_ptr();
                    let codes = self.scratch.rows[i * depth..].as_mut_ptr();
                    // SAFETY: the caller has the instruction set; the row holds `dim` values, the
                    // codes `dim` rounded up to 64.
                    unsafe { quantize_key::<L>(row, dim, codes) }
                } else {
                    (0.0, 0)
                };
                self.scratch.key_scales[token] = scale;
                self.scratch.key_sums[token] = sum;
            }
            let panel = first / PANEL * PANEL * depth + first % PANEL * GROUP;
            for at in (0..depth / GROUP).step_by(LANES) {
                let rows = &self.scratch.rows;
                let keys = &mut self.scratch.keys[panel..];
                // SAFETY: the caller has the instruction set; a row of `depth` bytes holds sixteen
                // groups from group `at` on, the keys a column vector of each group. Groups travel
                // as f32, which are only moved.
                unsafe {
                    let mut square: [L; LANES] = std::array::from_fn(|i| {
                        L::load(rows[i * depth + at * GROUP..].as_ptr().cast())
                    });
                    transpose(&mut square);
                    for (i, lanes) in square.into_iter().enumerate() {
                        lanes.store(keys[(at + i) * PANEL * GROUP..].as_mut_ptr().cast());
                    }
                }
            }
        }
    }

    /// Quantizes v per channel, and lays four tokens side by side.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    unsafe fn pack_values<L: Lanes>(&mut self) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let (padded, width) = (padded_k(tokens), padded_k(dim));
        for at in (0..width).step_by(LANES) {
            let n = dim.saturating_sub(at).min(LANES);
            // SAFETY: the caller has the instruction set; a row of v holds `n` values from `at`;
            // scales and sums hold sixteen from `at`, the values a column vector of each group.
            unsafe {
                let zero = L::splat(0.0);
                let load = |head: &Self, token: usize| {
                    if n == 0 || token >= tokens {
                        zero
                    } else {
                        let v = head.row(token, 2)[at..].as_ptr();
                        if n == LANES {
                            L::load(v)
                        } else {
                            L::load_partial(v, n, 0.0)
                        }
                    }
                };
                let (mut most, mut poison) = (zero, zero);
                for token in 0..tokens {
                    let v = load(self, token);
                    most = v.abs().max(most);
                    poison = v.mul_add(zero, poison);
                }
                let scale = symmetric_scale(most);
                let inverse = zero.same(1.0).div(scale);
                scale
                    .add(poison)
                    .store(self.scratch.value_scales[at..].as_mut_ptr());
                let panel = at / PANEL * PANEL * padded + at % PANEL * GROUP;
                let mut sum = zero;
                for group in 0..padded / GROUP {
                    let mut four = [zero; GROUP];
                    for (j, lanes) in four.iter_mut().enumerate() {
                        *lanes = load(self, group * GROUP + j).mul(inverse).round();
                        sum = sum.add(*lanes);
                    }
                    let out = &mut self.scratch.values[panel + group * PANEL * GROUP..];
                    L::store_groups(four, out.as_mut_ptr());
                }
                let sums = &mut self.scratch.value_sums[at..at + LANES];
                for (to, sum) in sums.iter_mut().zip(sum.to_array()) {
                    *to = integer(sum);
                }
            }
        }
    }

    /// Scores of `count` queries from `first`, turned into probabilities.
    ///
    /// # Safety
    /// The CPU has the instruction set; keys, values and mask are packed.
    #[inline(always)]
    unsafe fn scores<M: Microkernel>(&mut self, kernel: &mut M, first: usize, count: usize) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let (padded, depth) = (padded_k(tokens), padded_k(dim));
        let mut row_scales = [0.0; MOST_ROWS];
        let mut row_zeros = [0; MOST_ROWS];
        for i in 0..count {
            let q = self.row(first + i, 0).as_ptr();
            let codes = self.scratch.queries[i * stride(depth)..].as_mut_ptr();
            // SAFETY: the caller has the instruction set; the row holds `dim` values, the codes
            // `dim` rounded up to 64.
            (row_scales[i], row_zeros[i]) = unsafe { quantize_row::<M::Lanes>(q, dim, codes) };
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
            };
            // SAFETY: the caller has the instruction set; queries and keys have `depth` values.
            unsafe { kernel.tile(tile) };
            for at in (panel * PANEL..tokens.min((panel + 1) * PANEL)).step_by(LANES) {
                let scratch = &mut *self.scratch;
                // SAFETY: the caller has the instruction set; everything holds sixteen from `at`.
                unsafe {
                    let mask = M::Lanes::load(scratch.mask[at..].as_ptr());
                    let key_scale = M::Lanes::load(scratch.key_scales[at..].as_ptr());
                    let key_scale = key_scale.mul(mask.same(self.scale));
                    for i in 0..count {
                        let exact = M::Lanes::dequantize(
                            sums.add(i * PANEL + at % PANEL),
                            scratch.key_sums[at..].as_ptr(),
                            row_zeros[i] - i32::from(M::Lanes::CENTRE),
                        );
                        let factor = key_scale.mul(mask.same(row_scales[i]));
                        let out = scratch.scores[i * padded + at..].as_mut_ptr();
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
    unsafe fn mix<M: Microkernel>(&mut self, kernel: &mut M, first: usize, count: usize) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let (padded, width) = (padded_k(tokens), padded_k(dim));
        let step = stride(padded);
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
                    groups: padded / GROUP,
                    sums,
                    ahead: weights,
                    ahead_len: 0,
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
                        for i in row..row + rows {
                            let value_sums = self.scratch.value_sums[at..].as_ptr();
                            let exact = |byte: usize| {
                                M::Lanes::dequantize(
                                    sums.add((2 * (i - row) + byte) * PANEL + at % PANEL),
                                    value_sums,
                                    -i32::from(M::Lanes::CENTRE),
                                )
                            };
                            let sum = exact(0).mul_add(scale.same(256.0), exact(1));
                            let value = sum.mul(scale).mul(scale.same(factors[i]));
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

/// max / 127, at least the smallest normal number.
#[inline(always)]
fn symmetric_scale<L: Lanes>(most: L) -> L {
    most.div(most.same(127.0)).max(most.same(f32::MIN_POSITIVE))
}

/// Sums of codes are small integers; those of rows that are not finite do not matter.
#[expect(clippy::cast_possible_truncation, reason = "a small integer")]
#[inline(always)]
fn integer(sum: f32) -> i32 {
    sum as i32
}

/// Symmetric codes of one key: scale (NaN when a value is not finite) and sum of the codes.
///
/// # Safety
/// The CPU has the instruction set; `x` is readable for `n` f32, `codes` writable for `n` rounded up
/// to 16.
#[inline(always)]
unsafe fn quantize_key<L: Lanes>(x: *const f32, n: usize, codes: *mut i8) -> (f32, i32) {
    // SAFETY: as the caller promises.
    unsafe {
        let zero = L::splat(0.0);
        let [a, b, c, d] = fold::<L>(x, n, 0.0, zero, |most, v| v.abs().max(most));
        let most = zero.same(a.max(b).max(c.max(d)).reduce_max());
        let [a, b, c, d] = fold::<L>(x, n, 0.0, zero, |sum, v| v.mul_add(zero, sum));
        let poison = a.add(b).add(c.add(d)).reduce_add();
        let scale = symmetric_scale(most);
        let inverse = zero.same(1.0).div(scale);
        let mut sum = zero;
        for at in (0..n).step_by(LANES) {
            let code = L::load_partial(x.add(at), (n - at).min(LANES), 0.0)
                .mul(inverse)
                .round();
            sum = sum.add(code);
            code.store_signed(codes.add(at));
        }
        (scale.to_array()[0] + poison, integer(sum.reduce_add()))
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
        let mut sum = zero;
        for at in (0..n).step_by(LANES) {
            let code = exp(L::load(scores[at..].as_ptr()).sub(max))
                .mul(zero.same(STEPS))
                .round();
            code.store_halves(high[at..].as_mut_ptr(), low[at..].as_mut_ptr());
            sum = sum.add(code);
        }
        sum.reduce_add()
    }
}
