//! The linear layer on quantized rows and weights.

use super::buffer::Disjoint;
use super::context::Context;
use super::gemm::{Epilogue, Part, Product, Sink, run_tiles};
use super::layout::PackedMatrix;
use super::math::Activation;
use super::rows::QuantizedRows;

/// Tasks per thread that a product is split into at least, so that threads finish together.
const TASKS_PER_THREAD: usize = 4;
/// Rows of a task at least: fewer read the weights again for too little.
const LEAST_ROWS: usize = 48;

/// `out[rows, n] = activation(x · wᵀ + bias)`.
///
/// Every value is `(Σ q·w − zero · Σ w) · (scale_row · scale_channel) + bias`, the sums exact in
/// integers, the last product and sum rounded once, then the activation: the same bits on every
/// instruction set, with any number of threads, in any batch.
///
/// # Panics
/// When `x` was quantized for another instruction set, the inner sizes of `x` and `w` differ, `bias` has not `n` values or `out` not `rows · n`.
pub fn linear(
    cx: &Context,
    x: &QuantizedRows,
    w: &PackedMatrix,
    bias: &[f32],
    activation: Activation,
    out: &mut [f32],
) {
    product(cx, x, w, bias, Sink::Store(activation), out);
}

/// `out[rows, n] += x · wᵀ + bias`; otherwise as [`linear`].
///
/// # Panics
/// As [`linear`].
pub fn linear_add(
    cx: &Context,
    x: &QuantizedRows,
    w: &PackedMatrix,
    bias: &[f32],
    out: &mut [f32],
) {
    product(cx, x, w, bias, Sink::Add, out);
}

fn product(
    cx: &Context,
    x: &QuantizedRows,
    w: &PackedMatrix,
    bias: &[f32],
    sink: Sink,
    out: &mut [f32],
) {
    let (rows, n) = (x.rows(), w.n());
    assert_eq!(x.k(), w.k(), "inner sizes of a product");
    assert_eq!(
        x.centre(),
        cx.isa().centre(),
        "rows quantized for another instruction set"
    );
    assert_eq!(bias.len(), n, "bias of {n} channels");
    assert_eq!(out.len(), rows * n, "output of [{rows}, {n}]");
    let product = Product {
        x,
        w,
        epilogue: Epilogue {
            bias,
            sink,
            out: Disjoint::new(out),
        },
    };
    let panels = w.panels();
    let chunks = chunks(cx.threads(), panels, rows);
    cx.parallel(panels * chunks, |task| {
        let (chunk, panel) = (task / panels, task % panels);
        let rows = chunk * rows / chunks..(chunk + 1) * rows / chunks;
        // SAFETY: the context supports its instruction set, the inner sizes agree, and tasks have
        // different panels or rows.
        unsafe {
            run_tiles(
                cx.isa(),
                Part {
                    product: &product,
                    panel,
                    rows,
                },
            )
        };
    });
}

/// Into how many parts the rows are split: if they are enough, a thread has its own from stage to stage,
/// and finds them in its cache.
fn chunks(threads: usize, panels: usize, rows: usize) -> usize {
    if threads == 1 {
        return 1;
    }
    (TASKS_PER_THREAD * threads)
        .div_ceil(panels)
        .max(threads)
        .min(rows / LEAST_ROWS)
        .max(1)
}
