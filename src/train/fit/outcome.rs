//! What a refresh did, for people and for the manifest.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{DType, Tensor};

use super::examples::{Photos, Texts};
use super::maps::Maps;
use super::score::{Answer, Score, answers, score};
use super::session::{Learnt, Settings};
use super::strength::Trial;
use super::tuning::Tuning;
use crate::train::data::{Dataset, Skips};
use crate::train::onnx::edit::Placed;
use crate::train::targets::select;

/// What a refresh did.
pub struct Outcome {
    /// [`crate::bundle::Bundle::id`] of the bundle it started from.
    pub bundle: String,
    /// The starting bundle on the held-out photos.
    pub before: Score,
    /// The refreshed one, on the same.
    pub after: Score,
    /// What each held-out photo is taken for, before and after, where there are classes.
    pub answers: Option<[Vec<Answer>; 2]>,
    /// How far general sentences moved, see [`Embedded::drift`].
    pub drift: f64,
    /// Positions in the dataset of the photos that were learnt from.
    pub train: Vec<usize>,
    /// Positions of the held-out ones.
    pub held_out: Vec<usize>,
    /// How it learnt.
    pub settings: Settings,
    /// How the towers were, where they were.
    pub tuning: Option<Tuning>,
    /// The strengths that were tried; none where one was given.
    pub trials: Vec<Trial>,
    /// Curve, and what was learnt.
    pub learnt: Learnt,
    /// What could not be used.
    pub skipped: Skips,
    /// The photos.
    pub dataset: Dataset,
    /// Where what was learnt was put in the written graphs, image tower first; `None` where nothing was
    /// written.
    pub written: Option<[Placed; 2]>,
}

impl Outcome {
    /// Rows of the manifest's `[evaluation]`: `after` was measured on the written files with
    /// `photos` held-out photos.
    #[expect(clippy::cast_precision_loss, reason = "counts of photos")]
    pub fn table(&self, after: Score, photos: usize) -> BTreeMap<String, f64> {
        let round = |value: f64| (value * 10_000.0).round() / 10_000.0;
        let rows = [
            ("fit_held_out_photos", photos as f64),
            ("fit_held_out_top1", round(after.accuracy)),
            ("fit_held_out_top1_before", round(self.before.accuracy)),
            ("fit_held_out_loss", round(after.loss)),
            ("fit_held_out_loss_before", round(self.before.loss)),
            ("fit_photos", self.train.len() as f64),
            ("fit_classes", self.dataset.classes.len() as f64),
            ("fit_strength", self.settings.strength),
            ("fit_drift", round(self.drift)),
        ];
        rows.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// Held-out photos and texts as a bundle sees them.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The photos.
    pub photos: Photos,
    /// The texts.
    pub texts: Texts,
    /// Maps behind both.
    pub maps: Maps,
}

impl Embedded {
    /// As the towers give them.
    ///
    /// # Errors
    /// candle's.
    pub fn plain(photos: Photos, texts: Texts) -> Result<Self> {
        Ok(Self {
            maps: Maps::identity(photos.rows.dim(1)?, DType::F32)?,
            photos,
            texts,
        })
    }

    /// How right they are.
    ///
    /// # Errors
    /// candle's.
    pub fn score(&self, scale: f64) -> Result<Score> {
        score(&self.photos, &self.texts, &self.maps, scale)
    }

    /// What each photo is taken for; nothing where there are no classes.
    ///
    /// # Errors
    /// candle's.
    pub fn answers(&self, scale: f64) -> Result<Option<Vec<Answer>>> {
        if self.texts.classes.is_empty() {
            return Ok(None);
        }
        answers(&self.photos, &self.texts, &self.maps, scale).map(Some)
    }

    /// Mean change of the cosines between the photos and the daemon's general sentences (its
    /// negatives) since `before`: what happened to things nobody took photos of. 0 where there are
    /// none.
    ///
    /// # Errors
    /// candle's.
    pub fn drift(&self, before: &Self) -> Result<f64> {
        if self.texts.negatives.is_empty() {
            return Ok(0.0);
        }
        let count = self.photos.len();
        let cosines = |seen: &Self| -> Result<Tensor> {
            let images = seen
                .maps
                .images(&seen.photos.themselves()?.narrow(0, 0, count)?)?;
            let sentences = select(&seen.texts.rows, &seen.texts.negatives)?;
            Ok(images.matmul(&seen.maps.texts(&sentences)?.t()?)?)
        };
        let change = (cosines(self)? - cosines(before)?)?.abs()?;
        Ok(f64::from(change.mean_all()?.to_scalar::<f32>()?))
    }
}
