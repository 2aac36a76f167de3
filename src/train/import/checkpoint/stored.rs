//! Where a tensor's elements lie.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use tract_onnx::prelude::f16;

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    Bf16,
    /// IEEE double.
    F64,
    /// Something that is no weight, a buffer of positions for example, with its width in bytes.
    Other(u8),
}

impl Kind {
    /// Width of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(bytes) => usize::from(bytes),
        }
    }
}

/// A tensor in a file: element `[i, j, …]` is at `offset + kind.bytes() · (i·strides[0] +
/// j·strides[1] + …)`, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Index of the file.
    pub(super) source: usize,
    /// Element type.
    pub kind: Kind,
    /// First element, bytes from the start of the file.
    pub(super) offset: u64,
    /// Length of every axis.
    pub shape: Vec<usize>,
    /// Elements from one to the next along every axis.
    pub(super) strides: Vec<usize>,
}

impl Stored {
    /// A row-major tensor.
    pub(super) fn row_major(kind: Kind, offset: u64, shape: Vec<usize>) -> Self {
        let mut strides = vec![0; shape.len()];
        let mut stride = 1_usize;
        for (axis, length) in shape.iter().enumerate().rev() {
            strides[axis] = stride;
            stride = stride.saturating_mul(*length);
        }
        Self {
            source: 0,
            kind,
            offset,
            shape,
            strides,
        }
    }

    /// The same elements with the axes in another order: axis `i` of the result is `order[i]` here.
    ///
    /// # Panics
    /// When `order` is no permutation of the axes.
    pub fn permuted(mut self, order: &[usize]) -> Self {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..self.shape.len()), "{order:?}");
        self.shape = order.iter().map(|axis| self.shape[*axis]).collect();
        self.strides = order.iter().map(|axis| self.strides[*axis]).collect();
        self
    }

    /// The last two axes swapped; a tensor of fewer axes as it is.
    pub fn transposed(self) -> Self {
        let rank = self.shape.len();
        if rank < 2 {
            return self;
        }
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 2, rank - 1);
        self.permuted(&order)
    }

    /// `rows` of the first axis.
    ///
    /// # Errors
    /// Rows that are not there.
    pub fn rows(mut self, rows: Range<usize>) -> Result<Self> {
        let fits = rows.start <= rows.end && self.shape.first().is_some_and(|n| rows.end <= *n);
        ensure!(fits, "has shape {:?}, not {} rows", self.shape, rows.end);
        let bytes = self.strides[0]
            .checked_mul(rows.start)
            .and_then(|elements| elements.checked_mul(self.kind.bytes()))
            .context("is too large")?;
        self.offset = self
            .offset
            .checked_add(bytes as u64)
            .context("is too large")?;
        self.shape[0] = rows.len();
        Ok(self)
    }

    /// Number of elements.
    fn elements(&self) -> Result<usize> {
        self.shape
            .iter()
            .try_fold(1_usize, |n, axis| n.checked_mul(*axis))
            .context("is too large")
    }

    /// From the first element to behind the last, bytes.
    pub(super) fn extent_bytes(&self) -> Result<usize> {
        if self.elements()? == 0 {
            return Ok(0);
        }
        let last = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(0_usize, |last, (length, stride)| {
                last.checked_add((length - 1).checked_mul(*stride)?)
            });
        last.and_then(|last| last.checked_add(1)?.checked_mul(self.kind.bytes()))
            .context("is too large")
    }

    /// Whether it lies within a file of `bytes`, and is not larger than what the file holds for it
    /// (strides of 0 could make much out of little).
    pub(super) fn check(&self, bytes: u64) -> Result<()> {
        ensure!(
            self.shape.len() <= MAX_RANK,
            "has {} axes",
            self.shape.len()
        );
        ensure!(self.shape.len() == self.strides.len(), "has odd strides");
        let extent = self.extent_bytes()? as u64;
        let end = self.offset.checked_add(extent);
        ensure!(
            end.is_some_and(|end| end <= bytes),
            "lies behind the end of the file; it is cut off or damaged"
        );
        let size = self.elements()?.checked_mul(self.kind.bytes());
        ensure!(
            size.is_some_and(|size| size as u64 <= extent),
            "has shape {:?} and strides {:?}, which use elements twice",
            self.shape,
            self.strides
        );
        Ok(())
    }

    /// `bytes` hold the [extent](Self::extent_bytes).
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Vec<f32>> {
        let values: Vec<f32> = match self.kind {
            Kind::F32 => elements(bytes, f32::from_le_bytes),
            Kind::F16 => elements(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Kind::Bf16 => elements(bytes, |[low, high]| f32::from_le_bytes([0, 0, low, high])),
            Kind::F64 => elements(bytes, narrowed),
            Kind::Other(_) => bail!("is not floating-point"),
        };
        let row_major = Self::row_major(self.kind, 0, self.shape.clone());
        // The stride of an axis of length 1 means nothing.
        let differs =
            |axis: usize| self.shape[axis] > 1 && self.strides[axis] != row_major.strides[axis];
        if !(0..self.shape.len()).any(differs) {
            return Ok(values);
        }
        let mut ordered = Vec::with_capacity(self.elements()?);
        gather(&values, &self.shape, &self.strides, 0, &mut ordered);
        Ok(ordered)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "overflow gives an infinity, refused later"
)]
fn narrowed(bytes: [u8; 8]) -> f32 {
    f64::from_le_bytes(bytes) as f32
}

fn elements<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|element| decode(*element)).collect()
}

fn gather(values: &[f32], shape: &[usize], strides: &[usize], at: usize, out: &mut Vec<f32>) {
    match (shape, strides) {
        ([length, inner @ ..], [stride, strides @ ..]) => {
            for i in 0..*length {
                gather(values, inner, strides, at + i * stride, out);
            }
        }
        _ => out.push(values[at]),
    }
}
