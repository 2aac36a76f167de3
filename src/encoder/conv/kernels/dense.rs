//! Dense convolution over blocked channels, any kernel size, without im2col.
//!
//! For output pixel `p` and output channel `o`
//!
//! ```text
//! y[p, o] = clip(bias[o] + Σ_k x[p, k] · w[k, o]) + residual[p, o]
//! ```
//!
//! where `k` runs over input channels and kernel taps. The values `x[p, k]` of one pixel lie in
//! *runs*: consecutive in memory within a run, runs anywhere; the pixel next to it finds its own
//! `STEP` floats further on. A pointwise convolution has one run per channel block, a
//! `k×k` one a run per block and tap, and a convolution over planes (an image as it comes) one per
//! plane and kernel row. So one product kernel serves them all.
//!
//! A tile of `R` pixels by `M` registers of output channels is kept in accumulators while `k` runs:
//! `M` loads of weights and `R` broadcasts for `R·M` multiply–adds. Sums start from the bias and run
//! in the order of `k`, for every tile size: the bits do not depend on how pixels are tiled.

use super::register::Register;

/// Consecutive values of one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// From the pixel's origin, floats.
    pub offset: usize,
    /// Values.
    pub len: usize,
}

/// A tile of output: some pixels of one row by one panel of channel blocks.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// Where each pixel's values lie.
    pub runs: &'a [Run],
    /// Origin of the first pixel.
    pub src: *const f32,
    /// `[K, blocks·LANES]`.
    pub weights: *const f32,
    /// Weights that will be wanted next: a cache line of them is prefetched per value of `k`.
    pub ahead: *const f32,
    /// `[blocks·LANES]`.
    pub bias: *const f32,
    /// First output pixel of the first block; pixels are `LANES` apart.
    pub dst: *mut f32,
    /// Floats from one block of output channels to the next.
    pub dst_plane: usize,
    /// Laid out as `dst`, added last; null for none.
    pub residual: *const f32,
    /// Floats from one block of the residual to the next.
    pub residual_plane: usize,
    /// Lowest and highest value.
    pub clip: Option<[f32; 2]>,
}

/// Computes `R` pixels by `M` registers; `STEP` floats lie between the origins of neighbours.
///
/// # Safety
/// The CPU has `V`'s instructions. `src` is valid for every run at each of `R` pixels, `weights` and
/// `bias` for `M` registers per value, `dst` and `residual` (when not null) for `R` pixels of each
/// block, and nothing else touches `dst` meanwhile.
#[inline(always)]
pub unsafe fn tile<V: Register, const STEP: usize, const R: usize, const M: usize>(
    tile: &Tile<'_>,
) {
    let per_block = super::LANES / V::WIDTH;
    // SAFETY: all pointers stay inside what the caller vouches for: registers m < M of the panel,
    // pixels r < R, values of a run.
    unsafe {
        let mut sums = [[V::splat(0.0); M]; R];
        for m in 0..M {
            let bias = V::load(tile.bias.add(m * V::WIDTH));
            for row in &mut sums {
                row[m] = bias;
            }
        }
        let mut weights = tile.weights;
        let mut ahead = tile.ahead;
        for run in tile.runs {
            let mut src = tile.src.add(run.offset);
            let end = src.add(run.len);
            while src < end {
                let mut column = [V::splat(0.0); M];
                for (m, value) in column.iter_mut().enumerate() {
                    *value = V::load(weights.add(m * V::WIDTH));
                }
                for (r, row) in sums.iter_mut().enumerate() {
                    let value = V::splat(*src.add(r * STEP));
                    for (sum, weight) in row.iter_mut().zip(column) {
                        *sum = sum.mul_add(value, weight);
                    }
                }
                V::prefetch(ahead);
                ahead = ahead.wrapping_add(super::LANES);
                weights = weights.add(M * V::WIDTH);
                src = src.add(1);
            }
        }
        if let Some([low, high]) = tile.clip {
            let (low, high) = (V::splat(low), V::splat(high));
            for sum in sums.as_flattened_mut() {
                *sum = sum.clamp(low, high);
            }
        }
        for m in 0..M {
            let (block, part) = (m / per_block, m % per_block * V::WIDTH);
            if !tile.residual.is_null() {
                let residual = tile.residual.add(block * tile.residual_plane + part);
                for (r, row) in sums.iter_mut().enumerate() {
                    row[m] = row[m].add(V::load(residual.add(r * super::LANES)));
                }
            }
            let dst = tile.dst.add(block * tile.dst_plane + part);
            for (r, row) in sums.iter().enumerate() {
                row[m].store(dst.add(r * super::LANES));
            }
        }
    }
}
