//! Multi-head attention with integer products.

use std::cell::RefCell;

use super::super::buffer::{Aligned, Disjoint};
use super::super::context::Context;
use super::super::gemm::{Microkernel, TileStage, run_tiles};
use super::super::lanes::LANES;
use super::super::layout::{MAX_K, padded_k};
use super::super::rows::stride;
use super::{Shape, parts, scaled_mask};

/// Queries per task at least.
const BLOCK: usize = 16;

/// As [`attention`](super::attention()), with both products in int8: faster where int8 products are
/// much faster than f32 ones and the tokens are many, and no longer exact.
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
pub(super) struct Scratch {
    /// `[T / 64][D / 4][64][4] s8`: k as the weights of a product.
    pub(super) keys: Aligned<i8>,
    /// `[T] f32`, `[T] i32`.
    pub(super) key_scales: Aligned<f32>,
    pub(super) key_sums: Aligned<i32>,
    /// `[D / 64][T / 4][64][4] s8`: v as the weights of a product.
    pub(super) values: Aligned<i8>,
    /// `[D] f32`, `[D] i32`.
    pub(super) value_scales: Aligned<f32>,
    pub(super) value_sums: Aligned<i32>,
    /// Added to the scores, `[T] f32`, −∞ past the tokens.
    pub(super) mask: Aligned<f32>,
    /// Sixteen rows of k, `[16][D] s8`.
    pub(super) rows: Aligned<i8>,
    /// `[rows][D + 64] u8`.
    pub(super) queries: Aligned<u8>,
    /// `[rows][T] f32`.
    pub(super) scores: Aligned<f32>,
    /// High and low bytes in turn, `[2 · rows][T + 64] u8`.
    pub(super) probabilities: Aligned<u8>,
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
pub(super) struct Head<'a> {
    pub(super) shape: Shape,
    /// `[tokens, 3 · width]`.
    pub(super) qkv: &'a [f32],
    /// Where the head starts in q, k, v and the output.
    pub(super) column: usize,
    pub(super) scale: f32,
    /// `[tokens]`.
    pub(super) mask: Option<&'a [f32]>,
    pub(super) causal: bool,
    /// From and to.
    pub(super) queries: (usize, usize),
    /// `[batch · tokens, width]`.
    pub(super) out: Disjoint<'a, f32>,
    /// The row of the image's first token in the output.
    pub(super) out_row: usize,
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
    pub(super) fn row(&self, token: usize, which: usize) -> &[f32] {
        self.shape.row(self.qkv, self.column, token, which)
    }
}
