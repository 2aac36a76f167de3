//! Multi-head attention: in f32, or with integer products.

mod float;
mod float_product;
mod int8;
mod int8_operands;
mod int8_products;

use std::f32::consts::LOG2_E;

pub use float::attention;
pub use int8::attention_int8;

/// Parts per thread that the work is split into at least.
const PARTS_PER_THREAD: usize = 4;

/// Sizes of the attention of one image.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) tokens: usize,
    /// heads · dim.
    pub(super) width: usize,
    pub(super) dim: usize,
}

impl Shape {
    pub(super) fn check(self, batch: usize, qkv: &[f32], mask: Option<&[f32]>) {
        let Self { tokens, width, .. } = self;
        assert_eq!(qkv.len(), batch * tokens * 3 * width, "q, k and v");
        if let Some(mask) = mask {
            assert_eq!(mask.len(), batch * tokens, "mask of [{batch}, {tokens}]");
        }
    }

    /// Row `token` of q (0), k (1) or v (2) of the head that starts at `column`, of one image.
    pub(super) fn row(self, qkv: &[f32], column: usize, token: usize, which: usize) -> &[f32] {
        let start = (token * 3 + which) * self.width + column;
        &qkv[start..start + self.dim]
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
