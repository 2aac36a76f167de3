//! What flows through a tower: differentiable numbers, and the integers that shapes and tokens are.

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

/// A value of a graph.
#[derive(Clone, Debug)]
pub enum Value {
    /// Numbers, with whatever they were computed from.
    Float(Tensor),
    /// Integers, on the host.
    Ints(Ints),
}

/// Integers in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ints {
    /// Lengths of the axes.
    pub dims: Vec<usize>,
    /// As many as the axes' product.
    pub values: Vec<i64>,
}

impl Ints {
    /// A list `[n]`.
    pub fn list(values: Vec<i64>) -> Self {
        Self {
            dims: vec![values.len()],
            values,
        }
    }

    /// As floats.
    ///
    /// # Errors
    /// candle's.
    pub fn floats(&self, kind: DType, device: &Device) -> Result<Tensor> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "masks and token ids are far below 2^24"
        )]
        let values: Vec<f32> = self.values.iter().map(|v| *v as f32).collect();
        Ok(Tensor::from_vec(values, &self.dims[..], device)?.to_dtype(kind)?)
    }

    /// Positions along an axis of length `size`; negative ones count from its end.
    ///
    /// # Errors
    /// A position outside.
    pub fn positions(&self, size: usize) -> Result<Vec<u32>> {
        let position = |v: &i64| {
            let size = i64::try_from(size).ok()?;
            let at = if *v < 0 { v + size } else { *v };
            (0..size).contains(&at).then(|| u32::try_from(at).ok())?
        };
        let found: Option<Vec<u32>> = self.values.iter().map(position).collect();
        found.with_context(|| format!("an index is outside of an axis of {size}"))
    }

    /// 1 where two are equal, 0 elsewhere, broadcast against each other.
    ///
    /// # Errors
    /// Shapes that do not go together.
    pub fn equal(&self, other: &Self) -> Result<Self> {
        let rank = self.dims.len().max(other.dims.len());
        let padded = |dims: &[usize]| -> Vec<usize> {
            let ones = std::iter::repeat_n(1, rank - dims.len());
            ones.chain(dims.iter().copied()).collect()
        };
        let (a, b) = (padded(&self.dims), padded(&other.dims));
        let mut dims = Vec::with_capacity(rank);
        for (a, b) in a.iter().zip(&b) {
            ensure!(a == b || *a == 1 || *b == 1, "{a} and {b} do not broadcast");
            dims.push(*a.max(b));
        }
        let at = |own: &[usize], mut index: usize| {
            let (mut place, mut stride) = (0, 1);
            for (size, own) in dims.iter().zip(own).rev() {
                let along = index % size;
                index /= size;
                place += if *own == 1 { 0 } else { along * stride };
                stride *= own;
            }
            place
        };
        let count = dims.iter().product();
        let same = |i| i64::from(self.values[at(&a, i)] == other.values[at(&b, i)]);
        let values = (0..count).map(same).collect();
        Ok(Self { dims, values })
    }

    /// The part `start..end` of the first axis.
    ///
    /// # Errors
    /// A part that is not there.
    pub fn slice(&self, start: usize, end: usize) -> Result<Self> {
        let first = *self.dims.first().context("a number has no parts")?;
        ensure!(start <= end && end <= first, "{start}..{end} of {first}");
        let row: usize = self.dims[1..].iter().product();
        let mut dims = self.dims.clone();
        dims[0] = end - start;
        Ok(Self {
            dims,
            values: self.values[start * row..end * row].to_vec(),
        })
    }
}

impl Value {
    /// As numbers.
    ///
    /// # Errors
    /// It is integers.
    pub fn float(&self) -> Result<&Tensor> {
        match self {
            Self::Float(tensor) => Ok(tensor),
            Self::Ints(_) => bail!("integers where numbers are expected"),
        }
    }

    /// As integers.
    ///
    /// # Errors
    /// It is numbers.
    pub fn ints(&self) -> Result<&Ints> {
        match self {
            Self::Ints(ints) => Ok(ints),
            Self::Float(_) => bail!("numbers where integers are expected"),
        }
    }

    /// Lengths of the axes.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::Float(tensor) => tensor.dims(),
            Self::Ints(ints) => &ints.dims,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_broadcasts() {
        let column = Ints {
            dims: vec![2, 1],
            values: vec![1, 2],
        };
        let equal = column.equal(&Ints::list(vec![0, 1, 2])).unwrap();
        assert_eq!(equal.dims, [2, 3]);
        assert_eq!(equal.values, [0, 1, 0, 0, 0, 1]);
        assert!(
            Ints::list(vec![1, 2])
                .equal(&Ints::list(vec![1; 3]))
                .is_err()
        );
    }

    #[test]
    fn positions_are_checked() {
        assert_eq!(Ints::list(vec![0, -1]).positions(3).unwrap(), [0, 2]);
        assert!(Ints::list(vec![3]).positions(3).is_err());
        assert!(Ints::list(vec![-4]).positions(3).is_err());
    }
}
