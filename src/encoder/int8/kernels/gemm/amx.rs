//! AMX-INT8: up to 64 rows × 64 columns in tiles of 16 × 16 sums.

mod tiles;

use std::arch::asm;

use super::super::lanes;
use super::super::layout::{GROUP, PANEL};
use super::{Microkernel, Tile, TileStage};
use tiles::{Block, four_by_one, one_by_four, three_by_one, two_by_two};

/// # Safety
/// As [`TileStage::run`]; the CPU has AMX-INT8 with the permission to use it, and AVX-512 F, BW, VL,
/// DQ.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn run<S: TileStage>(stage: S) {
    // SAFETY: as the caller promises.
    unsafe { stage.run::<Amx>() };
}

/// `tdpbusd`: 16 × 16 wrapping sums of 64 products u8 · s8 each, in as many cycles as the tile of
/// activations has rows. A tile of weights is 16 groups (64 inputs) × 16 columns, read straight from
/// the panel at a stride of one group.
///
/// Of the eight tile registers four are sums: 1 × 4, 2 × 2, 3 × 1 or 4 × 1 tiles by the number of
/// rows, which are spread evenly over the tiles. From three tiles on, every weight is loaded once;
/// inputs are taken 512 at a time, so that the activations come from the first-level cache and the
/// panel is consumed in pieces of 32 KiB, each prefetched while the one before is worked on. Between
/// pieces the sums rest in memory.
struct Amx {
    /// Rows that the tiles are configured for; 0 before the first configuration.
    configured: usize,
}

/// Rows, and columns of 32 bits, of a tile.
const SIDE: usize = 16;
/// Inputs of a tile.
const DEPTH: usize = 64;
/// Tiles of inputs that are taken at a time.
const PIECE: usize = 8;
/// Bytes from one group of a panel to the next, and from one row of sums to the next.
const STRIDE: usize = PANEL * GROUP;

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Drop for Amx {
    fn drop(&mut self) {
        if self.configured > 0 {
            // SAFETY: tiles were configured, so the instruction exists. It puts them back into their
            // initial state, which makes switching threads cheap again.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
        }
    }
}

impl Microkernel for Amx {
    type Lanes = lanes::Avx512;
    const ROWS: usize = 4 * SIDE;
    const GROUPS: usize = DEPTH / GROUP;

    #[inline(always)]
    unsafe fn begin() -> Self {
        Self { configured: 0 }
    }

    #[inline(always)]
    unsafe fn tile(&mut self, tile: Tile) {
        // SAFETY: as the caller promises; the tiles are configured for this number of rows.
        unsafe {
            self.configure(tile.count);
            match tile.count.div_ceil(SIDE) {
                1 => pieces(tile, 4, one_by_four::<true>, one_by_four::<false>),
                2 => pieces(tile, 2, two_by_two::<true>, two_by_two::<false>),
                3 => pieces(tile, 1, three_by_one::<true>, three_by_one::<false>),
                _ => pieces(tile, 1, four_by_one::<true>, four_by_one::<false>),
            }
        }
    }
}

/// Rows of every tile but the last, which has the rest.
fn tile_rows(count: usize) -> usize {
    count.div_ceil(count.div_ceil(SIDE))
}

impl Amx {
    /// Registers 0–3 are sums, 7 (and 6 where two tiles of weights are held) are weights; 4 and 5
    /// are activations (6 for the last of three or four tiles of them).
    ///
    /// # Safety
    /// The CPU has AMX-INT8 with permission; 1 ≤ count ≤ 64.
    #[inline(always)]
    unsafe fn configure(&mut self, count: usize) {
        if self.configured == count {
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 16")]
        let full = tile_rows(count) as u8;
        let tiles = count.div_ceil(SIDE);
        #[expect(clippy::cast_possible_truncation, reason = "at most 16")]
        let last = (count - tile_rows(count) * (tiles - 1)) as u8;
        let mut rows = [0; 16];
        rows[..8].copy_from_slice(&match tiles {
            1 => [full, full, full, full, full, 16, 16, 16],
            2 => [full, full, last, last, full, last, 16, 16],
            3 => [full, full, last, 0, full, full, last, 16],
            _ => [full, full, full, last, full, full, last, 16],
        });
        let config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: std::array::from_fn(|i| if rows[i] == 0 { 0 } else { 64 }),
            rows,
        };
        // SAFETY: the caller has AMX; a valid configuration of palette 1 (at most 16 rows of 64
        // bytes, eight tiles).
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        self.configured = count;
    }
}

/// Runs a kernel of `width` tiles of columns over the pieces of a panel: `start` on the first, which
/// begins with zero sums, `resume` on the others.
///
/// # Safety
/// As [`Microkernel::tile`], the tiles configured for the kernels.
#[inline(always)]
unsafe fn pieces(tile: Tile, width: usize, start: unsafe fn(Block), resume: unsafe fn(Block)) {
    const GROUPS: usize = DEPTH / GROUP;
    let rows = tile_rows(tile.count);
    let depth = tile.groups / GROUPS;
    let mut ahead = tile.ahead;
    for first in (0..depth).step_by(PIECE) {
        for column in (0..PANEL).step_by(width * SIDE) {
            let depth = (depth - first).min(PIECE);
            // SAFETY: all tiles lie within the rows, the panel and the sums.
            unsafe {
                let block = Block {
                    rows: tile.rows.add(first * DEPTH),
                    row_step: rows * tile.stride,
                    stride: tile.stride,
                    weights: tile.panel.add(first * GROUPS * STRIDE + column * GROUP),
                    sums: tile.sums.add(column),
                    sum_step: rows * STRIDE,
                    depth,
                    ahead,
                    ahead_step: 64 * tile.ahead_len / (tile.groups * STRIDE),
                };
                if first == 0 {
                    start(block)
                } else {
                    resume(block)
                }
            }
            ahead = ahead.wrapping_add(depth * width * tile.ahead_len / (tile.groups / GROUPS * 4));
        }
    }
}
