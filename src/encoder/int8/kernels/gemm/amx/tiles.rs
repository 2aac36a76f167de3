//! The inner loops of the AMX kernel, one per shape of tiles.
//!
//! Registers live from the first load to the last store of one `asm!` block; only the configuration
//! of the tiles outlives it.

use std::arch::asm;

use super::STRIDE;

/// What an inner loop works on.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// First tile of activations; the next are `row_step` bytes further, rows `stride` bytes apart.
    pub(super) rows: *const u8,
    pub(super) row_step: usize,
    pub(super) stride: usize,
    /// First tile of weights, `[16][64] s8` at a stride of 256 bytes; the next of the same columns
    /// 4096 bytes further, that of the next columns 64.
    pub(super) weights: *const i8,
    /// First tile of sums, `[16][16] i32` at a stride of 256 bytes; that of the next rows `sum_step`
    /// bytes further, that of the next columns 64.
    pub(super) sums: *mut i32,
    pub(super) sum_step: usize,
    /// Tiles along the inputs, at least 1.
    pub(super) depth: usize,
    /// Where to prefetch: sixteen lines per tile of weights, `ahead_step` bytes apart. Any address.
    pub(super) ahead: *const i8,
    pub(super) ahead_step: usize,
}

/// Prefetches into the second-level cache.
macro_rules! prefetch {
    (16) => {
        concat!(prefetch!(8), prefetch!(8))
    };
    (8) => {
        concat!(prefetch!(4), prefetch!(4))
    };
    (4) => {
        concat!(prefetch!(2), prefetch!(2))
    };
    (5) => {
        concat!(prefetch!(4), prefetch!(1))
    };
    (2) => {
        concat!(prefetch!(1), prefetch!(1))
    };
    (1) => {
        "prefetcht1 [{ahead}]\nadd {ahead}, {ahead_step}\n"
    };
}

/// Up to 16 rows × 64 columns: four tiles of weights against one of activations.
///
/// # Safety
/// As [`Block`] says, the tiles configured for it.
pub(super) unsafe fn one_by_four<const ZERO: bool>(block: Block) {
    // SAFETY: the caller's tiles lie within its memory; prefetches may name any address.
    unsafe {
        asm!(
            ".if {zero}",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            ".else",
            "tileloadd tmm0, [{sums} + {step}]",
            "tileloadd tmm1, [{sums} + {step} + 64]",
            "tileloadd tmm2, [{sums} + {step} + 128]",
            "tileloadd tmm3, [{sums} + {step} + 192]",
            ".endif",
            "2:",
            "tileloadd tmm4, [{rows0} + {stride}]",
            "tileloadd tmm5, [{weights} + {step}]",
            "tdpbusd tmm0, tmm4, tmm5",
            prefetch!(16),
            "tileloadd tmm6, [{weights} + {step} + 64]",
            "tdpbusd tmm1, tmm4, tmm6",
            prefetch!(16),
            "tileloadd tmm7, [{weights} + {step} + 128]",
            "tdpbusd tmm2, tmm4, tmm7",
            prefetch!(16),
            "tileloadd tmm5, [{weights} + {step} + 192]",
            "tdpbusd tmm3, tmm4, tmm5",
            prefetch!(16),
            "add {weights}, 4096",
            "add {rows0}, 64",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{sums} + {step}], tmm0",
            "tilestored [{sums} + {step} + 64], tmm1",
            "tilestored [{sums} + {step} + 128], tmm2",
            "tilestored [{sums} + {step} + 192], tmm3",
            zero = const ZERO as usize,
            sums = inout(reg) block.sums => _,
            weights = inout(reg) block.weights => _,
            step = in(reg) STRIDE,
            rows0 = inout(reg) block.rows => _,
            stride = in(reg) block.stride,
            depth = inout(reg) block.depth => _,
            ahead = inout(reg) block.ahead => _,
            ahead_step = in(reg) block.ahead_step,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
}

/// 17 to 32 rows × 32 columns.
///
/// # Safety
/// As [`Block`] says, the tiles configured for it.
pub(super) unsafe fn two_by_two<const ZERO: bool>(block: Block) {
    // SAFETY: the caller's tiles lie within its memory; prefetches may name any address.
    unsafe {
        asm!(
            ".if {zero}",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            ".else",
            "tileloadd tmm0, [{sums} + {step}]",
            "tileloadd tmm1, [{sums} + {step} + 64]",
            "add {sums}, {sum_step}",
            "tileloadd tmm2, [{sums} + {step}]",
            "tileloadd tmm3, [{sums} + {step} + 64]",
            "sub {sums}, {sum_step}",
            ".endif",
            "2:",
            "tileloadd tmm4, [{rows0} + {stride}]",
            "tileloadd tmm6, [{weights} + {step}]",
            "tdpbusd tmm0, tmm4, tmm6",
            prefetch!(8),
            "tileloadd tmm7, [{weights} + {step} + 64]",
            "tdpbusd tmm1, tmm4, tmm7",
            prefetch!(8),
            "tileloadd tmm5, [{rows1} + {stride}]",
            "tdpbusd tmm2, tmm5, tmm6",
            prefetch!(8),
            "tdpbusd tmm3, tmm5, tmm7",
            prefetch!(8),
            "add {weights}, 4096",
            "add {rows0}, 64",
            "add {rows1}, 64",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{sums} + {step}], tmm0",
            "tilestored [{sums} + {step} + 64], tmm1",
            "add {sums}, {sum_step}",
            "tilestored [{sums} + {step}], tmm2",
            "tilestored [{sums} + {step} + 64], tmm3",
            zero = const ZERO as usize,
            sums = inout(reg) block.sums => _,
            sum_step = in(reg) block.sum_step,
            weights = inout(reg) block.weights => _,
            step = in(reg) STRIDE,
            rows0 = inout(reg) block.rows => _,
            rows1 = inout(reg) block.rows.add(block.row_step) => _,
            stride = in(reg) block.stride,
            depth = inout(reg) block.depth => _,
            ahead = inout(reg) block.ahead => _,
            ahead_step = in(reg) block.ahead_step,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
}

/// 33 to 48 rows × 16 columns.
///
/// # Safety
/// As [`Block`] says, the tiles configured for it.
pub(super) unsafe fn three_by_one<const ZERO: bool>(block: Block) {
    // SAFETY: the caller's tiles lie within its memory; prefetches may name any address.
    unsafe {
        asm!(
            ".if {zero}",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            ".else",
            "tileloadd tmm0, [{sums} + {step}]",
            "add {sums}, {sum_step}",
            "tileloadd tmm1, [{sums} + {step}]",
            "add {sums}, {sum_step}",
            "tileloadd tmm2, [{sums} + {step}]",
            "sub {sums}, {sum_step}",
            "sub {sums}, {sum_step}",
            ".endif",
            "2:",
            "tileloadd tmm7, [{weights} + {step}]",
            "tileloadd tmm4, [{rows0} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm7",
            prefetch!(5),
            "tileloadd tmm5, [{rows1} + {stride}]",
            "tdpbusd tmm1, tmm5, tmm7",
            prefetch!(5),
            "tileloadd tmm6, [{rows2} + {stride}]",
            "tdpbusd tmm2, tmm6, tmm7",
            prefetch!(5),
            "add {weights}, 4096",
            "add {rows0}, 64",
            "add {rows1}, 64",
            "add {rows2}, 64",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{sums} + {step}], tmm0",
            "add {sums}, {sum_step}",
            "tilestored [{sums} + {step}], tmm1",
            "add {sums}, {sum_step}",
            "tilestored [{sums} + {step}], tmm2",
            zero = const ZERO as usize,
            sums = inout(reg) block.sums => _,
            sum_step = in(reg) block.sum_step,
            weights = inout(reg) block.weights => _,
            step = in(reg) STRIDE,
            rows0 = inout(reg) block.rows => _,
            rows1 = inout(reg) block.rows.add(block.row_step) => _,
            rows2 = inout(reg) block.rows.add(2 * block.row_step) => _,
            stride = in(reg) block.stride,
            depth = inout(reg) block.depth => _,
            ahead = inout(reg) block.ahead => _,
            ahead_step = in(reg) block.ahead_step,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
}

/// 49 to 64 rows × 16 columns.
///
/// # Safety
/// As [`Block`] says, the tiles configured for it.
pub(super) unsafe fn four_by_one<const ZERO: bool>(block: Block) {
    // SAFETY: the caller's tiles lie within its memory; prefetches may name any address.
    unsafe {
        asm!(
            ".if {zero}",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            ".else",
            "tileloadd tmm0, [{sums} + {step}]",
            "add {sums}, {sum_step}",
            "tileloadd tmm1, [{sums} + {step}]",
            "add {sums}, {sum_step}",
            "tileloadd tmm2, [{sums} + {step}]",
            "add {sums}, {sum_step}",
            "tileloadd tmm3, [{sums} + {step}]",
            "sub {sums}, {sum_step}",
            "sub {sums}, {sum_step}",
            "sub {sums}, {sum_step}",
            ".endif",
            "2:",
            "tileloadd tmm7, [{weights} + {step}]",
            "tileloadd tmm4, [{rows0} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm7",
            prefetch!(4),
            "tileloadd tmm5, [{rows1} + {stride}]",
            "tdpbusd tmm1, tmm5, tmm7",
            prefetch!(4),
            "tileloadd tmm4, [{rows2} + {stride}]",
            "tdpbusd tmm2, tmm4, tmm7",
            prefetch!(4),
            "tileloadd tmm6, [{rows3} + {stride}]",
            "tdpbusd tmm3, tmm6, tmm7",
            prefetch!(4),
            "add {weights}, 4096",
            "add {rows0}, 64",
            "add {rows1}, 64",
            "add {rows2}, 64",
            "add {rows3}, 64",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{sums} + {step}], tmm0",
            "add {sums}, {sum_step}",
            "tilestored [{sums} + {step}], tmm1",
            "add {sums}, {sum_step}",
            "tilestored [{sums} + {step}], tmm2",
            "add {sums}, {sum_step}",
            "tilestored [{sums} + {step}], tmm3",
            zero = const ZERO as usize,
            sums = inout(reg) block.sums => _,
            sum_step = in(reg) block.sum_step,
            weights = inout(reg) block.weights => _,
            step = in(reg) STRIDE,
            rows0 = inout(reg) block.rows => _,
            rows1 = inout(reg) block.rows.add(block.row_step) => _,
            rows2 = inout(reg) block.rows.add(2 * block.row_step) => _,
            rows3 = inout(reg) block.rows.add(3 * block.row_step) => _,
            stride = in(reg) block.stride,
            depth = inout(reg) block.depth => _,
            ahead = inout(reg) block.ahead => _,
            ahead_step = in(reg) block.ahead_step,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
}
