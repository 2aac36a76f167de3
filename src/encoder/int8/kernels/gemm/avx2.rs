//! AVX2: 6 rows × 8 columns, widened to 16 bits so that nothing saturates.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::super::buffer::Aligned;
use super::super::lanes;
use super::super::layout::{GROUP, PANEL};
use super::{Microkernel, Tile, TileStage};

/// # Safety
/// As [`TileStage::run`]; the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<S: TileStage>(stage: S) {
    // SAFETY: as the caller promises.
    unsafe { stage.run::<Avx2>() };
}

/// `vpmaddubsw` would add two products u8 · s8 in 16 bits and saturate (2 · 255 · 127 > 32767).
/// Here both sides are widened to i16 first, and `vpmaddwd` adds two products exactly in 32 bits. A
/// register then holds four columns × two halves of a group; the halves are added at the end. The
/// rows of a tile are widened once for all columns.
struct Avx2;

thread_local! {
    /// `[rows][4 · groups] u16`: the rows of a tile, widened.
    static WIDE: RefCell<Aligned<u16>> = const { RefCell::new(Aligned::new()) };
}

/// Columns of a register of 16-bit weights.
const VECTOR: usize = 4;
const VECTORS: usize = 2;

impl Microkernel for Avx2 {
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
                1 => rows::<1>(tile, widen(tile)),
                2 => rows::<2>(tile, widen(tile)),
                3 => rows::<3>(tile, widen(tile)),
                4 => rows::<4>(tile, widen(tile)),
                5 => rows::<5>(tile, widen(tile)),
                _ => rows::<6>(tile, widen(tile)),
            }
        }
    }
}

/// The rows of a tile in 16 bits, `[count][4 · groups]`, in memory of this thread that the next call
/// uses again.
///
/// # Safety
/// As [`Microkernel::tile`].
#[inline(always)]
unsafe fn widen(tile: Tile) -> *const u16 {
    let k = tile.groups * GROUP;
    let wide = WIDE.with_borrow_mut(|wide| {
        wide.resize(tile.count * k);
        wide.as_mut_ptr()
    });
    for r in 0..tile.count {
        for at in (0..k).step_by(16) {
            // SAFETY: the caller has the instruction set; rows hold `k` bytes, a multiple of 16, and
            // the buffer as many values for each.
            unsafe {
                let codes = _mm_loadu_si128(tile.rows.add(r * tile.stride + at).cast());
                _mm256_storeu_si256(wide.add(r * k + at).cast(), _mm256_cvtepu8_epi16(codes));
            }
        }
    }
    wide
}

/// # Safety
/// As [`Microkernel::tile`] for `R` rows; `wide` holds them in 16 bits.
#[inline(always)]
unsafe fn rows<const R: usize>(tile: Tile, wide: *const u16) {
    let k = tile.groups * GROUP;
    for column in (0..PANEL).step_by(VECTOR * VECTORS) {
        // SAFETY: the caller has the instruction set; all loads lie within the rows and the panel.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); VECTORS]; R];
            for group in 0..tile.groups {
                let w = tile.panel.add((group * PANEL + column) * GROUP);
                let w: [__m256i; VECTORS] = std::array::from_fn(|j| {
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(w.add(16 * j).cast()))
                });
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = wide.add(r * k + group * GROUP);
                    let a = _mm256_set1_epi64x(a.cast::<i64>().read_unaligned());
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, w));
                    }
                }
            }
            for (r, [low, high]) in sums.iter().enumerate() {
                // Columns 0 1 4 5 | 2 3 6 7, put right by the permute.
                let pairs = _mm256_hadd_epi32(*low, *high);
                let columns = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
                _mm256_storeu_si256(tile.sums.add(r * PANEL + column).cast(), columns);
            }
        }
    }
}
