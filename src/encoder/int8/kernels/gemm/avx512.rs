//! AVX-512 VNNI: 6 rows × 64 columns in 24 registers.

use std::arch::x86_64::*;

use super::super::lanes;
use super::super::layout::{GROUP, PANEL};
use super::prefetch::prefetch_for_writing;
use super::{Microkernel, Tile, TileStage};

/// # Safety
/// As [`TileStage::run`]; the CPU has AVX-512 F, BW, VL, DQ and VNNI.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn run<S: TileStage>(stage: S) {
    // SAFETY: as the caller promises.
    unsafe { stage.run::<Avx512Vnni>() };
}

/// `vpdpbusd`: sixteen sums of four products u8 · s8 each, wrapping (not the saturating form), two
/// per cycle. With six rows, 24 of them stand against four loads of weights and six broadcasts of
/// activations, which leaves the load ports idle enough to prefetch the next panel. Doing a tile's
/// epilogue vector by vector between the next one's groups takes 1.02 of the time on a Zen 4, with the
/// registers assigned by hand: out-of-order execution overlaps the two as it is.
struct Avx512Vnni;

/// Groups between two looks at the prefetch.
const STEP: usize = 4;
const LINE: usize = 64;
/// Up to so many bytes a step are asked for in the first-level cache, more in the second. Few lines
/// from memory find a buffer there while the tile runs: on a Zen 4, 33 and 50 rows take 0.96 of the
/// time. With many (16 rows) the tile's own loads wait for them: 1.2 of the time.
const NEAR: usize = 3 * LINE;
/// Vectors of columns of a panel.
const VECTORS: usize = PANEL * GROUP / LINE;

impl Microkernel for Avx512Vnni {
    type Lanes = lanes::Avx512;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn begin() -> Self {
        Self
    }

    #[inline(always)]
    unsafe fn tile(&mut self, tile: Tile) {
        // SAFETY: as the caller promises.
        unsafe { columns::<VECTORS>(tile) };
    }

    #[inline(always)]
    unsafe fn narrow_tile(&mut self, tile: Tile, vectors: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            match vectors {
                1 => columns::<1>(tile),
                2 => columns::<2>(tile),
                _ => columns::<VECTORS>(tile),
            }
        }
    }
}

/// # Safety
/// As [`Microkernel::tile`], for `V` vectors of columns.
#[inline(always)]
unsafe fn columns<const V: usize>(tile: Tile) {
    // SAFETY: as the caller promises.
    unsafe {
        match tile.count {
            1 => rows::<1, V>(tile),
            2 => rows::<2, V>(tile),
            3 => rows::<3, V>(tile),
            4 => rows::<4, V>(tile),
            5 => rows::<5, V>(tile),
            _ => rows::<6, V>(tile),
        }
    }
}

/// # Safety
/// As [`Microkernel::tile`] for `R` rows and `V` vectors of columns.
#[inline(always)]
unsafe fn rows<const R: usize, const V: usize>(tile: Tile) {
    // SAFETY: the caller has the instruction set; `groups` is a multiple of 4, so all loads lie
    // within the rows and the panel. Prefetches may name any address.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); V]; R];
        let ahead_step = tile.ahead_len * STEP / tile.groups;
        let mut ahead = tile.ahead;
        let mut w = tile.panel;
        // Two bases reach six rows by the addressing modes alone.
        let mut bases = [tile.rows, tile.rows.wrapping_add(3 * tile.stride)];
        let steps = tile.groups / STEP;
        // Half a row of outputs in each of the last steps: late enough to stay in the first level.
        let writes = if tile.out.is_null() { 0 } else { 2 * R };
        let mut out = tile.out;
        for left in (0..steps).rev() {
            if left < writes {
                prefetch_for_writing(out);
                let (half, next_row) = (PANEL / 2, tile.out_stride.wrapping_sub(PANEL / 2));
                out = out.wrapping_add(if left % 2 == 1 { half } else { next_row });
            }
            for line in (0..ahead_step).step_by(LINE) {
                let line = ahead.wrapping_add(line);
                if ahead_step <= NEAR {
                    _mm_prefetch::<_MM_HINT_T0>(line);
                } else {
                    _mm_prefetch::<_MM_HINT_T1>(line);
                }
            }
            for group in 0..STEP {
                let w = w.add(group * PANEL * GROUP);
                let w: [__m512i; V] =
                    std::array::from_fn(|j| _mm512_loadu_si512(w.add(64 * j).cast()));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = bases[r / 3].add(r % 3 * tile.stride + group * GROUP);
                    let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_dpbusd_epi32(*sum, a, w);
                    }
                }
            }
            ahead = ahead.wrapping_add(ahead_step);
            w = w.wrapping_add(STEP * PANEL * GROUP);
            bases = bases.map(|base| base.wrapping_add(STEP * GROUP));
        }
        for (r, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                _mm512_storeu_si512(tile.sums.add(r * PANEL + 16 * j).cast(), *sum);
            }
        }
    }
}
