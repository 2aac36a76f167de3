//! NEON with the int8 matrix multiply extension: 8 rows × 8 columns.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::lanes;
use super::super::layout::{GROUP, PANEL};
use super::prefetch::prefetch_part;
use super::{Microkernel, Tile, TileStage};

/// # Safety
/// As [`TileStage::run`]; the CPU has the int8 matrix multiply extension.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn run<S: TileStage>(stage: S) {
    // SAFETY: as the caller promises.
    unsafe { stage.run::<NeonI8mm>() };
}

/// `smmla`: 2 × 2 wrapping sums of eight products s8 · s8 each, from two rows × 8 inputs and two
/// columns × 8 inputs. Two rows of activations interleave by 64 bits; two groups of the panel
/// interleave by 32 bits into columns of eight inputs.
struct NeonI8mm;

/// Columns of a register of a panel.
const VECTOR: usize = 4;
const VECTORS: usize = 2;
/// Groups of a register of activations.
const STEP: usize = 4;

impl Microkernel for NeonI8mm {
    type Lanes = lanes::Neon;
    const ROWS: usize = 8;
    const ROWS_AT_ONCE: usize = 2;

    #[inline(always)]
    unsafe fn begin() -> Self {
        Self
    }

    #[inline(always)]
    unsafe fn tile(&mut self, tile: Tile) {
        // SAFETY: as the caller promises.
        unsafe {
            match tile.count.div_ceil(2) {
                1 => pairs::<1>(tile),
                2 => pairs::<2>(tile),
                3 => pairs::<3>(tile),
                _ => pairs::<4>(tile),
            }
        }
    }
}

/// `sums[2i + j] + Σ a[8i + b] · w[8j + b]`; as `vmmlaq_s32`, which is not stable yet.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn smmla(mut sums: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
    // SAFETY: the extension is enabled here; the instruction touches its registers only.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {a:v}.16b, {w:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The first (or second) 64 bits of both.
#[inline(always)]
fn zip_rows(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [
            vreinterpretq_s8_s64(vzip1q_s64(a, b)),
            vreinterpretq_s8_s64(vzip2q_s64(a, b)),
        ]
    }
}

/// Four columns of two groups, as two columns × 8 inputs each.
#[inline(always)]
fn zip_groups(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
        [
            vreinterpretq_s8_s32(vzip1q_s32(a, b)),
            vreinterpretq_s8_s32(vzip2q_s32(a, b)),
        ]
    }
}

/// # Safety
/// As [`Microkernel::tile`] for `2 · P` rows or one less: the last row is then computed twice and
/// stored once.
#[inline(always)]
unsafe fn pairs<const P: usize>(tile: Tile) {
    for column in (0..PANEL).step_by(VECTOR * VECTORS) {
        // SAFETY: the caller has the extension; all loads lie within the rows and the panel, as
        // `groups` is a multiple of 4; rows from `count` on are neither read nor written.
        unsafe {
            let mut sums = [[[vdupq_n_s32(0); 2]; VECTORS]; P];
            for step in 0..tile.groups / STEP {
                if column == 0 {
                    prefetch_part(&tile, step, tile.groups / STEP);
                }
                let row = |r: usize| {
                    let at = r.min(tile.count - 1) * tile.stride + step * 16;
                    vld1q_s8(tile.rows.add(at).cast())
                };
                let a: [[int8x16_t; 2]; P] =
                    std::array::from_fn(|p| zip_rows(row(2 * p), row(2 * p + 1)));
                for half in 0..2 {
                    let group = step * STEP + 2 * half;
                    let weights = |group: usize, j: usize| {
                        vld1q_s8(
                            tile.panel
                                .add((group * PANEL + column + j * VECTOR) * GROUP),
                        )
                    };
                    for j in 0..VECTORS {
                        let w = zip_groups(weights(group, j), weights(group + 1, j));
                        for p in 0..P {
                            sums[p][j][0] = smmla(sums[p][j][0], a[p][half], w[0]);
                            sums[p][j][1] = smmla(sums[p][j][1], a[p][half], w[1]);
                        }
                    }
                }
            }
            for (p, sums) in sums.iter().enumerate() {
                for (j, [left, right]) in sums.iter().enumerate() {
                    let (left, right) =
                        (vreinterpretq_s64_s32(*left), vreinterpretq_s64_s32(*right));
                    let out = tile.sums.add(2 * p * PANEL + column + j * VECTOR);
                    vst1q_s32(out, vreinterpretq_s32_s64(vzip1q_s64(left, right)));
                    if 2 * p + 1 < tile.count {
                        let below = vreinterpretq_s32_s64(vzip2q_s64(left, right));
                        vst1q_s32(out.add(PANEL), below);
                    }
                }
            }
        }
    }
}
