//! Fetching weights, and lines of outputs, into the cache before they are needed.

#[cfg(target_arch = "aarch64")]
use super::Tile;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Asks for a line in the second-level cache. Only a hint: any address will do.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
pub(super) fn prefetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint, which may name any address; part of every x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address) };
}

/// Asks for two lines in the first-level cache, to be written. Only a hint: any address will do.
///
/// A tile's outputs lie in lines that the weights have pushed out since the buffer was last used.
/// Without the hint each store waits for its line, and all stores of a tile come at once: 7 % of a
/// product with K = 768.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
pub(in super::super) fn prefetch_for_writing(address: *const f32) {
    // SAFETY: a hint, which may name any address; what does not know it takes it for another hint
    // or, on the first x86-64 of all, for none.
    unsafe {
        std::arch::asm!(
            "prefetchw [{0}]",
            "prefetchw [{0} + 64]",
            in(reg) address,
            options(nostack, preserves_flags)
        );
    }
}

/// Nothing is known to be gained.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub(in super::super) fn prefetch_for_writing(_: *const f32) {}

/// Asks for a line in the second-level cache. Only a hint: any address will do.
#[inline(always)]
#[cfg(target_arch = "aarch64")]
pub(super) fn prefetch_line(address: *const i8) {
    // SAFETY: a hint, which may name any address.
    unsafe {
        std::arch::asm!(
            "prfm pldl2keep, [{}]",
            in(reg) address,
            options(nostack, readonly, preserves_flags)
        );
    }
}

/// There is no hint to give.
#[inline(always)]
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn prefetch_line(_: *const i8) {}

/// Prefetches part `step` of `steps` of what the tile asks for.
#[inline(always)]
#[cfg(target_arch = "aarch64")]
pub(super) fn prefetch_part(tile: &Tile, step: usize, steps: usize) {
    let part = tile.ahead_len / steps;
    for line in (0..part).step_by(LINE) {
        prefetch_line(tile.ahead.wrapping_add(step * part + line));
    }
}
