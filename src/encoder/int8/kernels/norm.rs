//! LayerNorm.

use super::buffer::Disjoint;
use super::context::Context;
use super::lanes::{LANES, Lanes, Stage};
use super::rows::LEAST_ROWS;

/// LayerNorm over the last axis of `[rows, k] f32`:
/// `out = (x − mean) / √(variance + eps) · gamma + beta`, the variance that of the population.
///
/// Mean and variance are taken in two passes, each a sum of four times sixteen lanes (vector j of
/// the row goes to sum j mod 4, the last one filled up with zeros), then `(s0 + s1) + (s2 + s3)`, then
/// the tree of the lanes: the same bits on every instruction set. A row with a NaN or an infinity
/// becomes NaN.
///
/// # Panics
/// When a slice has not the length that the shape asks for.
#[expect(
    clippy::too_many_arguments,
    reason = "the shape and parameters of one operator"
)]
pub fn layer_norm(
    cx: &Context,
    x: &[f32],
    rows: usize,
    k: usize,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    assert_eq!(x.len(), rows * k, "activations of [{rows}, {k}]");
    assert_eq!(out.len(), rows * k, "output of [{rows}, {k}]");
    let norm = Norm::new(gamma, beta, eps, k);
    let out = Disjoint::new(out);
    cx.parallel_runs(rows, LEAST_ROWS, |_, run| {
        // SAFETY: runs are disjoint.
        let out = unsafe { out.part(run.start * k, run.len() * k) };
        cx.run_stage(LayerNorm {
            x: &x[run.start * k..run.end * k],
            norm,
            out,
        });
    });
}

struct LayerNorm<'a> {
    x: &'a [f32],
    norm: Norm<'a>,
    out: *mut f32,
}

impl Stage for LayerNorm<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let k = self.norm.gamma.len();
        for (row, x) in self.x.chunks_exact(k).enumerate() {
            // SAFETY: the caller has the instruction set; `out` is as long as `x`.
            unsafe { self.norm.row::<L>(x, self.out.add(row * k)) };
        }
    }
}

/// The parameters of a LayerNorm; both slices have the length of a row.
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    gamma: &'a [f32],
    beta: &'a [f32],
    eps: f32,
}

impl<'a> Norm<'a> {
    pub(super) fn new(gamma: &'a [f32], beta: &'a [f32], eps: f32, k: usize) -> Self {
        assert_eq!(
            (gamma.len(), beta.len()),
            (k, k),
            "LayerNorm of rows of {k}"
        );
        assert!(k > 0, "LayerNorm of empty rows");
        Self { gamma, beta, eps }
    }

    /// Normalises one row.
    ///
    /// # Safety
    /// The CPU has the instruction set; `out` is writable for as many f32 as gamma has.
    #[inline(always)]
    pub(super) unsafe fn row<L: Lanes>(&self, x: &[f32], out: *mut f32) {
        let k = self.gamma.len();
        assert_eq!(x.len(), k, "row of a LayerNorm");
        let x = x.as_ptr();
        // SAFETY: the caller has the instruction set; `x` holds `k` f32.
        let zero = unsafe { L::splat(0.0) };
        // SAFETY: as above.
        let sums = unsafe { fold::<L>(x, k, 0.0, zero, |sum, v| sum.add(v)) };
        let mean = total(sums) / k as f32;
        let center = zero.same(mean);
        // SAFETY: as above; lanes past the end hold the mean and add nothing.
        let sums = unsafe {
            fold::<L>(x, k, mean, zero, |sum, v| {
                let d = v.sub(center);
                d.mul_add(d, sum)
            })
        };
        let variance = total(sums) / k as f32;
        let factor = zero.same(1.0 / (variance + self.eps).sqrt());
        let mut at = 0;
        while at + LANES <= k {
            // SAFETY: sixteen values from `at` are within all four.
            unsafe {
                let v = L::load(x.add(at)).sub(center).mul(factor);
                let (gamma, beta) = (self.gamma.as_ptr().add(at), self.beta.as_ptr().add(at));
                v.mul_add(L::load(gamma), L::load(beta)).store(out.add(at));
            }
            at += LANES;
        }
        if at < k {
            // SAFETY: `k − at` values from `at` are within all four.
            unsafe {
                let n = k - at;
                let v = L::load_partial(x.add(at), n, 0.0).sub(center).mul(factor);
                let gamma = L::load_partial(self.gamma.as_ptr().add(at), n, 0.0);
                let beta = L::load_partial(self.beta.as_ptr().add(at), n, 0.0);
                v.mul_add(gamma, beta).store_partial(out.add(at), n);
            }
        }
    }
}

/// Folds the vectors of `x` into four: vector j goes to j mod 4; the last one is filled up with
/// `fill`.
///
/// # Safety
/// The CPU has the instruction set; `x` is readable for `k` f32.
#[inline(always)]
pub(super) unsafe fn fold<L: Lanes>(
    x: *const f32,
    k: usize,
    fill: f32,
    start: L,
    f: impl Fn(L, L) -> L,
) -> [L; 4] {
    let [mut a, mut b, mut c, mut d] = [start; 4];
    let mut at = 0;
    while at + 4 * LANES <= k {
        // SAFETY: 64 values from `at` are within `x`.
        unsafe {
            a = f(a, L::load(x.add(at)));
            b = f(b, L::load(x.add(at + LANES)));
            c = f(c, L::load(x.add(at + 2 * LANES)));
            d = f(d, L::load(x.add(at + 3 * LANES)));
        }
        at += 4 * LANES;
    }
    let mut four = [a, b, c, d];
    let mut next = 0;
    while at < k {
        // SAFETY: at most `k − at` values are read.
        let v = unsafe { L::load_partial(x.add(at), (k - at).min(LANES), fill) };
        four[next] = f(four[next], v);
        next += 1;
        at += LANES;
    }
    four
}

/// Sum of all lanes of the four.
#[inline(always)]
fn total<L: Lanes>(four: [L; 4]) -> f32 {
    four[0].add(four[1]).add(four[2].add(four[3])).reduce_add()
}
