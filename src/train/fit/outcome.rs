//! What a refresh did, for people and for the manifest.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::DType;

use super::examples::{Photos, Texts};
use super::maps::Maps;
use super::score::{Answer, Score};
use super::session::{Learnt, Settings};
use super::strength::Trial;
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
    /// How far general sentences moved, see [`drift`].
    pub drift: f64,
    /// Positions in the dataset of the photos that were learnt from.
    pub train: Vec<usize>,
    /// Positions of the held-out ones.
    pub held_out: Vec<usize>,
    /// How it learnt.
    pub settings: Settings,
    /// The strengths that were tried; none where one was given.
    pub trials: Vec<Trial>,
    /// Curve and maps.
    pub learnt: Learnt,
    /// What could not be used.
    pub skipped: Skips,
    /// The photos.
    pub dataset: Dataset,
    /// Where the maps were put in the written graphs, image tower first; `None` where nothing was
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

/// Mean change of the cosines between the held-out photos and the daemon's general sentences (its
/// negatives): what happened to things nobody took photos of. 0 where there are none.
///
/// # Errors
/// candle's.
pub fn drift(photos: &Photos, texts: &Texts, maps: &Maps) -> Result<f64> {
    if texts.negatives.is_empty() {
        return Ok(0.0);
    }
    let images = photos.themselves()?;
    let sentences = select(&texts.rows, &texts.negatives)?;
    let cosines = |maps: &Maps| -> Result<_> {
        Ok(maps
            .images(&images)?
            .matmul(&maps.texts(&sentences)?.t()?)?)
    };
    let unchanged = Maps::identity(images.dim(1)?, DType::F32)?;
    let change = (cosines(maps)? - cosines(&unchanged)?)?.abs()?;
    Ok(f64::from(change.mean_all()?.to_scalar::<f32>()?))
}
