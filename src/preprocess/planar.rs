//! Antialiased resize of one plane of 8-bit samples to the encoder's input: the filter is Pillow's, the
//! arithmetic is made for speed.
//!
//! What it gives is within a few hundredths of a code of the exact convolution, within a few tenths for
//! filters over hundreds of samples; Pillow rounds to a code between its passes and after them, see
//! [`super::resample`]. The vertical pass comes first, so that both run along rows.
//!
//! A weight has 14 fraction bits, a sum of products of a column `Σ w·s` is rounded to 6 and fits 16
//! bits: `Σ|w| < 1.6` for both filters, and 1.6·255·2⁶ < 2¹⁵. The sum of these along a row is below
//! 1.6·2¹⁴·2¹⁵ < 2³⁰.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::ops::Range;

use super::resample::{kernel, radius, to_f64, truncate};
use crate::bundle::manifest::Resize;

/// Fraction bits of a weight.
const WEIGHT_BITS: u32 = 14;
/// Fraction bits between the passes.
const BETWEEN_BITS: u32 = 6;
/// From a sum of a column to what is between.
const SHIFT: u32 = WEIGHT_BITS - BETWEEN_BITS;
const HALF: i32 = 1 << (SHIFT - 1);
/// What the sum of a row is multiplied with.
const UNIT: f32 = 1.0 / (1 << (WEIGHT_BITS + BETWEEN_BITS)) as f32;
/// Columns that are summed at once.
const LANES: usize = 16;
/// Weights of an output position come in multiples of this, along rows.
const STEP: usize = 8;
/// Output positions of a row that are summed at once.
const AT_ONCE: usize = 4;

/// Part of a resize along one axis: output positions `first .. first + count` of `output`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    /// Where the input begins, in samples of the plane; it may begin within one.
    pub start: f64,
    /// Its length, in samples.
    pub length: f64,
    /// Full output length in pixels, ≥ 1.
    pub output: usize,
    /// First output position that is kept.
    pub first: usize,
    /// How many are kept.
    pub count: usize,
    /// Samples that the plane has.
    pub samples: usize,
}

impl Axis {
    /// The kept output of `axis`, from the input that begins at `start` in a plane of so many samples.
    pub fn of(axis: super::Axis, start: f64, length: f64, samples: usize) -> Self {
        Self {
            start,
            length,
            output: axis.output,
            first: axis.first,
            count: axis.count,
            samples,
        }
    }

    /// The same for equal axes, and for no others.
    pub fn key(&self) -> [u64; 6] {
        let number = |n: usize| n as u64;
        [
            self.start.to_bits(),
            self.length.to_bits(),
            number(self.output),
            number(self.first),
            number(self.count),
            number(self.samples),
        ]
    }

    /// Samples that the kept positions read, before they are held within the input.
    pub fn reads(&self, filter: Resize) -> Range<f64> {
        let scale = self.length / to_f64(self.output);
        let support = radius(filter) * scale.max(1.0);
        let at = |position: f64| self.start + position * scale;
        let (first, last) = (
            to_f64(self.first) + 0.5,
            to_f64(self.first + self.count) - 0.5,
        );
        at(first) - support..at(last) + support
    }
}

/// Weights of one axis.
#[derive(Debug)]
pub(super) struct Weights {
    /// First sample, per output position; the last ones again, up to a multiple of [`AT_ONCE`].
    starts: Vec<usize>,
    /// `stride` per start, zeros at the end.
    weights: Vec<i16>,
    /// How many positions there are.
    count: usize,
    stride: usize,
    /// Weights of an output position that are not padding, at most.
    longest: usize,
}

impl Weights {
    /// As Pillow's `precompute_coeffs` for a `box`; nothing outside of the input is read.
    pub fn new(axis: Axis, filter: Resize) -> Self {
        let scale = axis.length / to_f64(axis.output);
        let filter_scale = scale.max(1.0);
        let support = radius(filter) * filter_scale;
        let low = truncate(axis.start).min(axis.samples.saturating_sub(1));
        let high =
            truncate((axis.start + axis.length).ceil()).clamp(low + 1, axis.samples.max(low + 1));
        let rows: Vec<(usize, Vec<i16>)> = (axis.first..axis.first + axis.count)
            .map(|position| {
                let center = axis.start + (to_f64(position) + 0.5) * scale;
                let start = truncate(center - support + 0.5).clamp(low, high - 1);
                let end = truncate(center + support + 0.5).clamp(start + 1, high);
                let raw: Vec<f64> = (start..end)
                    .map(|x| kernel(filter, (to_f64(x) - center + 0.5) / filter_scale))
                    .collect();
                (start, fixed(&raw))
            })
            .collect();
        let longest = rows.iter().map(|(_, weights)| weights.len()).max();
        let longest = longest.unwrap_or(1);
        let stride = longest.next_multiple_of(STEP);
        let padded = rows.len().next_multiple_of(AT_ONCE);
        let mut weights = Vec::with_capacity(stride * padded);
        let mut starts = Vec::with_capacity(padded);
        let again = std::iter::repeat_n(rows.last(), padded - rows.len());
        for (start, row) in rows.iter().chain(again.flatten()) {
            starts.push(*start);
            weights.extend_from_slice(row);
            weights.resize(starts.len() * stride, 0);
        }
        Self {
            starts,
            weights,
            count: rows.len(),
            stride,
            longest,
        }
    }

    fn span(&self) -> Range<usize> {
        let first = self.starts.iter().min().copied().unwrap_or(0);
        let last = self.starts.iter().max().copied().unwrap_or(0);
        first..last + self.longest
    }
}

/// Normalised weights whose sum is exactly one: what rounding leaves goes to the greatest.
fn fixed(raw: &[f64]) -> Vec<i16> {
    let one = f64::from(1 << WEIGHT_BITS);
    let sum: f64 = raw.iter().sum();
    let sum = if sum == 0.0 { 1.0 } else { sum };
    let mut weights: Vec<i16> = raw.iter().map(|weight| round(weight / sum * one)).collect();
    let total: i32 = weights.iter().map(|weight| i32::from(*weight)).sum();
    if let Some(greatest) = weights.iter_mut().max() {
        let exact = i32::from(*greatest) + (1 << WEIGHT_BITS) - total;
        *greatest = i16::try_from(exact).unwrap_or(*greatest);
    }
    weights
}

/// Samples of one plane, rows `stride` apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub samples: &'a [u8],
    pub stride: usize,
}

/// A resize, row by row.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    source: Source<'a>,
    horizontal: &'a Weights,
    vertical: &'a Weights,
    /// Columns that are read.
    columns: Range<usize>,
    /// These of one output row, resized along y; what a padded weight or vector reads behind them.
    line: Vec<i16>,
}

impl<'a> Rows<'a> {
    /// Resizes `source`.
    pub fn new(source: Source<'a>, horizontal: &'a Weights, vertical: &'a Weights) -> Self {
        let columns = horizontal.span();
        let padded = (columns.len() + horizontal.stride).next_multiple_of(LANES);
        Self {
            source,
            horizontal,
            vertical,
            columns,
            line: vec![0; padded],
        }
    }

    /// Codes of output row number `position`, not held within 0–255.
    ///
    /// # Panics
    /// When `out` has another length than the horizontal axis keeps.
    pub fn row(&mut self, position: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.horizontal.count, "columns");
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = avx2::Avx2::detect() {
            return avx2.row(self, position, out);
        }
        self.portable_row(position, out);
    }

    /// The specification of [`Rows::row`].
    fn portable_row(&mut self, position: usize, out: &mut [f32]) {
        self.down(position, column_sums);
        self.along(out, |samples, weights| {
            std::array::from_fn(|n| to_f32(dot(samples[n], weights[n])) * UNIT)
        });
    }

    /// The vertical pass, [`LANES`] columns at a time; these may be beyond the row, and then mean
    /// nothing.
    #[inline(always)]
    fn down(&mut self, position: usize, sums: impl Fn(Window<'_>, &[i16], &mut [i16; LANES])) {
        let from = position * self.vertical.stride;
        let weights = &self.vertical.weights[from..from + self.vertical.longest];
        let at = self.vertical.starts[position] * self.source.stride + self.columns.start;
        let (blocks, _) = self.line.as_chunks_mut::<LANES>();
        let blocks = blocks.iter_mut().take(self.columns.len().div_ceil(LANES));
        for (n, block) in blocks.enumerate() {
            let window = Window {
                source: self.source,
                at: at + n * LANES,
            };
            sums(window, weights, block);
        }
    }

    /// The horizontal pass, [`AT_ONCE`] positions at a time: `codes` gives their sums times [`UNIT`].
    #[inline(always)]
    fn along(
        &self,
        out: &mut [f32],
        codes: impl Fn([&[i16]; AT_ONCE], [&[i16]; AT_ONCE]) -> [f32; AT_ONCE],
    ) {
        let stride = self.horizontal.stride;
        let (starts, _) = self.horizontal.starts.as_chunks::<AT_ONCE>();
        let weights = self.horizontal.weights.chunks_exact(AT_ONCE * stride);
        let positions = starts.iter().zip(weights);
        for (out, (starts, weights)) in out.chunks_mut(AT_ONCE).zip(positions) {
            let samples = std::array::from_fn(|n| {
                let at = starts[n] - self.columns.start;
                &self.line[at..at + stride]
            });
            let weights = std::array::from_fn(|n| &weights[n * stride..][..stride]);
            let codes = codes(samples, weights);
            match out.first_chunk_mut() {
                Some(out) => *out = codes,
                None => out.copy_from_slice(&codes[..out.len()]),
            }
        }
    }
}

/// 1.5 · 2²³: an `f32` of this size has no fraction bits, so that a sum with it is rounded.
const INTEGER: f32 = 12_582_912.0;

/// From codes of YCbCr or of luma to one channel of RGB: rounded to a code, then `black + unit · code`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToValues {
    /// What Cb and Cr add to the channel.
    pub chroma: [f32; 2],
    /// The value of code 0.
    pub black: f32,
    /// What a code adds to it.
    pub unit: f32,
}

impl ToValues {
    /// A row of each component to a row of values.
    pub fn row(self, codes: &[Vec<f32>], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = avx2::Avx2::detect() {
            return avx2.to_values(self, codes, out);
        }
        self.values(codes, out);
    }

    #[inline(always)]
    fn values(self, codes: &[Vec<f32>], out: &mut [f32]) {
        let value =
            |code: f32| self.black + self.unit * (code.clamp(0.0, 255.0) + INTEGER - INTEGER);
        match codes {
            [luma, cb, cr, ..] => {
                let [from_cb, from_cr] = self.chroma;
                let chroma = cb.iter().zip(cr);
                for ((out, luma), (cb, cr)) in out.iter_mut().zip(luma).zip(chroma) {
                    let chroma = from_cb * (cb - 128.0) + from_cr * (cr - 128.0);
                    *out = value(luma + chroma);
                }
            }
            [luma, ..] => {
                for (out, luma) in out.iter_mut().zip(luma) {
                    *out = value(*luma);
                }
            }
            [] => {}
        }
    }
}

/// [`LANES`] columns of some rows.
#[derive(Clone, Copy)]
struct Window<'a> {
    source: Source<'a>,
    at: usize,
}

impl Window<'_> {
    /// The first sample of the first of `rows` rows, and where the next row is, when all are there.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn all(&self, rows: usize) -> Option<(*const u8, usize)> {
        let length = rows.checked_sub(1)? * self.source.stride + LANES;
        let samples = self.source.samples.get(self.at..)?.get(..length)?;
        Some((samples.as_ptr(), self.source.stride))
    }

    /// Of row number `row`; 0 behind the end.
    #[inline(always)]
    fn row(&self, row: usize) -> [u8; LANES] {
        let at = self.at + row * self.source.stride;
        match self.source.samples.get(at..).and_then(<[u8]>::first_chunk) {
            Some(samples) => *samples,
            None => self.last(at),
        }
    }

    #[cold]
    fn last(&self, at: usize) -> [u8; LANES] {
        let rest = self.source.samples.get(at..).unwrap_or_default();
        let mut samples = [0; LANES];
        samples
            .iter_mut()
            .zip(rest)
            .for_each(|(to, from)| *to = *from);
        samples
    }
}

/// Weighted sums of columns, rounded to [`BETWEEN_BITS`].
fn column_sums(window: Window<'_>, weights: &[i16], out: &mut [i16; LANES]) {
    let mut sums = [HALF; LANES];
    for (row, weight) in weights.iter().enumerate() {
        let samples = window.row(row);
        for (sum, sample) in sums.iter_mut().zip(samples) {
            *sum += i32::from(*weight) * i32::from(sample);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = between(sum);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it fits, see above")]
fn between(sum: i32) -> i16 {
    (sum >> SHIFT) as i16
}

fn dot(samples: &[i16], weights: &[i16]) -> i32 {
    let products = samples.iter().zip(weights);
    products
        .map(|(sample, weight)| i32::from(*sample) * i32::from(*weight))
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "24 of 30 bits are left")]
fn to_f32(sum: i32) -> f32 {
    sum as f32
}

#[expect(clippy::cast_possible_truncation, reason = "weights are below 2")]
fn round(weight: f64) -> i16 {
    weight.round() as i16
}

#[cfg(test)]
mod tests;
