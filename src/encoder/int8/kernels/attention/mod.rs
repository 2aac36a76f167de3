//! Multi-head attention: in f32, or with integer products.

mod float;
mod float_product;
mod int8;
mod int8_operands;
mod int8_products;

use std::f32::consts::LOG2_E;

use super::layout::PANEL;
use super::order::Order;

pub use float::attention;
pub use int8::attention_int8;

/// Parts per thread that the work is split into at least.
const PARTS_PER_THREAD: usize = 4;

/// Sizes of an attention.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) tokens: usize,
    pub(super) heads: usize,
    pub(super) dim: usize,
}

impl Shape {
    /// Values of a token in q, k, v or the output.
    pub(super) fn width(self) -> usize {
        self.heads * self.dim
    }

    pub(super) fn check(self, qkv: &[f32], order: Order, mask: Option<&[f32]>) {
        let Self { batch, tokens, .. } = self;
        let len = order.len(batch * tokens, 3 * self.width());
        assert_eq!(qkv.len(), len, "q, k and v");
        let whole = order == Order::Rows || PANEL.is_multiple_of(self.dim);
        assert!(whole, "heads of {} channels in {order:?}", self.dim);
        if let Some(mask) = mask {
            assert_eq!(mask.len(), batch * tokens, "mask of [{batch}, {tokens}]");
        }
    }
}

/// q, k and v of one head of one image.
#[derive(Clone, Copy)]
pub(super) struct HeadRows<'a> {
    /// Of all heads and images.
    qkv: &'a [f32],
    /// Where q, k and v of the first token start.
    starts: [usize; 3],
    /// From a token to the next.
    pub(super) stride: usize,
    dim: usize,
}

impl<'a> HeadRows<'a> {
    /// Those of a head of `qkv`, which the shape fits.
    pub(super) fn new(
        qkv: &'a [f32],
        order: Order,
        shape: Shape,
        image: usize,
        head: usize,
    ) -> Self {
        let width = shape.width();
        let strides = order.strides(shape.batch * shape.tokens, 3 * width);
        let column = |which| which * width + head * shape.dim;
        Self {
            qkv,
            starts: [0, 1, 2].map(|which| strides.place(image * shape.tokens, column(which))),
            stride: strides.row,
            dim: shape.dim,
        }
    }

    /// Row `token` of q (0), k (1) or v (2).
    #[inline(always)]
    pub(super) fn row(self, token: usize, which: usize) -> &'a [f32] {
        let start = self.starts[which] + token * self.stride;
        &self.qkv[start..start + self.dim]
    }
}

/// `log₂e · mask` for scores that are powers of two. What was finite stays so.
pub(super) fn scaled_mask(mask: &[f32], scaled: &mut [f32]) {
    for (scaled, value) in scaled.iter_mut().zip(mask) {
        let product = value * LOG2_E;
        *scaled = if value.is_finite() {
            product.clamp(f32::MIN, f32::MAX)
        } else {
            product
        };
    }
}

/// Into how many parts the queries of a head are split; each packs the keys for itself. Parts come
/// before heads in the order of tasks, so that a thread has the queries of the rows that it had in the
/// product before, and will have in the one after.
pub(super) fn parts(threads: usize, units: usize, blocks: usize) -> usize {
    if threads == 1 {
        return 1;
    }
    (PARTS_PER_THREAD * threads).div_ceil(units).min(blocks)
}
