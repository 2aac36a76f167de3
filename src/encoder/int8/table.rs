//! Embedding tables: one quantized row per token id.

use std::fmt;

use super::kernels::Bytes;

/// A `[rows, width]` table, symmetric s8 with a scale per row: value = scale · code.
///
/// A lookup reads the rows that are asked for and nothing else, so most of a mapped table never
/// comes into memory: a vocabulary of 31 102 words holds a dozen that a label needs.
#[derive(Clone)]
pub struct EmbeddingTable {
    rows: usize,
    width: usize,
    /// `[rows, width] s8`.
    codes: Bytes,
    /// `[rows] f32`, little-endian.
    scales: Bytes,
}

impl EmbeddingTable {
    /// Quantizes `[rows, width] f32`: scale = max |x| / 127 of the row, code = x / scale rounded half
    /// to even. A row whose scale would be below the smallest normal f32 becomes zeros; one with a NaN
    /// or an infinity is NaN.
    ///
    /// # Panics
    /// When `values` has not `rows · width` values, or there is none.
    pub fn quantize(values: &[f32], rows: usize, width: usize) -> Self {
        assert!(width > 0 && rows > 0, "a table of [{rows}, {width}]");
        assert_eq!(values.len(), rows * width, "a table of [{rows}, {width}]");
        let mut codes = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(rows * size_of::<f32>());
        for row in values.chunks_exact(width) {
            let most = row.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let finite = row.iter().all(|x| x.is_finite());
            let scale = if finite { most / 127.0 } else { f32::NAN };
            let scale = if scale < f32::MIN_POSITIVE {
                1.0
            } else {
                scale
            };
            // NaN becomes 0.
            #[expect(clippy::cast_possible_truncation, reason = "at most 127")]
            let code = |x: &f32| ((x / scale).round_ties_even() as i8).cast_unsigned();
            codes.extend(row.iter().map(code));
            scales.extend_from_slice(&scale.to_le_bytes());
        }
        Self {
            rows,
            width,
            codes: Bytes::copied(&codes),
            scales: Bytes::copied(&scales),
        }
    }

    /// A table from stored parts, which are not looked at: a wrong scale gives wrong numbers, nothing
    /// worse.
    ///
    /// # Errors
    /// Parts whose lengths do not fit.
    pub fn from_parts(
        rows: usize,
        width: usize,
        codes: Bytes,
        scales: Bytes,
    ) -> Result<Self, String> {
        let fits = rows > 0
            && width > 0
            && rows.checked_mul(width) == Some(codes.len())
            && rows.checked_mul(size_of::<f32>()) == Some(scales.len());
        if !fits {
            return Err(format!(
                "a table of [{rows}, {width}] with {} codes and {} bytes of scales",
                codes.len(),
                scales.len()
            ));
        }
        Ok(Self {
            rows,
            width,
            codes,
            scales,
        })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[rows, width] s8`.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// `[rows] f32`, little-endian.
    pub fn scales(&self) -> &[u8] {
        &self.scales
    }

    /// Appends the row of `id` to `out`; negative ids count from the end, as ONNX has it. Returns
    /// whether there is one.
    #[must_use]
    pub fn look_up(&self, id: i64, out: &mut Vec<f32>) -> bool {
        let row = match usize::try_from(id) {
            Ok(row) => Some(row),
            Err(_) => usize::try_from(id.unsigned_abs())
                .ok()
                .and_then(|back| self.rows.checked_sub(back)),
        };
        let Some(row) = row.filter(|row| *row < self.rows) else {
            return false;
        };
        let (scales, _) = self.scales.as_chunks::<4>();
        let scale = f32::from_le_bytes(scales[row]);
        let codes = &self.codes[row * self.width..][..self.width];
        out.extend(
            codes
                .iter()
                .map(|code| f32::from(code.cast_signed()) * scale),
        );
        true
    }
}

impl fmt::Debug for EmbeddingTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rows, width, codes, ..
        } = self;
        write!(f, "EmbeddingTable([{rows}, {width}] s8, {codes:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(table: &EmbeddingTable, id: i64) -> Option<Vec<f32>> {
        let mut out = Vec::new();
        table.look_up(id, &mut out).then_some(out)
    }

    #[test]
    fn a_row_comes_back_within_half_a_step_of_its_own_scale() {
        let values: Vec<f32> = (0..7 * 50).map(|i| (i as f32 * 0.7).sin()).collect();
        let values: Vec<f32> = values
            .chunks(50)
            .zip(1..)
            .flat_map(|(row, n)| row.iter().map(move |x| x * n as f32))
            .collect();
        let table = EmbeddingTable::quantize(&values, 7, 50);
        for (id, exact) in (0..).zip(values.chunks(50)) {
            let step = exact.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0;
            let got = row(&table, id).unwrap();
            assert_eq!(got.len(), 50);
            for (got, exact) in got.iter().zip(exact) {
                assert!((got - exact).abs() <= 0.501 * step, "{got} for {exact}");
            }
        }
        assert_eq!(row(&table, -1), row(&table, 6));
        assert_eq!(row(&table, -7), row(&table, 0));
    }

    #[test]
    fn ids_outside_the_table_have_no_row() {
        let table = EmbeddingTable::quantize(&[1.0; 12], 3, 4);
        for id in [3, -4, i64::MAX, i64::MIN] {
            assert_eq!(row(&table, id), None, "{id}");
        }
    }

    #[test]
    fn zeros_stay_zero_and_what_is_not_finite_spoils_its_row_only() {
        let mut values = vec![1.0; 12];
        values[..4].fill(0.0);
        values[4] = f32::INFINITY;
        values[11] = 1e-45;
        let table = EmbeddingTable::quantize(&values, 3, 4);
        assert_eq!(row(&table, 0), Some(vec![0.0; 4]));
        assert!(row(&table, 1).unwrap().iter().all(|x| x.is_nan()));
        assert_eq!(row(&table, 2), Some(vec![1.0, 1.0, 1.0, 0.0]));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let bytes = |n| Bytes::copied(&vec![0; n]);
        assert!(EmbeddingTable::from_parts(2, 3, bytes(6), bytes(8)).is_ok());
        for (rows, width, codes, scales) in [(2, 3, 5, 8), (2, 3, 6, 7), (0, 3, 0, 0), (2, 0, 0, 8)]
        {
            let refused = EmbeddingTable::from_parts(rows, width, bytes(codes), bytes(scales));
            assert!(refused.is_err(), "{rows} × {width}");
        }
        assert!(EmbeddingTable::from_parts(usize::MAX, 2, bytes(0), bytes(8)).is_err());
    }
}
