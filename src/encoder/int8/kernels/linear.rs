//! The linear layer on quantized rows and weights.

use std::ops::Range;

use super::buffer::Disjoint;
use super::context::Context;
use super::gemm::{Epilogue, Part, Product, Sink, run_tiles};
use super::layout::{PANEL, PackedMatrix};
use super::math::Activation;
use super::order::Order;
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
    let product = product(cx, x, w, bias, Sink::Store(activation), Order::Rows, out);
    product_of_all(cx, &product, 0..w.panels());
}

/// As [`linear`] without an activation, in another order: `out` has [`Order::len`] values.
///
/// # Panics
/// As [`linear`].
pub fn linear_ordered(
    cx: &Context,
    x: &QuantizedRows,
    w: &PackedMatrix,
    bias: &[f32],
    order: Order,
    out: &mut [f32],
) {
    let product = product(cx, x, w, bias, Sink::Store(Activation::None), order, out);
    product_of_all(cx, &product, 0..w.panels());
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
    let product = product(cx, x, w, bias, Sink::Add, Order::Rows, out);
    product_of_all(cx, &product, 0..w.panels());
}

/// Which token of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its place.
    pub at: usize,
    /// Tokens of the sequence.
    pub of: usize,
}

/// As [`linear_ordered`], of sequences of `token.of` rows each; but of the first `columns`
/// columns only the rows of one token are computed, which are its queries beside all keys and values.
/// What stands in the other rows of these columns is open.
///
/// # Panics
/// As [`linear`]; when the token is not one of its sequence, or the rows are not whole sequences.
#[expect(
    clippy::too_many_arguments,
    reason = "the shape and parameters of one operator"
)]
pub fn linear_of_token(
    cx: &Context,
    x: &QuantizedRows,
    w: &PackedMatrix,
    bias: &[f32],
    columns: usize,
    token: Token,
    order: Order,
    out: &mut [f32],
) {
    let Token { at, of } = token;
    let whole = at < of && x.rows().is_multiple_of(of);
    assert!(whole, "{token:?} in {} rows", x.rows());
    let product = product(cx, x, w, bias, Sink::Store(Activation::None), order, out);
    // A panel that lies on both sides is computed for all rows.
    let border = (columns / PANEL).min(w.panels());
    cx.parallel(x.rows() / of * border, |task| {
        let (panel, row) = (task % border, task / border * of + at);
        // SAFETY: tasks have different panels or rows.
        unsafe { part(cx, &product, panel, row..row + 1) };
    });
    product_of_all(cx, &product, border..w.panels());
}

/// Checks that the parts fit.
fn product<'a>(
    cx: &Context,
    x: &'a QuantizedRows,
    w: &'a PackedMatrix,
    bias: &'a [f32],
    sink: Sink,
    order: Order,
    out: &'a mut [f32],
) -> Product<'a> {
    let (rows, n) = (x.rows(), w.n());
    assert_eq!(x.k(), w.k(), "inner sizes of a product");
    assert_eq!(
        x.centre(),
        cx.isa().centre(),
        "rows quantized for another instruction set"
    );
    assert_eq!(bias.len(), n, "bias of {n} channels");
    assert_eq!(out.len(), order.len(rows, n), "output of [{rows}, {n}]");
    Product {
        x,
        w,
        epilogue: Epilogue {
            bias,
            sink,
            out: Disjoint::new(out),
            strides: order.strides(rows, n),
        },
    }
}

/// Computes all rows of some panels.
fn product_of_all(cx: &Context, product: &Product<'_>, panels: Range<usize>) {
    let rows = product.x.rows();
    let chunks = chunks(cx.threads(), panels.len(), rows);
    cx.parallel(panels.len() * chunks, |task| {
        let (chunk, panel) = (task / panels.len(), panels.start + task % panels.len());
        let rows = chunk * rows / chunks..(chunk + 1) * rows / chunks;
        // SAFETY: tasks have different panels or rows.
        unsafe { part(cx, product, panel, rows) };
    });
}

/// Computes some rows of a panel.
///
/// # Safety
/// The product is one that [`product`] made with the same context; nothing else touches this part of
/// its output.
unsafe fn part(cx: &Context, product: &Product<'_>, panel: usize, rows: Range<usize>) {
    // SAFETY: the context supports its instruction set, and the inner sizes agree; the rest is the
    // caller's promise.
    unsafe {
        run_tiles(
            cx.isa(),
            Part {
                product,
                panel,
                rows,
            },
        );
    }
}

/// Into how many parts the rows are split: if they are enough, a thread has its own from stage to stage,
/// and finds them in its cache.
fn chunks(threads: usize, panels: usize, rows: usize) -> usize {
    if threads == 1 {
        return 1;
    }
    (TASKS_PER_THREAD * threads)
        .div_ceil(panels.max(1))
        .max(threads)
        .min(rows / LEAST_ROWS)
        .max(1)
}
