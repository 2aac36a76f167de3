//! Multi-head attention with integer products.

use std::cell::RefCell;

use super::super::buffer::{Aligned, Disjoint};
use super::super::context::Context;
use super::super::gemm::{Microkernel, TileStage, run_tiles};
use super::super::lanes::LANES;
use super::super::layout::{MAX_K, padded_k};
use super::super::order::Order;
use super::super::rows::stride;
use super::{HeadRows, Shape, parts, scaled_mask};

/// Queries per task at least.
const BLOCK: usize = 16;
/// A key whose scaled mask is so far below that of another has no weight beside it.
const NO_WEIGHT: f32 = 1000.0;

/// Attention of every head as [`attention`](super::attention()) has it but for the causal mask, with both
/// products in int8: for many tokens, and close instead of exact.
///
/// ```text
/// k[j] ≈ k̄ + a[j] · K[j]          v[j] ≈ v̄ + b · 2^l[j] · V[j]        K, V in −127..=127
/// s[j] = log₂e · (scale · q · a[j] K[j] + mask[j]) + l[j]             q as u8 less its zero
/// p[j] = 32767 · 2^(s[j] − max s)          P[j] = round(p[j])         P as two bytes
/// out  = v̄ + b · Σⱼ P[j] V[j] / Σⱼ p[j] 2^−l[j]
/// ```
///
/// - q is quantized as activations are, per token and head.
/// - k̄ is the mean key. Softmax does not change when all scores do, so it is left out (SageAttention,
///   Zhang et al., ICLR 2025): trained towers have channels that are large in all tokens, and what
///   deviates from them is small. a is a scale per token and head.
/// - v̄ is the mean of the channels in which all values are near it, none near zero, else 0. The weights
///   add up to one, so it goes past the product.
/// - The scale of a value per token and head is b · 2^l with l ≤ 0. Its power moves into the score of
///   the key, so that the bits of a weight are relative to what its value adds to the result: a key that
///   draws nearly all attention to a value near nothing (a sink) does not take them from all others.
/// - Fifteen bits and not eight, because many small weights may together add more than the largest.
///   They are two rows of bytes to the product.
///
/// Means and ranges are those of the keys that the mask does not leave out.
///
/// Integer sums are exact: at most 255 · 127 · 65536 < 2³¹. Everything else is the same sequence of IEEE
/// 754 operations everywhere, so every instruction set gives the same bits here too. Keys and values of
/// a head are packed once per task as the weights of a product are; then as many queries as the
/// kernel has rows meet all of them, and their scores and weights stay in the first-level cache.
///
/// # Panics
/// As [`attention`](super::attention()), and when `tokens` or `dim` exceeds [`MAX_K`].
#[expect(
    clippy::too_many_arguments,
    reason = "the shape and parameters of one operator"
)]
pub fn attention_int8(
    cx: &Context,
    qkv: &[f32],
    order: Order,
    batch: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
    scale: f32,
    mask: Option<&[f32]>,
    out: &mut [f32],
) {
    let shape = Shape {
        batch,
        tokens,
        heads,
        dim,
    };
    shape.check(qkv, order, mask);
    assert_eq!(
        out.len(),
        batch * tokens * shape.width(),
        "output of attention"
    );
    assert!(
        tokens <= MAX_K && dim <= MAX_K,
        "attention of {tokens} tokens, heads of {dim}: at most {MAX_K}"
    );
    if out.is_empty() {
        return;
    }
    let blocks = tokens.div_ceil(BLOCK);
    let units = batch * heads;
    let parts = parts(cx.threads(), units, blocks);
    let out = Disjoint::new(out);
    cx.parallel(units * parts, |task| {
        let (part, unit) = (task / units, task % units);
        let (image, head) = (unit / heads, unit % heads);
        let queries = (
            part * blocks / parts * BLOCK,
            ((part + 1) * blocks / parts * BLOCK).min(tokens),
        );
        SCRATCH.with_borrow_mut(|scratch| {
            let head = Head {
                shape,
                rows: HeadRows::new(qkv, order, shape, image, head),
                column: head * dim,
                scale,
                mask: mask.map(|mask| &mask[image * tokens..][..tokens]),
                queries,
                out,
                out_row: image * tokens,
                least_mask: f32::NEG_INFINITY,
                value_scale: 0.0,
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
pub(super) struct Scratch {
    /// log₂e · mask, `[T] f32`, −∞ past the tokens.
    pub(super) mask: Aligned<f32>,
    /// k̄ and v̄, `[D] f32` each, zeros past the head.
    pub(super) key_mean: Aligned<f32>,
    pub(super) value_mean: Aligned<f32>,
    /// Rows of k, then of v, less the mean, `[T][D] f32`.
    pub(super) centred: Aligned<f32>,
    /// `[T / 64][D / 4][64][4] s8`: k as the weights of a product.
    pub(super) keys: Aligned<i8>,
    /// `[T] f32`, `[T] i32`.
    pub(super) key_scales: Aligned<f32>,
    pub(super) key_sums: Aligned<i32>,
    /// `[D / 64][T / 4][64][4] s8`: v as the weights of a product.
    pub(super) values: Aligned<i8>,
    /// `[D] i32`.
    pub(super) value_sums: Aligned<i32>,
    /// log₂e · mask + l, `[T] f32`.
    pub(super) offsets: Aligned<f32>,
    /// 2^−l, `[T] f32`.
    pub(super) shares: Aligned<f32>,
    /// Sixteen rows of k, `[16][D] s8`.
    pub(super) rows: Aligned<i8>,
    /// `[rows][D + 64] u8`.
    pub(super) queries: Aligned<u8>,
    /// `[rows][T] f32`.
    pub(super) scores: Aligned<f32>,
    /// The largest scores of a row by lane, `[rows][16] f32`.
    pub(super) largest: Aligned<f32>,
    /// High and low bytes in turn, `[2 · rows][T + 64] u8`.
    pub(super) weights: Aligned<u8>,
}

impl Scratch {
    const fn new() -> Self {
        Self {
            mask: Aligned::new(),
            key_mean: Aligned::new(),
            value_mean: Aligned::new(),
            centred: Aligned::new(),
            keys: Aligned::new(),
            key_scales: Aligned::new(),
            key_sums: Aligned::new(),
            values: Aligned::new(),
            value_sums: Aligned::new(),
            offsets: Aligned::new(),
            shares: Aligned::new(),
            rows: Aligned::new(),
            queries: Aligned::new(),
            scores: Aligned::new(),
            largest: Aligned::new(),
            weights: Aligned::new(),
        }
    }

    fn resize(&mut self, tokens: usize, dim: usize, rows: usize) {
        self.mask.resize(tokens);
        self.key_mean.resize(dim);
        self.value_mean.resize(dim);
        self.centred.resize(tokens * dim);
        self.keys.resize(tokens * dim);
        self.key_scales.resize(tokens);
        self.key_sums.resize(tokens);
        self.values.resize(tokens * dim);
        self.value_sums.resize(dim);
        self.offsets.resize(tokens);
        self.shares.resize(tokens);
        self.rows.resize(LANES * dim);
        self.queries.resize(rows * stride(dim));
        self.scores.resize(rows * tokens);
        self.largest.resize(rows * LANES);
        self.weights.resize(2 * rows * stride(tokens));
    }
}

/// Some queries of one head of one image.
pub(super) struct Head<'a> {
    pub(super) shape: Shape,
    pub(super) rows: HeadRows<'a>,
    /// Where the head starts in the output.
    pub(super) column: usize,
    pub(super) scale: f32,
    /// `[tokens]`.
    pub(super) mask: Option<&'a [f32]>,
    /// From and to.
    pub(super) queries: (usize, usize),
    /// `[batch · tokens, width]`.
    pub(super) out: Disjoint<'a, f32>,
    /// The row of the image's first token in the output.
    pub(super) out_row: usize,
    /// Keys with a smaller mask are left out.
    pub(super) least_mask: f32,
    /// b, once the values are packed.
    pub(super) value_scale: f32,
    pub(super) scratch: &'a mut Scratch,
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
            Some(given) => scaled_mask(given, mask),
            None => mask.fill(0.0),
        }
        // Softmax does not change when all scores do, and beside −10⁹ a logarithm would be lost.
        let most = mask.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        self.least_mask = most;
        if most.is_finite() {
            mask.iter_mut().for_each(|value| *value -= most);
            self.least_mask = -NO_WEIGHT;
        }
        // SAFETY: the caller has the instruction set.
        unsafe {
            self.take_means::<M::Lanes>();
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
    /// Whether a key has a part in means and ranges: all have where all are masked alike.
    #[inline(always)]
    pub(super) fn takes_part(&self, token: usize) -> bool {
        self.scratch.mask[token] >= self.least_mask
    }
}
