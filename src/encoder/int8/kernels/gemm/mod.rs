//! The matrix product: a driver over panels and row blocks, and one microkernel per instruction set.
//!
//! ```text
//! acc[r][n] = Σₖ a[r][k] · w[n][k]                          exact in i32 (K ≤ 65536)
//! y[r][n]   = (acc − zero[r] · Σₖ w[n][k]) as f32 · (scale[r] · scale[n]) + bias[n]
//! ```
//!
//! with the last product and sum rounded once. A microkernel gives the integers of up to
//! [`Microkernel::ROWS`] rows × 64 columns; the epilogue is the same code for all.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
mod epilogue;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
mod prefetch;
mod scalar;

use std::mem::MaybeUninit;
use std::ops::Range;

use super::isa::Isa;
use super::lanes::{LANES, Lanes};
use super::layout::{GROUP, PANEL, PackedMatrix, padded_k};
use super::rows::QuantizedRows;
use epilogue::Stream;
pub(super) use epilogue::{Epilogue, Sink};
use prefetch::LINE;
pub(super) use prefetch::prefetch_for_writing;

/// Most rows of any microkernel.
pub(super) const MOST_ROWS: usize = 64;

/// Bytes that a kernel prefetches ahead where it reads each weight once.
const AHEAD: usize = 32 << 10;

/// Sums of a tile, `[rows][64] i32`.
#[repr(C, align(64))]
pub(super) struct Sums(MaybeUninit<[i32; MOST_ROWS * PANEL]>);

impl Sums {
    pub(super) const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut i32 {
        self.0.as_mut_ptr().cast()
    }
}

/// A tile to compute: rows of activations against one panel.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "the scalar kernel does not prefetch")
)]
pub(super) struct Tile {
    /// `rows` rows of `4 · groups` bytes, `stride` bytes apart.
    pub(super) rows: *const u8,
    pub(super) stride: usize,
    pub(super) count: usize,
    /// `[groups][64][4] s8`; `groups` is a multiple of [`Microkernel::GROUPS`].
    pub(super) panel: *const i8,
    pub(super) groups: usize,
    /// Where the sums go, `[count][64]`.
    pub(super) sums: *mut i32,
    /// What to prefetch while at it (only an address: it need not be readable), and how many bytes.
    pub(super) ahead: *const i8,
    pub(super) ahead_len: usize,
    /// Where the values of the first row will go (only an address), and how many f32 lie from row to
    /// row; null where they go to a buffer that is in the cache.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only AVX-512 asks for the lines")
    )]
    pub(super) out: *const f32,
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only AVX-512 asks for the lines")
    )]
    pub(super) out_stride: usize,
}

/// The integer product of a few rows with a panel.
pub(super) trait Microkernel {
    /// For the epilogue.
    type Lanes: Lanes;
    /// Most rows of a tile.
    const ROWS: usize;
    /// Rows that it computes together, a divisor of [`Microkernel::ROWS`]: a tile of another height
    /// computes some in vain.
    const ROWS_AT_ONCE: usize = 1;
    /// Groups that it takes at a time, a divisor of 16.
    const GROUPS: usize = 4;
    /// Most pairs of rows that [`Microkernel::pairs`] takes.
    const PAIRS: usize = Self::ROWS / 2;
    /// # Safety
    /// The CPU has the instruction set.
    unsafe fn begin() -> Self;

    /// Writes `sums[r][n] = Σₖ a[r][k] · w[n][k]` of the stored codes: what they have been lessened
    /// by is the epilogue's.
    ///
    /// # Safety
    /// The CPU has the instruction set; the pointers are valid for the sizes given in [`Tile`], and
    /// 1 ≤ count ≤ [`Microkernel::ROWS`].
    unsafe fn tile(&mut self, tile: Tile);

    /// As [`Microkernel::tile`] for the first `vectors` vectors of sixteen columns; what becomes of the
    /// sums of the others is open.
    ///
    /// # Safety
    /// As [`Microkernel::tile`].
    #[inline(always)]
    unsafe fn narrow_tile(&mut self, tile: Tile, vectors: usize) {
        let _ = vectors;
        // SAFETY: as the caller promises.
        unsafe { self.tile(tile) };
    }

    /// As [`Microkernel::tile`] for rows of numbers below 2¹⁵, each as two rows of bytes, high ones
    /// first: 256 times the sums of the first row and those of the second are together the sums of the
    /// numbers. How they are divided between the two is the kernel's choice, as long as both are exact
    /// in f32, or the first is 0, wherever the bytes' own sums are below 2²⁴.
    ///
    /// # Safety
    /// As [`Microkernel::tile`], for an even count up to 2 · [`Microkernel::PAIRS`].
    #[inline(always)]
    unsafe fn pairs(&mut self, tile: Tile) {
        // SAFETY: as the caller promises; the default takes no more rows than a tile has.
        unsafe { self.tile(tile) };
    }
}

/// One product, shared by the threads.
pub(super) struct Product<'a> {
    pub(super) x: &'a QuantizedRows,
    pub(super) w: &'a PackedMatrix,
    pub(super) epilogue: Epilogue<'a>,
}

/// A computation written once over microkernels.
pub(super) trait TileStage {
    /// Runs it. Implementations are `#[inline(always)]`, so that the body is compiled with the
    /// instruction set of the caller.
    ///
    /// # Safety
    /// The CPU has the instruction set of `M`.
    unsafe fn run<M: Microkernel>(self);
}

/// Runs a stage on the microkernel of an instruction set.
///
/// # Safety
/// The CPU supports `isa`, and what the stage asks for.
pub(super) unsafe fn run_tiles<S: TileStage>(isa: Isa, stage: S) {
    // SAFETY: the CPU supports `isa` (all branches).
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => amx::run(stage),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::run(stage),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avx_vnni::run(stage),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::run(stage),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => neon_i8mm::run(stage),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => neon_dot::run(stage),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::run(stage),
            _ => stage.run::<scalar::Scalar>(),
        }
    }
}

/// Some rows of one panel of a product.
pub(super) struct Part<'a> {
    pub(super) product: &'a Product<'a>,
    pub(super) panel: usize,
    pub(super) rows: Range<usize>,
}

impl TileStage for Part<'_> {
    /// # Safety
    /// As [`TileStage::run`]; no other thread touches this part of the output.
    #[inline(always)]
    unsafe fn run<M: Microkernel>(self) {
        let Self {
            product,
            panel,
            rows,
        } = self;
        let (x, w) = (product.x, product.w);
        let stride = x.stride();
        let panel_len = w.panel_len();
        let packed = w.packed();
        assert!(
            rows.end <= x.rows() && x.k() == w.k() && (panel + 1) * panel_len <= packed.len(),
            "rows {rows:?} of {}, panel {panel} of {}",
            x.rows(),
            w.panels()
        );
        let weights = packed[panel * panel_len..].as_ptr().cast::<i8>();
        let blocks = rows.len().div_ceil(M::ROWS);
        let mut sums = Sums::new();
        let sums = sums.as_mut_ptr();
        // SAFETY: the caller has the instruction set.
        let mut kernel = unsafe { M::begin() };
        let starts = |block: usize| rows.start + height(&rows, block, blocks, M::ROWS_AT_ONCE);
        for block in 0..blocks {
            let first = starts(block);
            let count = starts(block + 1) - first;
            // With one block the panel itself is being streamed: stay a little ahead of it, and do
            // not let the stream rest during the epilogue.
            let (ahead, lines_in_epilogue) = if blocks == 1 {
                let lines = (count * PANEL / LANES).min(panel_len / LINE / 2);
                (panel_len.min(AHEAD), lines)
            } else {
                (panel_len + block * panel_len / blocks, 0)
            };
            // Past the end of this matrix lies the next one that will be used, in a packed tower.
            let ahead_len = panel_len / blocks - lines_in_epilogue * LINE;
            let strides = product.epilogue.strides;
            let place = strides.place(first, panel * PANEL);
            // SAFETY: only an address.
            let out = unsafe { product.epilogue.out.part(place, 1) };
            let tile = Tile {
                rows: x.codes()[first * stride..].as_ptr(),
                stride,
                count,
                panel: weights,
                groups: padded_k(w.k()) / GROUP,
                sums,
                ahead: weights.wrapping_add(ahead),
                ahead_len,
                out,
                out_stride: strides.row,
            };
            // SAFETY: the caller has the instruction set; the codes hold whole rows up to
            // `rows.end`, the weights a panel from here, the sums the most rows of any kernel.
            unsafe {
                kernel.tile(tile);
                product.epilogue.run::<M::Lanes>(
                    x,
                    w,
                    panel,
                    first,
                    count,
                    sums,
                    Stream {
                        next: weights.wrapping_add(ahead + ahead_len),
                        lines: lines_in_epilogue,
                    },
                );
            }
        }
    }
}

/// Rows of the first `block` of `blocks` blocks of equal height (but for a difference of `at_once`), so
/// that the last is not left with a row or two. All blocks but the last hold a multiple of `at_once`.
fn height(rows: &Range<usize>, block: usize, blocks: usize, at_once: usize) -> usize {
    let units = rows.len().div_ceil(at_once);
    (block * units / blocks * at_once).min(rows.len())
}

#[cfg(test)]
mod tests {
    use super::height;

    #[test]
    fn blocks_cover_all_rows_and_none_is_higher_than_a_kernel_takes() {
        for at_once in [1, 2] {
            for most in [2, 6, 8] {
                for len in 1..200_usize {
                    let blocks = len.div_ceil(most);
                    let rows = 5..5 + len;
                    let ends: Vec<usize> = (0..=blocks)
                        .map(|block| height(&rows, block, blocks, at_once))
                        .collect();
                    assert_eq!((ends[0], ends[blocks]), (0, len));
                    for ends in ends.windows(2) {
                        let count = ends[1] - ends[0];
                        assert!((1..=most).contains(&count), "{count} of {len} rows");
                        assert!(ends[1] == len || count.is_multiple_of(at_once));
                    }
                }
            }
        }
    }
}
