//! Activations, quantized row by row.

use std::ops::Range;

use super::buffer::{Aligned, Disjoint};
use super::context::Context;
use super::lanes::{LANES, Lanes, Stage};
use super::layout::{MAX_K, padded_k};
use super::norm::Norm;

/// Rows that a thread takes at least: below, waking it costs more than it gives.
pub(super) const LEAST_ROWS: usize = 8;

/// A reusable buffer of `[rows, k]` activations in u8, with a scale and a zero point per row.
///
/// A row x of f32 is quantized by itself ("dynamic, per token"), so a batch gives the bits of its
/// single images:
///
/// ```text
/// lo = min(0, min x)    hi = max(0, max x)    scale = hi / 255 − lo / 255
/// inverse = 1 / scale   zero = clamp(round(−lo · inverse), 0, 255)
/// q = round(clamp(x · inverse + zero, 0, 255))          x ≈ scale · (q − zero)
/// ```
///
/// with rounding half to even and `x · inverse + zero` rounded once. A row whose scale would be below
/// the smallest normal f32 gets scale 1, zero 0 and zeros. A row with a NaN or an infinity gets scale
/// NaN and zeros: every product of the row is NaN.
///
/// Use it with the context (or one of the same instruction set) that filled it: kernels that multiply
/// signed bytes want the codes less 128.
#[derive(Clone, Default)]
pub struct QuantizedRows {
    rows: usize,
    k: usize,
    /// Less `centre`, wrapping.
    codes: Aligned<u8>,
    centre: u8,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    /// A row of f32 per thread, for what is quantized without being stored.
    scratch: Aligned<f32>,
}

impl QuantizedRows {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows it holds.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Quantizes `[rows, k] f32`.
    ///
    /// # Panics
    /// When `x` has not that many values or `k` is 0 or exceeds [`MAX_K`].
    pub fn quantize(&mut self, cx: &Context, x: &[f32], rows: usize, k: usize) {
        assert_eq!(x.len(), rows * k, "activations of [{rows}, {k}]");
        self.fill(cx, rows, k, x, None);
    }

    /// Quantizes LayerNorm(x) of `[rows, k] f32` (see [`layer_norm`](super::layer_norm)) without
    /// storing it as f32.
    ///
    /// # Panics
    /// When `x` has not that many values, `gamma` or `beta` not `k`, or `k` is 0 or exceeds
    /// [`MAX_K`].
    #[expect(
        clippy::too_many_arguments,
        reason = "the shape and parameters of one operator"
    )]
    pub fn layer_norm(
        &mut self,
        cx: &Context,
        x: &[f32],
        rows: usize,
        k: usize,
        gamma: &[f32],
        beta: &[f32],
        eps: f32,
    ) {
        assert_eq!(x.len(), rows * k, "activations of [{rows}, {k}]");
        let norm = Norm::new(gamma, beta, eps, k);
        self.fill(cx, rows, k, x, Some(norm));
    }

    /// Quantizes rows that `write` puts together one at a time, so that they are not stored as f32:
    /// `write(row, values)` writes all of the `k` values, whatever they were before.
    ///
    /// # Panics
    /// When `k` is 0 or exceeds [`MAX_K`].
    pub fn gather(
        &mut self,
        cx: &Context,
        rows: usize,
        k: usize,
        write: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.each_run(cx, rows, k, |run, scratch, out| {
            for row in run.clone() {
                // SAFETY: the scratch holds a row, and nothing else looks at it.
                let values = unsafe { std::slice::from_raw_parts_mut(scratch, k) };
                write(row, values);
                // SAFETY: the row is one of the run's.
                let out = unsafe { out.from(row - run.start) };
                let x = values;
                cx.run_stage(QuantizeRows {
                    x,
                    k,
                    norm: None,
                    out,
                });
            }
        });
    }

    fn fill(&mut self, cx: &Context, rows: usize, k: usize, x: &[f32], norm: Option<Norm<'_>>) {
        self.each_run(cx, rows, k, |run, scratch, out| {
            let x = &x[run.start * k..run.end * k];
            let norm = norm.map(|norm| (norm, scratch));
            cx.run_stage(QuantizeRows { x, k, norm, out });
        });
    }

    /// Calls `f` with runs of rows on the threads, with a row of f32 for each and the place for the
    /// first of its results.
    fn each_run(
        &mut self,
        cx: &Context,
        rows: usize,
        k: usize,
        f: impl Fn(Range<usize>, *mut f32, Destination) + Sync,
    ) {
        assert!(
            k > 0 && k <= MAX_K,
            "rows of {k} values, 1 to {MAX_K} can be quantized"
        );
        let stride = stride(k);
        (self.rows, self.k, self.centre) = (rows, k, cx.isa().centre());
        self.codes.resize(rows * stride);
        self.scales.resize(rows, 1.0);
        self.zeros.resize(rows, 0);
        self.scratch.resize(cx.threads() * k);
        let codes = Disjoint::new(&mut self.codes);
        let scales = Disjoint::new(&mut self.scales);
        let zeros = Disjoint::new(&mut self.zeros);
        let scratch = Disjoint::new(&mut self.scratch);
        cx.parallel_runs(rows, LEAST_ROWS, |number, run| {
            let count = run.len();
            // SAFETY: runs are disjoint, and so are the rows of these buffers that belong to them;
            // there is at most one run per thread, and a row of the scratch for each.
            let (scratch, out) = unsafe {
                (
                    scratch.part(number * k, k),
                    Destination {
                        codes: codes.part(run.start * stride, count * stride),
                        stride,
                        scales: scales.part(run.start, count),
                        zeros: zeros.part(run.start, count),
                    },
                )
            };
            f(run, scratch, out);
        });
    }

    pub(super) fn stride(&self) -> usize {
        stride(self.k)
    }

    /// `[rows][stride] u8`, less the centre.
    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// What the codes have been lessened by.
    pub(super) fn centre(&self) -> u8 {
        self.centre
    }

    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub(super) fn zeros(&self) -> &[i32] {
        &self.zeros
    }

    /// The values as `[rows, k] f32`: for tests and for looking at errors.
    pub fn dequantize(&self) -> Vec<f32> {
        let stride = self.stride();
        (0..self.rows * self.k)
            .map(|i| {
                let (row, column) = (i / self.k, i % self.k);
                let code = self.codes[row * stride + column].wrapping_add(self.centre);
                let code = i32::from(code);
                (code - self.zeros[row]) as f32 * self.scales[row]
            })
            .collect()
    }
}

impl<T: super::buffer::Plain> Default for Aligned<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes from row to row: whole cache lines, and an odd number of them, so that the rows of a tile
/// spread over the sets of the first-level cache.
pub(super) fn stride(k: usize) -> usize {
    padded_k(k) | 64
}

/// Where the results of a run of rows go.
#[derive(Clone, Copy)]
struct Destination {
    codes: *mut u8,
    stride: usize,
    scales: *mut f32,
    zeros: *mut i32,
}

impl Destination {
    /// That of the rows from the `row`th.
    ///
    /// # Safety
    /// There are more rows than that, or as many.
    unsafe fn from(self, row: usize) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Self {
                codes: self.codes.add(row * self.stride),
                stride: self.stride,
                scales: self.scales.add(row),
                zeros: self.zeros.add(row),
            }
        }
    }
}

struct QuantizeRows<'a> {
    /// `[rows, k]`.
    x: &'a [f32],
    k: usize,
    /// What to apply first, and `k` writable f32.
    norm: Option<(Norm<'a>, *mut f32)>,
    /// For as many rows.
    out: Destination,
}

impl Stage for QuantizeRows<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for (row, x) in self.x.chunks_exact(self.k).enumerate() {
            let mut values = x.as_ptr();
            if let Some((norm, scratch)) = self.norm {
                // SAFETY: the caller has the instruction set; the scratch holds a row.
                unsafe { norm.row::<L>(x, scratch) };
                values = scratch;
            }
            // SAFETY: the caller has the instruction set; `values` holds `k` f32, the outputs hold
            // as many rows as `x`, each of `stride` ≥ k bytes.
            unsafe {
                let out = self.out.from(row);
                let (scale, zero) = quantize_row::<L>(values, self.k, out.codes);
                out.scales.write(scale);
                out.zeros.write(zero);
            }
        }
    }
}

/// The least and the largest value, 0 among them. NaNs are passed over.
///
/// # Safety
/// The CPU has the instruction set; `x` is readable for `k` f32.
#[inline(always)]
unsafe fn range<L: Lanes>(x: *const f32, k: usize) -> (f32, f32) {
    // SAFETY: the caller has the instruction set.
    let zero = unsafe { L::splat(0.0) };
    // Two vectors at a time fit the registers everywhere. The order does not matter: no NaN and no
    // negative zero ever takes the place of a number.
    let (mut lo, mut hi) = ([zero; 2], [zero; 2]);
    let mut at = 0;
    while at + 2 * LANES <= k {
        for j in 0..2 {
            // SAFETY: 32 values from `at` are within `x`.
            let v = unsafe { L::load(x.add(at + j * LANES)) };
            (lo[j], hi[j]) = (v.min(lo[j]), v.max(hi[j]));
        }
        at += 2 * LANES;
    }
    while at < k {
        // SAFETY: at most `k − at` values are read.
        let v = unsafe { L::load_partial(x.add(at), (k - at).min(LANES), 0.0) };
        (lo[0], hi[0]) = (v.min(lo[0]), v.max(hi[0]));
        at += LANES;
    }
    let (lo, hi) = (lo[0].min(lo[1]), hi[0].max(hi[1]));
    (lo.reduce_min(), hi.reduce_max())
}

/// # Safety
/// The CPU has the instruction set; `x` is readable for `k` f32, `codes` writable for `k` rounded up
/// to 16 bytes.
#[inline(always)]
pub(super) unsafe fn quantize_row<L: Lanes>(x: *const f32, k: usize, codes: *mut u8) -> (f32, i32) {
    // SAFETY: the caller has the instruction set.
    let zero = unsafe { L::splat(0.0) };
    // SAFETY: the caller has the instruction set and gives `k` f32.
    let (lo, hi) = unsafe { range::<L>(x, k) };
    let scale = hi / 255.0 - lo / 255.0;
    let empty = scale < f32::MIN_POSITIVE;
    let inverse = 1.0 / scale;
    let zero_point = (-lo * inverse).round_ties_even().clamp(0.0, 255.0);
    // SAFETY: the caller has the instruction set.
    let (inverse, shift, top) =
        unsafe { (L::splat(inverse), L::splat(zero_point), L::splat(255.0)) };
    // 0 unless a value is NaN or infinite.
    let mut poison = [zero; 4];
    let mut at = 0;
    while at + 4 * LANES <= k {
        // SAFETY: the caller gives 64 f32 and bytes from `at`.
        unsafe {
            let mut four = [zero; 4];
            for (j, (v, poison)) in four.iter_mut().zip(&mut poison).enumerate() {
                let x = L::load(x.add(at + j * LANES));
                *poison = x.mul_add(zero, *poison);
                *v = x.mul_add(inverse, shift);
            }
            L::store_four_codes(four, codes.add(at));
        }
        at += 4 * LANES;
    }
    while at < k {
        let n = (k - at).min(LANES);
        // SAFETY: the caller gives `k` f32, and bytes for whole vectors.
        unsafe {
            let v = if n == LANES {
                L::load(x.add(at))
            } else {
                L::load_partial(x.add(at), n, 0.0)
            };
            let q = v.mul_add(inverse, shift).max(zero).min(top);
            q.store_codes(codes.add(at));
            poison[0] = v.mul_add(zero, poison[0]);
        }
        at += LANES;
    }
    let [a, b, c, d] = poison;
    let poison = a.add(b).add(c.add(d)).reduce_add().is_nan();
    if poison || empty {
        // SAFETY: the caller gives `k` writable bytes.
        unsafe { std::ptr::write_bytes(codes, 0u8.wrapping_sub(L::CENTRE), k) };
        return (if poison { f32::NAN } else { 1.0 }, 0);
    }
    #[expect(clippy::cast_possible_truncation, reason = "an integer in 0..=255")]
    (scale, zero_point as i32)
}
