//! Depthwise convolution over one block of channels.
//!
//! ```text
//! y[p, c] = clip(bias[c] + Σ_(ky, kx) x[p·S + (ky, kx), c] · w[ky, kx, c])
//! ```
//!
//! The source has its zero border in memory, so that no pixel is special. `R` neighbouring pixels of
//! a row are kept in accumulators and each tap is loaded once for all of them. Sums start from the
//! bias and run over `ky`, then `kx`.

use super::LANES;
use super::register::Register;

/// One row of output pixels of one channel block.
#[derive(Clone, Copy)]
pub struct DepthwiseRow {
    /// Top left source pixel of the first output; pixels are `LANES` apart.
    pub src: *const f32,
    /// Floats from one source row to the next.
    pub src_pitch: usize,
    /// `[K·K, LANES]`.
    pub weights: *const f32,
    /// `[LANES]`.
    pub bias: *const f32,
    /// First output pixel.
    pub dst: *mut f32,
    /// Output pixels.
    pub pixels: usize,
    /// Lowest and highest value.
    pub clip: Option<[f32; 2]>,
}

/// `K×K` taps, stride `S`; at most `R` pixels at once.
///
/// # Safety
/// The CPU has `V`'s instructions. `src` is valid for `K` rows of `(pixels − 1)·S + K` source pixels,
/// `weights` for `K·K` and `bias` for one block, `dst` for `pixels`, and nothing else touches `dst`
/// meanwhile.
#[inline(always)]
pub unsafe fn row<V: Register, const K: usize, const S: usize, const R: usize>(job: &DepthwiseRow) {
    for part in (0..LANES).step_by(V::WIDTH) {
        let mut x = 0;
        // SAFETY: each tile covers pixels x.. below job.pixels, of one part of the block.
        unsafe {
            while x + R <= job.pixels {
                tile::<V, K, S, R>(job, x, part);
                x += R;
            }
            while x + 3 <= job.pixels {
                tile::<V, K, S, 3>(job, x, part);
                x += 3;
            }
            while x < job.pixels {
                tile::<V, K, S, 1>(job, x, part);
                x += 1;
            }
        }
    }
}

/// Output pixels `x .. x + R`, lanes `part .. part + WIDTH`.
///
/// # Safety
/// As [`row`], for these pixels.
#[inline(always)]
unsafe fn tile<V: Register, const K: usize, const S: usize, const R: usize>(
    job: &DepthwiseRow,
    x: usize,
    part: usize,
) {
    // SAFETY: source pixels x·S .. x·S + (R − 1)·S + K of rows below K, taps below K·K, outputs
    // x .. x + R: inside what the caller vouches for.
    unsafe {
        let mut sums = [V::load(job.bias.add(part)); R];
        for ky in 0..K {
            let src = job.src.add(ky * job.src_pitch + x * S * LANES + part);
            let weights = job.weights.add(ky * K * LANES + part);
            for kx in 0..K {
                let tap = V::load(weights.add(kx * LANES));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let value = V::load(src.add((r * S + kx) * LANES));
                    *sum = sum.mul_add(value, tap);
                }
            }
        }
        if let Some([low, high]) = job.clip {
            let (low, high) = (V::splat(low), V::splat(high));
            for sum in &mut sums {
                *sum = sum.clamp(low, high);
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            sum.store(job.dst.add((x + r) * LANES + part));
        }
    }
}
