//! Prefetching on aarch64.

use std::arch::asm;

use super::Tile;

const LINE: usize = 64;

/// Prefetches part `step` of `steps` of what the tile asks for, into the second-level cache.
#[inline(always)]
pub(super) fn prefetch(tile: &Tile, step: usize, steps: usize) {
    let part = tile.ahead_len / steps;
    for line in (0..part).step_by(LINE) {
        let address = tile.ahead.wrapping_add(step * part + line);
        // SAFETY: a hint, which may name any address.
        unsafe {
            asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
    }
}
