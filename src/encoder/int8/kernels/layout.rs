//! Weights, quantized and laid out once for every kernel.

use std::fmt;

use super::buffer::{Aligned, Bytes};

/// Columns of a panel.
pub(super) const PANEL: usize = 64;
/// Inputs that lie together: the four bytes of one dot product instruction.
pub(super) const GROUP: usize = 4;
/// Inputs are padded to whole cache lines of bytes.
const K_BLOCK: usize = 64;

/// Largest `k`: |Σ a·w| ≤ 255 · 127 · 65536 = 2 122 383 360 < 2³¹.
pub const MAX_K: usize = 65_536;

/// `k` padded to a multiple of 64.
pub(super) fn padded_k(k: usize) -> usize {
    k.next_multiple_of(K_BLOCK)
}

/// Why parts do not make a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// `n` or `k` is zero, or `k` exceeds [`MAX_K`], or the packed size overflows.
    Shape {
        /// Output channels.
        n: usize,
        /// Inputs.
        k: usize,
    },
    /// A part has not the length that the shape asks for.
    Length {
        /// Which part.
        part: &'static str,
        /// Its length.
        found: usize,
        /// The length that fits `n` and `k`.
        expected: usize,
    },
    /// A packed weight is −128, outside the symmetric range that the overflow bound rests on.
    Weight,
    /// A column sum is not the sum of the column's weights.
    ColumnSum {
        /// The output channel.
        channel: usize,
    },
    /// A scale is negative.
    Scale {
        /// The output channel.
        channel: usize,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { n, k } => write!(
                f,
                "packed matrix of {n}×{k}: both must be positive and the second at most {MAX_K}"
            ),
            Self::Length {
                part,
                found,
                expected,
            } => write!(f, "packed matrix: {found} {part}, expected {expected}"),
            Self::Weight => f.write_str("packed matrix: a weight of −128 is outside −127..=127"),
            Self::ColumnSum { channel } => {
                write!(f, "packed matrix: wrong column sum of channel {channel}")
            }
            Self::Scale { channel } => {
                write!(f, "packed matrix: negative scale of channel {channel}")
            }
        }
    }
}

impl std::error::Error for LayoutError {}

/// An `[n, k]` weight matrix (one row per output channel), symmetric s8 per output channel.
///
/// Bytes are ordered `[N/64][K/4][64][4]` with N = n and K = k each padded to 64 with zeros
/// ("n64k4"): a panel of 64 output channels is one stream of memory; 64 bytes of it are what a
/// 512-bit `vpdpbusd` takes, 32 a 256-bit one, 16 an `sdot`, 16 rows of 64 bytes at a stride of 256
/// an AMX tile.
///
/// The value of a weight is `scales[n] · w`. Column sums Σₖ w turn a product with unsigned
/// activations of any zero point into that of centred ones.
#[derive(Clone)]
pub struct PackedMatrix {
    n: usize,
    k: usize,
    packed: Bytes,
    /// `[N] f32`, padded with zeros.
    scales: Aligned<f32>,
    /// `[N] i32`, padded with zeros.
    column_sums: Aligned<i32>,
}

impl PackedMatrix {
    /// Quantizes `[n, k] f32` weights: scale = max |w| / 127 of the channel, code = w / scale rounded
    /// half to even. A channel whose scale would be below the smallest normal f32 gets scale 1 and
    /// zeros; one with a NaN or an infinity gets scale NaN, so that its outputs are NaN.
    ///
    /// # Panics
    /// When `weights` has not `n · k` values, or as [`LayoutError::Shape`].
    pub fn quantize(weights: &[f32], n: usize, k: usize) -> Self {
        let bytes = packed_len(n, k).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(weights.len(), n * k, "weights of [{n}, {k}]");
        let mut packed = Aligned::<u8>::zeroed(bytes);
        let columns = n.next_multiple_of(PANEL);
        let mut scales = Aligned::zeroed(columns);
        let mut column_sums = Aligned::zeroed(columns);
        let mut codes = vec![0i8; k];
        for (channel, row) in weights.chunks_exact(k).enumerate() {
            scales[channel] = quantize_channel(row, &mut codes);
            column_sums[channel] = codes.iter().map(|&w| i32::from(w)).sum();
            for (i, &code) in codes.iter().enumerate() {
                packed[offset(channel, i, k)] = code.cast_unsigned();
            }
        }
        Self {
            n,
            k,
            packed: Bytes::owned(packed),
            scales,
            column_sums,
        }
    }

    /// A matrix from stored parts: `packed` as [`PackedMatrix::packed`] gave it, `n` scales and `n`
    /// column sums.
    ///
    /// Reads the packed bytes once to see that no weight is −128 and that the column sums are right;
    /// neither could make a kernel unsafe, but the result would be wrong without a word.
    ///
    /// # Errors
    /// When the parts do not fit together.
    pub fn from_parts(
        n: usize,
        k: usize,
        packed: Bytes,
        scales: Vec<f32>,
        column_sums: Vec<i32>,
    ) -> Result<Self, LayoutError> {
        let matrix = Self::from_trusted_parts(n, k, packed, scales, column_sums)?;
        matrix.check_weights()?;
        Ok(matrix)
    }

    /// As [`PackedMatrix::from_parts`], without reading the packed bytes: for those whose checksum
    /// was seen, or that are to be mapped without being touched. A wrong weight or sum gives wrong
    /// numbers (integer sums wrap), nothing worse.
    ///
    /// # Errors
    /// When the lengths do not fit the shape or a scale is negative.
    pub fn from_trusted_parts(
        n: usize,
        k: usize,
        packed: Bytes,
        scales: Vec<f32>,
        column_sums: Vec<i32>,
    ) -> Result<Self, LayoutError> {
        let length = |part, found, expected| {
            if found == expected {
                Ok(())
            } else {
                Err(LayoutError::Length {
                    part,
                    found,
                    expected,
                })
            }
        };
        length("packed bytes", packed.len(), packed_len(n, k)?)?;
        length("scales", scales.len(), n)?;
        length("column sums", column_sums.len(), n)?;
        if let Some(channel) = scales.iter().position(|s| *s < 0.0) {
            return Err(LayoutError::Scale { channel });
        }
        let columns = n.next_multiple_of(PANEL);
        Ok(Self {
            n,
            k,
            packed,
            scales: Aligned::padded(&scales, columns),
            column_sums: Aligned::padded(&column_sums, columns),
        })
    }

    fn check_weights(&self) -> Result<(), LayoutError> {
        let packed = self.packed();
        for panel in 0..packed.len() / self.panel_len() {
            let mut sums = [0i32; PANEL];
            let bytes = &packed[panel * self.panel_len()..][..self.panel_len()];
            for groups in bytes.chunks_exact(PANEL * GROUP) {
                for (sum, group) in sums.iter_mut().zip(groups.chunks_exact(GROUP)) {
                    for &w in group {
                        if w.cast_signed() == i8::MIN {
                            return Err(LayoutError::Weight);
                        }
                        *sum += i32::from(w.cast_signed());
                    }
                }
            }
            let stored = &self.column_sums[panel * PANEL..][..PANEL];
            if let Some(column) = (0..PANEL).find(|&c| sums[c] != stored[c]) {
                return Err(LayoutError::ColumnSum {
                    channel: panel * PANEL + column,
                });
            }
        }
        Ok(())
    }

    /// Output channels.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The packed bytes, `N · K` of them.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// `[n] f32`.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.n]
    }

    /// `[n] i32`.
    pub fn column_sums(&self) -> &[i32] {
        &self.column_sums[..self.n]
    }

    /// The weights as `[n, k] f32`.
    pub fn dequantize(&self) -> Vec<f32> {
        let packed = self.packed();
        let weight = |channel: usize, i: usize| {
            let code = packed[offset(channel, i, self.k)].cast_signed();
            f32::from(code) * self.scales[channel]
        };
        (0..self.n)
            .flat_map(|channel| (0..self.k).map(move |i| (channel, i)))
            .map(|(channel, i)| weight(channel, i))
            .collect()
    }

    pub(super) fn panels(&self) -> usize {
        self.scales.len() / PANEL
    }

    /// Bytes of a panel.
    pub(super) fn panel_len(&self) -> usize {
        padded_k(self.k) * PANEL
    }

    /// `[N]`, with N a multiple of 64.
    pub(super) fn padded_scales(&self) -> &[f32] {
        &self.scales
    }

    /// `[N]`, with N a multiple of 64.
    pub(super) fn padded_column_sums(&self) -> &[i32] {
        &self.column_sums
    }
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PackedMatrix([{}, {}] s8, {:?})",
            self.n, self.k, self.packed
        )
    }
}

/// Bytes of the packed form.
fn packed_len(n: usize, k: usize) -> Result<usize, LayoutError> {
    let wrong = LayoutError::Shape { n, k };
    if n == 0 || k == 0 || k > MAX_K {
        return Err(wrong);
    }
    n.checked_next_multiple_of(PANEL)
        .and_then(|columns| columns.checked_mul(padded_k(k)))
        .ok_or(wrong)
}

fn offset(channel: usize, i: usize, k: usize) -> usize {
    let panel = channel / PANEL * PANEL * padded_k(k);
    panel + i / GROUP * PANEL * GROUP + channel % PANEL * GROUP + i % GROUP
}

/// Fills `codes` and returns the scale.
fn quantize_channel(row: &[f32], codes: &mut [i8]) -> f32 {
    codes.fill(0);
    if row.iter().any(|w| !w.is_finite()) {
        return f32::NAN;
    }
    let scale = row.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0;
    if scale < f32::MIN_POSITIVE {
        return 1.0;
    }
    for (code, w) in codes.iter_mut().zip(row) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "clamped to the range of the code"
        )]
        let rounded = (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
        *code = rounded;
    }
    scale
}

#[cfg(test)]
mod tests;
