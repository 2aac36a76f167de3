//! What is learnt: one linear map per tower, around the identity.

use std::collections::HashMap;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};

use crate::train::targets::unit_rows;

/// Two maps `[D, D]`: an embedding `x` becomes `A·x`, normalised again.
#[derive(Clone, Debug)]
pub struct Maps {
    /// `A` of the image tower.
    pub image: Tensor,
    /// `A` of the text tower.
    pub text: Tensor,
}

impl Maps {
    /// Maps that change nothing.
    ///
    /// # Errors
    /// candle's.
    pub fn identity(dim: usize, kind: DType) -> Result<Self> {
        let eye = Tensor::eye(dim, kind, &Device::Cpu)?;
        Ok(Self {
            image: eye.clone(),
            text: eye,
        })
    }

    /// What a session of [`super::projection`] learnt.
    ///
    /// # Errors
    /// It learnt something else.
    pub fn learnt(values: &HashMap<String, Tensor>) -> Result<Self> {
        let map = |name: &str| values.get(name).cloned().context("maps were not learnt");
        Ok(Self {
            image: map("image")?,
            text: map("text")?,
        })
    }

    /// The maps as variables, to be learnt.
    ///
    /// # Errors
    /// candle's.
    pub fn variables(&self) -> Result<[(&'static str, Var); 2]> {
        Ok([
            ("image", Var::from_tensor(&self.image.copy()?)?),
            ("text", Var::from_tensor(&self.text.copy()?)?),
        ])
    }

    /// Unit rows `A_image·x` of unit rows `[N, D]`.
    ///
    /// # Errors
    /// candle's.
    pub fn images(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        unit_rows(&rows.matmul(&self.image.t()?)?)
    }

    /// Unit rows `A_text·x` of unit rows `[N, D]`.
    ///
    /// # Errors
    /// candle's.
    pub fn texts(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        unit_rows(&rows.matmul(&self.text.t()?)?)
    }

    /// `‖A_image − 1‖² + ‖A_text − 1‖²` (Frobenius): how far from changing nothing.
    ///
    /// # Errors
    /// candle's.
    pub fn distance(&self) -> candle_core::Result<Tensor> {
        let eye = Tensor::eye(self.image.dim(0)?, self.image.dtype(), &Device::Cpu)?;
        let square = |a: &Tensor| (a - &eye)?.sqr()?.sum_all();
        square(&self.image)? + square(&self.text)?
    }
}
