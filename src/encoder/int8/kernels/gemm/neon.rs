//! NEON without the dot product extension: 4 rows × 8 columns.

use std::arch::aarch64::*;

use super::super::lanes;
use super::super::layout::{GROUP, PANEL};
use super::prefetch::prefetch_part;
use super::{Microkernel, Tile, TileStage};

/// # Safety
/// As [`TileStage::run`].
pub(super) unsafe fn run<S: TileStage>(stage: S) {
    // SAFETY: as the caller promises; NEON is part of aarch64.
    unsafe { stage.run::<Neon>() };
}

/// `smull`, `smlal`, `sadalp`: activations less 128 are in −128..=127, weights in −127..=127, so that
/// the sum of two products, at most 2 · 128 · 127 = 32512, fits 16 bits; pairs are then added into 32.
/// A register of sums holds two columns × two halves of a group; the halves are added at the end.
struct Neon;

/// Columns of a register of weights.
const VECTOR: usize = 4;
const VECTORS: usize = 2;

impl Microkernel for Neon {
    type Lanes = lanes::Neon;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn begin() -> Self {
        Self
    }

    #[inline(always)]
    unsafe fn tile(&mut self, tile: Tile) {
        // SAFETY: as the caller promises.
        unsafe {
            match tile.count {
                1 => rows::<1>(tile),
                2 => rows::<2>(tile),
                3 => rows::<3>(tile),
                _ => rows::<4>(tile),
            }
        }
    }
}

/// # Safety
/// As [`Microkernel::tile`] for `R` rows.
#[inline(always)]
unsafe fn rows<const R: usize>(tile: Tile) {
    for column in (0..PANEL).step_by(VECTOR * VECTORS) {
        // SAFETY: all loads lie within the rows and the panel; `groups` is even.
        unsafe {
            let mut sums = [[[vdupq_n_s32(0); 2]; VECTORS]; R];
            for group in (0..tile.groups).step_by(2) {
                if column == 0 {
                    prefetch_part(&tile, group / 2, tile.groups / 2);
                }
                let weights = |group: usize, j: usize| {
                    vld1q_s8(
                        tile.panel
                            .add((group * PANEL + column + j * VECTOR) * GROUP),
                    )
                };
                let w: [[int8x16_t; 2]; VECTORS] =
                    std::array::from_fn(|j| [weights(group, j), weights(group + 1, j)]);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = tile.rows.add(r * tile.stride + group * GROUP);
                    let a0 = vreinterpretq_s8_s32(vld1q_dup_s32(a.cast()));
                    let a1 = vreinterpretq_s8_s32(vld1q_dup_s32(a.add(GROUP).cast()));
                    for (sums, w) in sums.iter_mut().zip(w) {
                        let low = vmull_s8(vget_low_s8(a0), vget_low_s8(w[0]));
                        let low = vmlal_s8(low, vget_low_s8(a1), vget_low_s8(w[1]));
                        sums[0] = vpadalq_s16(sums[0], low);
                        let high = vmlal_high_s8(vmull_high_s8(a0, w[0]), a1, w[1]);
                        sums[1] = vpadalq_s16(sums[1], high);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (j, [low, high]) in sums.iter().enumerate() {
                    let out = tile.sums.add(r * PANEL + column + j * VECTOR);
                    vst1q_s32(out, vpaddq_s32(*low, *high));
                }
            }
        }
    }
}
