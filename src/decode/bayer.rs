//! Raw Bayer data to RGB: the least a bare CSI sensor needs to be looked at.
//!
//! The steps are those of any raw converter, at their simplest: subtract the black level, bilinear
//! demosaic, grey-world white balance (each channel's mean becomes the green mean; Buchsbaum 1980),
//! and the sRGB transfer curve (IEC 61966-2-1). A camera's own image processor does better.

use image::RgbImage;

use super::{DecodeError, Layout};
use crate::frame::{Bayer, BayerOrder, Frame};

/// Samples are looked up with this many bits.
const TABLE_BITS: u32 = 12;
const TABLE_LEN: usize = 1 << TABLE_BITS;

/// White balance gains are kept within this factor of 1, so that a picture of one colour keeps it.
const MAX_GAIN: f64 = 4.0;

/// The black level is the value this share of the samples lies below…
const BLACK_QUANTILE: f64 = 0.001;
/// …but never more than this share of the range: a bright picture has no black in it. Sensors put
/// black at 4–7 % of the range.
const MAX_BLACK: f64 = 0.08;

/// Demosaics `frame` into `image`. Edges mirror, which keeps the colour pattern in phase.
///
/// Samples of 10 and 12 bits lie in the low bits of two little-endian bytes, as V4L2 says. The
/// capture units of later Jetsons put them in the high bits instead, under the same format code;
/// a frame with any sample above the range is taken to be of that kind.
pub(super) fn demosaic(
    frame: &Frame,
    bayer: Bayer,
    layout: &Layout,
    image: &mut RgbImage,
) -> Result<(), DecodeError> {
    let (width, height) = (frame.width_px as usize, frame.height_px as usize);
    if width < 2 || height < 2 {
        return Err(DecodeError::Unsupported(format!(
            "a Bayer picture of {width}x{height} pixels; at least 2x2 are needed"
        )));
    }
    let raw = Raw {
        samples: samples(frame, bayer, layout)?,
        width,
    };
    let tables = tables(&raw, bayer.order);

    let (mut above, mut here, mut below) =
        (vec![0; width + 2], vec![0; width + 2], vec![0; width + 2]);
    raw.pad_row(1, &mut above);
    raw.pad_row(0, &mut here);
    raw.pad_row(1, &mut below);
    let (red_row, red_column) = red_position(bayer.order);
    for (y, out) in image.chunks_exact_mut(width * 3).enumerate() {
        let rows = [above.as_slice(), &here, &below];
        // In a red row the coloured pixels are red and their diagonal neighbours blue.
        let is_red_row = y % 2 == red_row;
        let coloured = if is_red_row {
            red_column
        } else {
            1 - red_column
        };
        let (own, other) = if is_red_row { (0, 2) } else { (2, 0) };
        for (x, rgb) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let [n, c, s] = rows.map(|row| &row[x..x + 3]);
            let linear = if x % 2 == coloured {
                let cross = (n[1] + s[1] + c[0] + c[2]) / 4;
                let diagonal = (n[0] + n[2] + s[0] + s[2]) / 4;
                [c[1], cross, diagonal]
            } else {
                [(c[0] + c[2]) / 2, c[1], (n[1] + s[1]) / 2]
            };
            rgb[own] = tables[own][linear[0] as usize];
            rgb[1] = tables[1][linear[1] as usize];
            rgb[other] = tables[other][linear[2] as usize];
        }
        std::mem::swap(&mut above, &mut here);
        std::mem::swap(&mut here, &mut below);
        // The row after the last mirrors the one before it.
        let next = if y + 2 < height { y + 2 } else { height - 2 };
        raw.pad_row(next, &mut below);
    }
    Ok(())
}

/// Row and column, 0 or 1, of the red pixel in the 2×2 cell.
fn red_position(order: BayerOrder) -> (usize, usize) {
    match order {
        BayerOrder::Rggb => (0, 0),
        BayerOrder::Grbg => (0, 1),
        BayerOrder::Gbrg => (1, 0),
        BayerOrder::Bggr => (1, 1),
    }
}

/// Rows of `width` samples of [`TABLE_BITS`] bits.
struct Raw {
    samples: Vec<u16>,
    width: usize,
}

impl Raw {
    /// Copies row `y` with one mirrored sample on each side; sums of four fit `u32`.
    fn pad_row(&self, y: usize, out: &mut [u32]) {
        let row = &self.samples[y * self.width..][..self.width];
        for (out, &sample) in out[1..].iter_mut().zip(row) {
            *out = u32::from(sample);
        }
        out[0] = out[2];
        out[self.width + 1] = out[self.width - 1];
    }
}

/// The samples without padding, shifted to [`TABLE_BITS`] bits.
fn samples(frame: &Frame, bayer: Bayer, layout: &Layout) -> Result<Vec<u16>, DecodeError> {
    let rows = || {
        frame
            .data
            .chunks(layout.stride)
            .take(frame.height_px as usize)
            .map(|row| &row[..layout.row_bytes])
    };
    let mut samples = Vec::with_capacity(frame.width_px as usize * frame.height_px as usize);
    match bayer.bits {
        8 => {
            for row in rows() {
                samples.extend(row.iter().map(|&byte| u16::from(byte) << (TABLE_BITS - 8)));
            }
        }
        bits @ (10 | 12) => {
            for row in rows() {
                let (pairs, _) = row.as_chunks::<2>();
                samples.extend(pairs.iter().map(|&pair| u16::from_le_bytes(pair)));
            }
            let is_high_aligned = samples.iter().fold(0, |all, &s| all | s) >> bits != 0;
            if is_high_aligned {
                samples.iter_mut().for_each(|s| *s >>= 16 - TABLE_BITS);
            } else {
                let shift = TABLE_BITS - u32::from(bits);
                samples.iter_mut().for_each(|s| *s <<= shift);
            }
        }
        bits => {
            return Err(DecodeError::Unsupported(format!(
                "Bayer samples of {bits} bits; 8, 10 and 12 are decoded"
            )));
        }
    }
    Ok(samples)
}

/// One table per channel from linear samples to sRGB codes, with black level and white balance.
fn tables(raw: &Raw, order: BayerOrder) -> [Vec<u8>; 3] {
    let black = black_level(&raw.samples);
    let means = channel_means(raw, order, black);
    let gain = |mean: f64| {
        if mean > 0.0 && means[1] > 0.0 {
            (means[1] / mean).clamp(1.0 / MAX_GAIN, MAX_GAIN)
        } else {
            1.0
        }
    };
    let range = f64::from(TABLE_CODES - 1 - u32::from(black));
    means.map(|mean| {
        let scale = gain(mean) / range;
        (0..TABLE_CODES)
            .map(|sample| srgb(f64::from(sample.saturating_sub(u32::from(black))) * scale))
            .collect()
    })
}

const TABLE_CODES: u32 = 1 << TABLE_BITS;

/// See [`BLACK_QUANTILE`].
fn black_level(samples: &[u16]) -> u16 {
    let mut histogram = vec![0_usize; TABLE_LEN];
    for &sample in samples {
        histogram[usize::from(sample)] += 1;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of at most 40 million samples, of 4096 codes"
    )]
    let (below, limit) = (
        (samples.len() as f64 * BLACK_QUANTILE) as usize,
        (TABLE_LEN as f64 * MAX_BLACK) as u16,
    );
    let mut seen = 0;
    (0..limit)
        .find(|&code| {
            seen += histogram[usize::from(code)];
            seen > below
        })
        .unwrap_or(limit)
}

/// Mean of red, green and blue samples above `black`.
fn channel_means(raw: &Raw, order: BayerOrder, black: u16) -> [f64; 3] {
    let (red_row, red_column) = red_position(order);
    let mut sums = [0_u64; 3];
    let mut counts = [0_u64; 3];
    for (y, row) in raw.samples.chunks_exact(raw.width).enumerate() {
        let mut column_sums = [0_u64; 2];
        let (pairs, last) = row.as_chunks::<2>();
        for pair in pairs {
            column_sums[0] += u64::from(pair[0].saturating_sub(black));
            column_sums[1] += u64::from(pair[1].saturating_sub(black));
        }
        column_sums[0] += last
            .iter()
            .map(|s| u64::from(s.saturating_sub(black)))
            .sum::<u64>();
        for (x, sum) in column_sums.into_iter().enumerate() {
            let channel = match (y % 2 == red_row, x == red_column) {
                (true, true) => 0,
                (false, false) => 2,
                _ => 1,
            };
            sums[channel] += sum;
            counts[channel] += (pairs.len() + if x == 0 { last.len() } else { 0 }) as u64;
        }
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "sums of 40 million 12-bit samples stay below 2^38"
    )]
    std::array::from_fn(|c| sums[c] as f64 / counts[c].max(1) as f64)
}

/// The sRGB transfer function of a linear value, as an 8-bit code; values outside 0–1 saturate.
fn srgb(linear: f64) -> u8 {
    let linear = linear.clamp(0.0, 1.0);
    let encoded = if linear <= 0.003_130_8 {
        12.92 * linear
    } else {
        1.055 * linear.powf(1.0 / 2.4) - 0.055
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0–255 by construction"
    )]
    {
        (encoded * 255.0).round() as u8
    }
}
