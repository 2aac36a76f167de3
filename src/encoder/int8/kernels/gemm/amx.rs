//! AMX-INT8.
use super::Product;
use std::ops::Range;
/// # Safety
/// As [`Product::run`].
pub(super) unsafe fn run(product: &Product<'_>, panel: usize, rows: Range<usize>) {
    // SAFETY: AMX implies AVX-512 VNNI.
    unsafe { super::avx512::run(product, panel, rows) };
}
