//! Where the sigmoid loss's bias begins.

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::Towers;
use crate::train::fit::examples::{Drawn, Said};
use crate::train::fit::session::rng;
use crate::train::targets::select;

/// Halvings of the range that the bias lies in.
const HALVINGS: usize = 14;

/// Half the distance that the slope is taken over.
const STEP: f64 = 0.05;

/// Logits beyond the largest possible one that the bias may lie at.
const BEYOND: f64 = 20.0;

impl Towers<'_> {
    /// The bias `[1]` with which the bundle as it was has the least loss on held-out photos: one that is
    /// far from it would be learnt instead of the towers. The loss is convex in the bias.
    pub(super) fn first_bias(&self) -> Result<Tensor> {
        let (shown, settings) = (self.shown, self.settings);
        let photos = &shown.held_out.photos;
        let said: Vec<&Said> = photos.said.iter().take(settings.batch).collect();
        let drawn = Drawn::draw(&said, shown.texts, &mut rng(settings.seed, 0))?;
        let images = photos.themselves()?.narrow(0, 0, said.len())?;
        let texts = select(&shown.texts.rows, &drawn.texts)?;
        let cosines = images.matmul(&texts.t()?)?;
        let at = |bias: f64| -> Result<(Tensor, f64)> {
            let bias = Tensor::new(&[bias], &Device::Cpu)?.to_dtype(cosines.dtype())?;
            let scale = settings.logit_scale;
            let loss = drawn
                .targets
                .loss(settings.loss, &cosines, scale, &bias)?
                .to_scalar::<f32>()?;
            Ok((bias, f64::from(loss)))
        };
        let most = settings.logit_scale + BEYOND;
        let (mut low, mut high) = (-most, most);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if at(middle + STEP)?.1 < at(middle - STEP)?.1 {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(at(f64::midpoint(low, high))?.0)
    }
}
