//! NEON with the dot product extension: 8 rows × 8 columns.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::lanes;
use super::super::layout::{GROUP, PANEL};
use super::prefetch::prefetch_part;
use super::{Microkernel, Tile, TileStage};

/// # Safety
/// As [`TileStage::run`]; the CPU has the dot product extension.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run<S: TileStage>(stage: S) {
    // SAFETY: as the caller promises.
    unsafe { stage.run::<NeonDot>() };
}

/// `sdot` by element: four wrapping sums of four products s8 · s8 each; a register of activations
/// holds four groups of a row, each of which is taken as the common factor of four columns. Sixteen
/// sums hide the latency; eight registers of activations and two of weights stand beside them.
struct NeonDot;

/// Columns of a register of weights.
const VECTOR: usize = 4;
const VECTORS: usize = 2;
/// Groups of a register of activations.
const STEP: usize = 4;

impl Microkernel for NeonDot {
    type Lanes = lanes::Neon;
    const ROWS: usize = 8;

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
                4 => rows::<4>(tile),
                5 => rows::<5>(tile),
                6 => rows::<6>(tile),
                7 => rows::<7>(tile),
                _ => rows::<8>(tile),
            }
        }
    }
}

/// `sums[i] + Σ w[4i + b] · a[4 · LANE + b]`; as `vdotq_laneq_s32`, which is not stable yet.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const LANE: u32>(mut sums: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the extension is enabled here; the instruction touches its registers only.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {a:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            a = in(vreg) a,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// # Safety
/// As [`Microkernel::tile`] for `R` rows.
#[inline(always)]
unsafe fn rows<const R: usize>(tile: Tile) {
    for column in (0..PANEL).step_by(VECTOR * VECTORS) {
        // SAFETY: the caller has the extension; all loads lie within the rows and the panel, as
        // `groups` is a multiple of 4.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); VECTORS]; R];
            for step in 0..tile.groups / STEP {
                if column == 0 {
                    prefetch_part(&tile, step, tile.groups / STEP);
                }
                let a: [int8x16_t; R] = std::array::from_fn(|r| {
                    vld1q_s8(tile.rows.add(r * tile.stride + step * 16).cast())
                });
                macro_rules! group {
                    ($lane:literal) => {
                        let at = ((step * STEP + $lane) * PANEL + column) * GROUP;
                        let w: [int8x16_t; VECTORS] =
                            std::array::from_fn(|j| vld1q_s8(tile.panel.add(at + 16 * j)));
                        for (sums, a) in sums.iter_mut().zip(a) {
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = sdot::<$lane>(*sum, w, a);
                            }
                        }
                    };
                }
                group!(0);
                group!(1);
                group!(2);
                group!(3);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    vst1q_s32(tile.sums.add(r * PANEL + column + j * VECTOR), *sum);
                }
            }
        }
    }
}
