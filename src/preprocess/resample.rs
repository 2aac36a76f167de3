//! Pillow's antialiased resize for 8-bit RGB, bit for bit (`libImaging/Resample.c`): convolution
//! weights in fixed point, a horizontal pass, rounding to 8 bits, then a vertical pass.
//!
//! Only the output pixels that are asked for are computed, so a centre crop costs nothing for what
//! it throws away.

use crate::bundle::manifest::Resize;

#[cfg(target_arch = "x86_64")]
mod avx2;

/// Fraction bits of a weight: 32 minus 8 for the sample and 2 for overshoot, as Pillow's.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half of one output unit: rounds to nearest.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Rows that the horizontal pass works on at once, one per vector lane.
const LANES: usize = 8;

/// Part of a resize along one axis: output positions `first .. first + count` of `output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Axis {
    /// Input length in pixels, ≥ 1.
    pub input: usize,
    /// Full output length in pixels, ≥ 1.
    pub output: usize,
    /// First output position that is kept.
    pub first: usize,
    /// How many are kept.
    pub count: usize,
}

/// Convolution weights of one axis.
#[derive(Debug)]
pub(super) struct Taps {
    /// First input position and number of weights, per output position.
    bounds: Vec<(usize, usize)>,
    /// Weights scaled by 2^[`PRECISION_BITS`], `stride` per output position.
    weights: Vec<i32>,
    stride: usize,
}

impl Taps {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc`.
    pub fn new(axis: Axis, filter: Resize) -> Self {
        let scale = to_f64(axis.input) / to_f64(axis.output);
        let filter_scale = scale.max(1.0);
        let support = radius(filter) * filter_scale;
        let rows: Vec<(usize, Vec<i32>)> = (axis.first..axis.first + axis.count)
            .map(|position| {
                let center = (to_f64(position) + 0.5) * scale;
                let start = truncate(center - support + 0.5);
                let end = truncate(center + support + 0.5).min(axis.input);
                let raw: Vec<f64> = (start..end)
                    .map(|x| kernel(filter, (to_f64(x) - center + 0.5) / filter_scale))
                    .collect();
                let sum: f64 = raw.iter().sum();
                let fixed = raw
                    .iter()
                    .map(|weight| to_fixed(if sum == 0.0 { *weight } else { weight / sum }));
                trim(start, fixed.collect())
            })
            .collect();
        let stride = rows.iter().map(|(_, w)| w.len()).max().unwrap_or(0);
        let mut weights = Vec::with_capacity(stride * rows.len());
        let mut bounds = Vec::with_capacity(rows.len());
        for (start, row) in rows {
            bounds.push((start, row.len()));
            weights.extend_from_slice(&row);
            weights.resize(bounds.len() * stride, 0);
        }
        Self {
            bounds,
            weights,
            stride,
        }
    }

    fn get(&self, position: usize) -> (usize, &[i32]) {
        let (start, count) = self.bounds[position];
        let at = position * self.stride;
        (start, &self.weights[at..at + count])
    }

    /// Input positions that any kept output position reads.
    fn span(&self) -> std::ops::Range<usize> {
        let start = self.bounds.iter().map(|b| b.0).min().unwrap_or(0);
        let end = self.bounds.iter().map(|b| b.0 + b.1).max().unwrap_or(0);
        start..end
    }
}

/// Drops zero weights at both ends: they add nothing, and an axis that keeps its size becomes a copy.
fn trim(start: usize, mut weights: Vec<i32>) -> (usize, Vec<i32>) {
    let lead = weights.iter().take_while(|w| **w == 0).count();
    if lead == weights.len() {
        return (start, vec![0; weights.len().min(1)]);
    }
    weights.drain(..lead);
    while weights.last() == Some(&0) {
        weights.pop();
    }
    (start + lead, weights)
}

/// Filter radius in input pixels at scale 1.
pub(super) fn radius(filter: Resize) -> f64 {
    match filter {
        Resize::Bicubic => 2.0,
        Resize::Bilinear => 1.0,
    }
}

/// `bicubic_filter` (a = −0.5) and `bilinear_filter`, in Pillow's order of operations.
pub(super) fn kernel(filter: Resize, x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match filter {
        Resize::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        Resize::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        Resize::Bilinear if x < 1.0 => 1.0 - x,
        _ => 0.0,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "pixel positions are far below 2^53"
)]
pub(super) fn to_f64(position: usize) -> f64 {
    position as f64
}

/// C's `(int)`, then clamped at 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the truncation is the specification; `as` saturates below 0"
)]
pub(super) fn truncate(position: f64) -> usize {
    position as usize
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "weights are below 2 and the truncation after adding a half is the specification"
)]
fn to_fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (if weight < 0.0 {
        scaled - 0.5
    } else {
        scaled + 0.5
    }) as i32
}

/// `clip8`.
fn clip(sum: i32) -> u8 {
    u8::try_from((sum >> PRECISION_BITS).clamp(0, 255)).unwrap_or(u8::MAX)
}

/// A rectangle of an interleaved 8-bit RGB picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// Samples, from the rectangle's first one on.
    pub samples: &'a [u8],
    /// Samples from one row to the next.
    pub stride: usize,
}

impl<'a> Source<'a> {
    /// Pixels `columns` of row `y`, `3·columns` samples.
    fn row(&self, y: usize, columns: &std::ops::Range<usize>) -> &'a [u8] {
        let at = y * self.stride;
        &self.samples[at + columns.start * 3..at + columns.end * 3]
    }
}

/// Resizes `source`; returns `[horizontal.count × vertical.count]` interleaved RGB.
pub(super) fn resample(source: Source<'_>, horizontal: &Taps, vertical: &Taps) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just detected.
        return unsafe { avx2::resample(source, horizontal, vertical) };
    }
    portable(source, horizontal, vertical)
}

fn portable(source: Source<'_>, horizontal: &Taps, vertical: &Taps) -> Vec<u8> {
    let rows = vertical.span();
    let squeezed = horizontal_pass(source, &rows, horizontal);
    vertical_pass(&squeezed, rows.start, horizontal.bounds.len() * 3, vertical)
}

/// Rows `rows` of `source`, resized along x. [`LANES`] rows are interleaved sample by sample, so
/// that every weight is multiplied with a whole vector.
fn horizontal_pass(source: Source<'_>, rows: &std::ops::Range<usize>, taps: &Taps) -> Vec<u8> {
    let columns = taps.span();
    let width = taps.bounds.len() * 3;
    let mut out = vec![0u8; rows.len() * width];
    let mut lanes = vec![[0i32; LANES]; columns.len() * 3];
    for (block, target) in out.chunks_mut(width * LANES).enumerate() {
        let count = target.len() / width;
        let first = rows.start + block * LANES;
        for lane in 0..count {
            let row = source.row(first + lane, &columns);
            for (cell, sample) in lanes.iter_mut().zip(row) {
                cell[lane] = i32::from(*sample);
            }
        }
        for position in 0..taps.bounds.len() {
            let (start, weights) = taps.get(position);
            let at = (start - columns.start) * 3;
            let window = &lanes[at..at + weights.len() * 3];
            let mut sums = [[HALF; LANES]; 3];
            for (pixel, weight) in window.chunks_exact(3).zip(weights) {
                for (sum, cell) in sums.iter_mut().zip(pixel) {
                    for (s, sample) in sum.iter_mut().zip(cell) {
                        *s += sample * weight;
                    }
                }
            }
            for lane in 0..count {
                for (channel, sum) in sums.iter().enumerate() {
                    target[lane * width + position * 3 + channel] = clip(sum[lane]);
                }
            }
        }
    }
    out
}

/// Inlined so that it is compiled for its caller's instructions. `squeezed` (rows of `width` samples, the first of them input row `top`) resized along y.
#[inline(always)]
fn vertical_pass(squeezed: &[u8], top: usize, width: usize, taps: &Taps) -> Vec<u8> {
    let mut out = Vec::with_capacity(taps.bounds.len() * width);
    let mut sums = vec![HALF; width];
    for position in 0..taps.bounds.len() {
        let (start, weights) = taps.get(position);
        sums.fill(HALF);
        let window = &squeezed[(start - top) * width..];
        for (row, weight) in window.chunks_exact(width).zip(weights) {
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(*sample) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| clip(*sum)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn axis(input: usize, output: usize) -> Axis {
        Axis {
            input,
            output,
            first: 0,
            count: output,
        }
    }

    /// The specification: one output sample at a time, straight from Pillow's loops.
    fn naive(pixels: &[u8], width: usize, taps_x: &Taps, taps_y: &Taps) -> Vec<u8> {
        let height = pixels.len() / (width * 3);
        let out_width = taps_x.bounds.len();
        let mut squeezed = vec![0u8; height * out_width * 3];
        for y in 0..height {
            for x in 0..out_width {
                for c in 0..3 {
                    let (start, weights) = taps_x.get(x);
                    let sum = weights.iter().enumerate().fold(HALF, |sum, (i, k)| {
                        sum + k * i32::from(pixels[(y * width + start + i) * 3 + c])
                    });
                    squeezed[(y * out_width + x) * 3 + c] = clip(sum);
                }
            }
        }
        let mut out = Vec::new();
        for y in 0..taps_y.bounds.len() {
            let (start, weights) = taps_y.get(y);
            for sample in 0..out_width * 3 {
                out.push(clip(weights.iter().enumerate().fold(
                    HALF,
                    |sum, (i, k)| {
                        sum + k * i32::from(squeezed[(start + i) * out_width * 3 + sample])
                    },
                )));
            }
        }
        out
    }

    proptest! {
        #[test]
        fn the_fast_passes_equal_the_specification(
            (width, height) in (1usize..40, 1usize..40),
            (out_width, out_height) in (1usize..24, 1usize..24),
            bicubic in any::<bool>(),
            seed in any::<u32>(),
        ) {
            let filter = if bicubic { Resize::Bicubic } else { Resize::Bilinear };
            let mut state = seed;
            let pixels: Vec<u8> = (0..width * height * 3)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state.to_be_bytes()[0]
                })
                .collect();
            let x = Taps::new(axis(width, out_width), filter);
            let y = Taps::new(axis(height, out_height), filter);
            let source = Source { samples: &pixels, stride: width * 3 };
            let expected = naive(&pixels, width, &x, &y);
            prop_assert_eq!(&portable(source, &x, &y), &expected);
            prop_assert_eq!(&resample(source, &x, &y), &expected);
        }

        #[test]
        fn a_part_of_an_axis_has_the_weights_of_the_whole(
            input in 1usize..500, output in 1usize..300, part in 0.0f64..1.0,
        ) {
            let whole = Taps::new(axis(input, output), Resize::Bicubic);
            let first = truncate(part * to_f64(output - 1));
            let count = (output - first).min(7);
            let some = Taps::new(Axis { input, output, first, count }, Resize::Bicubic);
            for i in 0..count {
                prop_assert_eq!(some.get(i), whole.get(first + i));
            }
        }
    }

    #[test]
    fn a_size_that_does_not_change_is_a_copy() {
        let taps = Taps::new(axis(9, 9), Resize::Bicubic);
        assert_eq!(taps.stride, 1);
        let pixels: Vec<u8> = (0..9 * 9 * 3).map(|i: u8| i % 251).collect();
        let source = Source {
            samples: &pixels,
            stride: 27,
        };
        assert_eq!(resample(source, &taps, &taps), pixels);
    }
}
