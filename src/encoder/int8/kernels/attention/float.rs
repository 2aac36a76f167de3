//! Attention in f32.

use std::cell::RefCell;
use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::super::buffer::{Aligned, Disjoint};
use super::super::context::Context;
use super::super::lanes::{LANES, Lanes, Stage, transpose};
use super::super::math::weight;
use super::super::norm::fold;
use super::super::order::Order;
use super::float_product::{BLOCK, product};
use super::{HeadRows, Shape, parts, scaled_mask};

/// Scaled dot product attention of every head.
///
/// `qkv` is `[batch · tokens, 3 · heads · dim]` in this order: in each row all heads of q, then of k,
/// then of v.
/// `scale` multiplies q·k (often 1/√dim). `mask` is `[batch, tokens]`, added to the scores of a key
/// (0, or −∞ or a large negative number to leave the key out). With `causal`, a query sees the keys
/// up to its own place. Of each sequence the tokens `queries` look at all tokens; q of the others is not
/// read. `out` is `[batch · queries, heads · dim]`.
///
/// ```text
/// s[j] = log₂e · scale · Σ_d q[i][d] k[j][d] + log₂e · mask[j]
/// p[j] = 2^(s[j] − max s)         out[i] = Σⱼ p[j] v[j] / Σⱼ p[j]
/// ```
///
/// Sums over d and j run in order, each step one fused multiply–add; the sum of p is taken as the
/// sums of [`layer_norm`](super::super::layer_norm) are. A query all of whose keys are at −∞, or that meets
/// a NaN, gives NaN.
///
/// A head's keys are transposed once, then six queries at a time are held against up to 4 × 16 keys
/// in registers; the six rows of scores stay in the first-level cache until they have met v. Each
/// thread keeps its scratch memory between calls.
///
/// # Panics
/// When a slice has not the length that the shape asks for, a query is not one of the tokens, or heads
/// of this size lie on both sides of a border between panels.
#[expect(
    clippy::too_many_arguments,
    reason = "the shape and parameters of one operator"
)]
pub fn attention(
    cx: &Context,
    qkv: &[f32],
    order: Order,
    batch: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
    scale: f32,
    mask: Option<&[f32]>,
    causal: bool,
    queries: Range<usize>,
    out: &mut [f32],
) {
    let shape = Shape {
        batch,
        tokens,
        heads,
        dim,
    };
    shape.check(qkv, order, mask);
    let count = queries.len();
    assert!(queries.end <= tokens, "queries {queries:?} of {tokens}");
    assert_eq!(
        out.len(),
        batch * count * shape.width(),
        "output of attention"
    );
    if out.is_empty() {
        return;
    }
    let blocks = count.div_ceil(BLOCK);
    let units = batch * heads;
    let parts = parts(cx.threads(), units, blocks);
    let out = Disjoint::new(out);
    cx.parallel(units * parts, |task| {
        let (part, unit) = (task / units, task % units);
        let (image, head) = (unit / heads, unit % heads);
        SCRATCH.with_borrow_mut(|scratch| {
            cx.run_stage(Head {
                rows: HeadRows::new(qkv, order, shape, image, head),
                shape,
                column: head * dim,
                scale,
                mask: mask.map(|mask| &mask[image * tokens..][..tokens]),
                causal,
                queries: queries.clone(),
                blocks: (part * blocks / parts, (part + 1) * blocks / parts),
                out,
                out_row: image * count,
                scratch,
            });
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<Aligned<f32>> = const { RefCell::new(Aligned::new()) };
}

/// Some queries of one head of one image.
struct Head<'a> {
    rows: HeadRows<'a>,
    shape: Shape,
    /// Where the head starts in the output.
    column: usize,
    scale: f32,
    /// `[tokens]`.
    mask: Option<&'a [f32]>,
    causal: bool,
    /// Tokens that ask.
    queries: Range<usize>,
    /// Blocks of queries, from and to.
    blocks: (usize, usize),
    /// `[batch · queries, width]`.
    out: Disjoint<'a, f32>,
    /// The row of the image's first query in the output.
    out_row: usize,
    scratch: &'a mut Aligned<f32>,
}

/// Pointers into the scratch memory of a head.
#[derive(Clone, Copy)]
struct Parts {
    /// kᵀ, `[dim][padded tokens]`, zeros past the tokens.
    keys: *mut f32,
    /// Added to the scores, `[padded tokens]`, −∞ past the tokens.
    mask: *mut f32,
    /// Scores, `[BLOCK][padded tokens]`.
    scores: *mut f32,
    /// v with rows of whole vectors.
    values: *const f32,
    value_stride: usize,
}

impl Stage for Head<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        // SAFETY: the caller has the instruction set.
        unsafe {
            let parts = self.prepare::<L>();
            for block in self.blocks.0..self.blocks.1 {
                self.block::<L>(self.queries.start + block * BLOCK, parts);
            }
        }
    }
}

impl Head<'_> {
    fn padded_tokens(&self) -> usize {
        self.shape.tokens.next_multiple_of(LANES)
    }

    /// Transposes the keys, pads the mask and, where rows of v are not whole vectors, v.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    unsafe fn prepare<L: Lanes>(&mut self) -> Parts {
        let padded = self.padded_tokens();
        let value_width = self.shape.dim.next_multiple_of(LANES);
        let copies_values = value_width != self.shape.dim;
        let sizes = [
            self.shape.dim * padded,
            padded,
            BLOCK * padded,
            self.shape.tokens * value_width * usize::from(copies_values),
        ];
        self.scratch.resize(sizes.iter().sum());
        let (keys, rest) = self.scratch.split_at_mut(sizes[0]);
        let (mask, rest) = rest.split_at_mut(sizes[1]);
        let (scores, copied) = rest.split_at_mut(sizes[2]);
        let parts = Parts {
            keys: keys.as_mut_ptr(),
            mask: mask.as_mut_ptr(),
            scores: scores.as_mut_ptr(),
            values: copied.as_ptr(),
            value_stride: value_width,
        };
        mask.fill(f32::NEG_INFINITY);
        match self.mask {
            Some(given) => scaled_mask(given, mask),
            None => mask[..self.shape.tokens].fill(0.0),
        }
        let parts = if copies_values {
            let copied = copied.as_mut_ptr();
            for token in 0..self.shape.tokens {
                let v = self.rows.row(token, 2);
                for at in (0..self.shape.dim).step_by(LANES) {
                    // SAFETY: the copy has rows of whole vectors.
                    unsafe {
                        L::load_partial(v[at..].as_ptr(), (self.shape.dim - at).min(LANES), 0.0)
                            .store(copied.add(token * value_width + at));
                    }
                }
            }
            parts
        } else {
            Parts {
                values: self.rows.row(0, 2).as_ptr(),
                value_stride: self.rows.stride,
                ..parts
            }
        };
        // SAFETY: the caller has the instruction set; `keys` is `[dim][padded]`.
        unsafe { self.transpose_keys::<L>(parts.keys) };
        parts
    }

    /// # Safety
    /// The CPU has the instruction set; `keys` is writable for `[dim][padded tokens]`.
    #[inline(always)]
    unsafe fn transpose_keys<L: Lanes>(&self, keys: *mut f32) {
        let padded = self.padded_tokens();
        for first in (0..self.shape.tokens).step_by(LANES) {
            for at in (0..self.shape.dim).step_by(LANES) {
                let n = (self.shape.dim - at).min(LANES);
                // SAFETY: the caller has the instruction set; rows hold `n` values from `at`, and
                // `keys` sixteen from column `first` of each of the `n` rows.
                unsafe {
                    let mut square = [L::splat(0.0); LANES];
                    for (i, lanes) in square.iter_mut().enumerate() {
                        if first + i < self.shape.tokens {
                            let k = self.rows.row(first + i, 1)[at..].as_ptr();
                            *lanes = if n == LANES {
                                L::load(k)
                            } else {
                                L::load_partial(k, n, 0.0)
                            };
                        }
                    }
                    transpose(&mut square);
                    for (i, lanes) in square.iter().take(n).enumerate() {
                        lanes.store(keys.add((at + i) * padded + first));
                    }
                }
            }
        }
    }

    /// Six queries from `first` on (the last one again where there are fewer).
    ///
    /// # Safety
    /// The CPU has the instruction set; `parts` is what `prepare` gave.
    #[inline(always)]
    unsafe fn block<L: Lanes>(&self, first: usize, parts: Parts) {
        let padded = self.padded_tokens();
        let queries: [usize; BLOCK] =
            std::array::from_fn(|i| (first + i).min(self.queries.end - 1));
        let seen = if self.causal {
            (first + BLOCK).min(self.queries.end)
        } else {
            self.shape.tokens
        };
        let columns = seen.next_multiple_of(LANES);
        let rows: [*const f32; BLOCK] = queries.map(|query| self.rows.row(query, 0).as_ptr());
        // SAFETY: the caller has the instruction set; q rows hold `dim` values, the scratch parts
        // whole vectors; each query's part of the output belongs to this head and block alone.
        unsafe {
            let scale = L::splat(self.scale * LOG2_E);
            product::<L>(
                rows,
                self.shape.dim,
                parts.keys,
                padded,
                columns,
                |i, at, sum| {
                    let mask = L::load(parts.mask.add(at));
                    sum.mul_add(scale, mask)
                        .store(parts.scores.add(i * padded + at));
                },
            );
            let mut factors = [0.0; BLOCK];
            for (i, &query) in queries.iter().enumerate() {
                let scores = parts.scores.add(i * padded);
                if self.causal {
                    for key in query + 1..columns {
                        scores.add(key).write(f32::NEG_INFINITY);
                    }
                }
                factors[i] = 1.0 / softmax_row::<L>(scores, columns);
            }
            let rows = std::array::from_fn(|i| parts.scores.add(i * padded).cast_const());
            let outs: [*mut f32; BLOCK] = queries.map(|query| {
                let row = self.out_row + query - self.queries.start;
                let at = row * self.shape.width() + self.column;
                self.out.part(at, self.shape.dim)
            });
            let width = self.shape.dim.next_multiple_of(LANES);
            product::<L>(
                rows,
                seen,
                parts.values,
                parts.value_stride,
                width,
                |i, at, sum| {
                    let value = sum.mul(L::splat(factors[i]));
                    if at + LANES <= self.shape.dim {
                        value.store(outs[i].add(at));
                    } else {
                        value.store_partial(outs[i].add(at), self.shape.dim - at);
                    }
                },
            );
        }
    }
}

/// Replaces `n` scores (whole vectors) by 2^(s − max s), and returns their sum.
///
/// # Safety
/// The CPU has the instruction set; `scores` holds `n` f32.
#[inline(always)]
unsafe fn softmax_row<L: Lanes>(scores: *mut f32, n: usize) -> f32 {
    // SAFETY: the caller has the instruction set and gives `n` f32.
    unsafe {
        let lowest = L::splat(f32::NEG_INFINITY);
        let [a, b, c, d] = fold::<L>(scores, n, f32::NEG_INFINITY, lowest, |m, s| s.max(m));
        let max = lowest.same(a.max(b).max(c.max(d)).reduce_max());
        let mut sums = [lowest.same(0.0); 4];
        let mut at = 0;
        while at < n {
            let p = weight(L::load(scores.add(at)).sub(max));
            p.store(scores.add(at));
            let sum = &mut sums[at / LANES % 4];
            *sum = sum.add(p);
            at += LANES;
        }
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).reduce_add()
    }
}
