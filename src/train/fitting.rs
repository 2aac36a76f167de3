//! What the loops that fit a head have in common: mixed batches, the optimizer, the mean of the
//! weights.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::Tensor;
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand::Rng;

use super::anchors::Anchors;
use super::contrast::Shows;
use super::head::Head;
use super::space::Examples;
use super::targets::select;

/// Photos and made-up anchors in a batch of features.
pub const MIXTURE: (usize, usize) = (192, 64);

/// What each row of a batch shows, and how much of it.
pub type Shown = Vec<Vec<(Shows, f32)>>;

/// [`MIXTURE`] rows drawn at random, `[256, 1280]`, photos first.
///
/// # Errors
/// candle's.
pub fn mixed_batch(
    examples: &Examples,
    anchors: &Anchors,
    rng: &mut impl Rng,
) -> Result<(Tensor, Shown)> {
    let photos = draw(rng, examples.shows.len(), MIXTURE.0)?;
    let made = draw(rng, anchors.classes.len(), MIXTURE.1)?;
    let rows = [
        select(&examples.features, &photos)?,
        select(&anchors.features, &made)?,
    ];
    let shown = photos
        .iter()
        .map(|p| examples.shows[*p as usize])
        .chain(everyday(anchors, &made))
        .map(|shows| vec![(shows, 1.0)])
        .collect();
    Ok((Tensor::cat(&rows, 0)?, shown))
}

/// What anchors show.
pub fn everyday<'a>(anchors: &'a Anchors, rows: &'a [u32]) -> impl Iterator<Item = Shows> + 'a {
    rows.iter()
        .map(|row| Shows::Everyday(anchors.classes[*row as usize]))
}

/// `count` row numbers under `below`.
///
/// # Errors
/// More rows than u32 holds.
pub fn draw(rng: &mut impl Rng, below: usize, count: usize) -> Result<Vec<u32>> {
    Ok((0..count)
        .map(|_| u32::try_from(rng.random_range(0..below)))
        .collect::<Result<_, _>>()?)
}

/// AdamW over a head's variables; its learning rate is set at every step.
///
/// # Errors
/// candle's.
pub fn head_optimizer(head: &Head) -> Result<AdamW> {
    let parameters = ParamsAdamW {
        weight_decay: 0.02,
        ..ParamsAdamW::default()
    };
    Ok(AdamW::new(head.variables(), parameters)?)
}

/// Exponential moving average of a head's weights.
pub struct HeadMean(HashMap<String, Tensor>);

impl HeadMean {
    /// Starts with the weights as they are.
    ///
    /// # Errors
    /// candle's.
    pub fn new(head: &Head) -> Result<Self> {
        Ok(Self(head.snapshot()?))
    }

    /// Takes in the weights as they are now; the mean keeps `decay` of itself.
    ///
    /// # Errors
    /// candle's.
    pub fn follow(&mut self, head: &Head, decay: f64) -> Result<()> {
        for (name, now) in head.snapshot()? {
            if let Some(old) = self.0.get_mut(&name) {
                *old = ((&*old * decay)? + (now * (1.0 - decay))?)?;
            }
        }
        Ok(())
    }

    /// Does something with the head as its mean; then it has its own weights again.
    ///
    /// # Errors
    /// candle's, and those of `work`.
    pub fn show<T>(&self, head: &Head, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let own = head.snapshot()?;
        head.restore(&self.0)?;
        let done = work()?;
        head.restore(&own)?;
        Ok(done)
    }

    /// The averaged tensors.
    pub fn tensors(&self) -> &HashMap<String, Tensor> {
        &self.0
    }
}
