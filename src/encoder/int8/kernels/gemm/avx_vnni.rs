//! AVX-VNNI: 6 rows × 16 columns in 12 registers.

use std::arch::x86_64::*;

use super::super::lanes;
use super::super::layout::{GROUP, PANEL};
use super::{Microkernel, Tile, TileStage};

/// # Safety
/// As [`TileStage::run`]; the CPU has AVX2, FMA and AVX-VNNI.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) unsafe fn run<S: TileStage>(stage: S) {
    // SAFETY: as the caller promises.
    unsafe { stage.run::<AvxVnni>() };
}

/// The 256-bit `vpdpbusd`, wrapping, eight sums each. Twelve sums, two registers of weights and one
/// of activations stay within the sixteen there are; each quarter of a panel is taken in turn.
struct AvxVnni;

/// Registers of weights side by side.
const VECTORS: usize = 2;
const COLUMNS: usize = 8 * VECTORS;

impl Microkernel for AvxVnni {
    type Lanes = lanes::Avx2;
    const ROWS: usize = 6;

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
                _ => rows::<6>(tile),
            }
        }
    }
}

/// # Safety
/// As [`Microkernel::tile`] for `R` rows.
#[inline(always)]
unsafe fn rows<const R: usize>(tile: Tile) {
    for column in (0..PANEL).step_by(COLUMNS) {
        // SAFETY: the caller has the instruction set; all loads lie within the rows and the panel.
        // Prefetches may name any address.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); VECTORS]; R];
            let ahead_step = tile.ahead_len.div_ceil(tile.groups);
            for group in 0..tile.groups {
                if column == 0 {
                    let ahead = tile.ahead.wrapping_add(group * ahead_step);
                    _mm_prefetch::<_MM_HINT_T1>(ahead);
                }
                let w = tile.panel.add((group * PANEL + column) * GROUP);
                let w: [__m256i; VECTORS] =
                    std::array::from_fn(|j| _mm256_loadu_si256(w.add(32 * j).cast()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = tile.rows.add(r * tile.stride + group * GROUP);
                    let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm256_dpbusd_avx_epi32(*sum, a, w);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    let out = tile.sums.add(r * PANEL + column + 8 * j);
                    _mm256_storeu_si256(out.cast(), *sum);
                }
            }
        }
    }
}
