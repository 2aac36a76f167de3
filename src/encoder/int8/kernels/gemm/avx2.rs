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

/// Inputs up to which the sums of 15-bit numbers fit: 32767 · 127 · 512 < 2³¹.
const MOST_WIDE: usize = 512;

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
    const PAIRS: usize = 6;

    #[inline(always)]
    unsafe fn begin() -> Self {
        Self
    }

    #[inline(always)]
    unsafe fn tile(&mut self, tile: Tile) {
        // SAFETY: as the caller promises.
        unsafe {
            let codes = widen(tile);
            product(
                tile,
                Wide {
                    codes,
                    rows: tile.count,
                    sums: tile.sums,
                    step: PANEL,
                },
            );
        }
    }

    /// Numbers of 15 bits are what the product takes anyway: half the work of two rows of bytes. All of
    /// the sums go to the second row. They are converted to f32 with one rounding, and so is what other
    /// kernels make of two rows whose sums are exact in f32 (255 · 127 · 512 < 2²⁴).
    #[inline(always)]
    unsafe fn pairs(&mut self, tile: Tile) {
        // SAFETY: as the caller promises; the second half starts after whole pairs.
        unsafe {
            if tile.groups * GROUP > MOST_WIDE {
                let count = tile.count.min(Self::ROWS);
                self.tile(Tile { count, ..tile });
                if tile.count > count {
                    self.tile(Tile {
                        rows: tile.rows.add(count * tile.stride),
                        count: tile.count - count,
                        sums: tile.sums.add(count * PANEL),
                        ..tile
                    });
                }
                return;
            }
            let rows = tile.count / 2;
            for row in 0..rows {
                tile.sums.add(2 * row * PANEL).write_bytes(0, PANEL);
            }
            let (codes, sums) = (join(tile), tile.sums.add(PANEL));
            product(
                tile,
                Wide {
                    codes,
                    rows,
                    sums,
                    step: 2 * PANEL,
                },
            );
        }
    }
}

/// Rows of 16 bits, `[rows][4 · groups]`, and where their sums go, from row to row `step` apart.
#[derive(Clone, Copy)]
struct Wide {
    codes: *const u16,
    rows: usize,
    sums: *mut i32,
    step: usize,
}

/// Memory of this thread for `len` values, that the next call uses again.
fn wide(len: usize) -> *mut u16 {
    WIDE.with_borrow_mut(|wide| {
        wide.resize(len);
        wide.as_mut_ptr()
    })
}

/// The rows of a tile in 16 bits.
///
/// # Safety
/// As [`Microkernel::tile`].
#[inline(always)]
unsafe fn widen(tile: Tile) -> *const u16 {
    let k = tile.groups * GROUP;
    let wide = wide(tile.count * k);
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

/// Pairs of rows as rows of 16 bits.
///
/// # Safety
/// As [`Microkernel::pairs`].
#[inline(always)]
unsafe fn join(tile: Tile) -> *const u16 {
    let k = tile.groups * GROUP;
    let wide = wide(tile.count / 2 * k);
    for r in 0..tile.count / 2 {
        for at in (0..k).step_by(16) {
            // SAFETY: as in `widen`.
            unsafe {
                let high = tile.rows.add(2 * r * tile.stride + at);
                let low = _mm_loadu_si128(high.add(tile.stride).cast());
                let high = _mm256_cvtepu8_epi16(_mm_loadu_si128(high.cast()));
                let codes =
                    _mm256_or_si256(_mm256_slli_epi16::<8>(high), _mm256_cvtepu8_epi16(low));
                _mm256_storeu_si256(wide.add(r * k + at).cast(), codes);
            }
        }
    }
    wide
}

/// # Safety
/// As [`Microkernel::tile`], for the rows of `wide`, up to six.
#[inline(always)]
unsafe fn product(tile: Tile, wide: Wide) {
    // SAFETY: as the caller promises.
    unsafe {
        match wide.rows {
            1 => rows::<1>(tile, wide),
            2 => rows::<2>(tile, wide),
            3 => rows::<3>(tile, wide),
            4 => rows::<4>(tile, wide),
            5 => rows::<5>(tile, wide),
            _ => rows::<6>(tile, wide),
        }
    }
}

/// # Safety
/// As [`product`] for `R` rows.
#[inline(always)]
unsafe fn rows<const R: usize>(tile: Tile, wide: Wide) {
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
                    let a = wide.codes.add(r * k + group * GROUP);
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
                _mm256_storeu_si256(wide.sums.add(r * wide.step + column).cast(), columns);
            }
        }
    }
}
