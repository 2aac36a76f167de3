//! What a refresh did, for people and for the manifest.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};

use super::examples::{Photos, Texts};
use super::maps::Maps;
use super::score::{Answer, Score, answers, score};
use super::session::{Learnt, Settings};
use super::strength::Trial;
use super::taught::Agreement;
use super::tuning::{Compute, Tuning};
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
    /// The strengths that were tried; none where one was given, or where there were too few photos.
    pub trials: Vec<Trial>,
    /// Its teacher, where it had one. Where that decides, `before` and the first of `answers` are the
    /// teacher's.
    pub taught: Option<TaughtBy>,
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

/// A teacher, and how close to it the bundle was and is.
#[derive(Clone, Debug)]
pub struct TaughtBy {
    /// [`crate::bundle::Bundle::id`].
    pub id: String,
    /// SHA-256 of its manifest.
    pub sha256: String,
    /// Whether agreement with it decided which epoch was kept.
    pub decides: bool,
    /// Before and after.
    pub agreement: [Agreement; 2],
}

impl Outcome {
    /// The teacher that a student was distilled from.
    pub fn distilled_from(&self) -> Option<&TaughtBy> {
        self.taught.as_ref().filter(|taught| taught.decides)
    }

    /// Refuses what does not measure as it did when it was learnt.
    ///
    /// # Errors
    /// It would be other towers than those of the epoch that was kept.
    pub(super) fn check(&self) -> Result<()> {
        let kept = self.learnt.curve[self.learnt.kept];
        let rough = self.tuning.is_some_and(|t| t.compute == Compute::Cuda);
        let (what, found, wanted) = match self.distilled_from() {
            Some(taught) => {
                let [_, after] = taught.agreement;
                ("cosine to the teacher", after.cosine(), kept.accuracy)
            }
            None => ("held-out loss", self.after.loss, kept.held_out_loss),
        };
        agrees(what, found, wanted, rough)
    }

    /// Rows of the manifest's `[evaluation]`: `after` was measured on the written files with the
    /// held-out photos.
    #[expect(clippy::cast_precision_loss, reason = "counts of photos")]
    pub fn table(&self, after: Score) -> BTreeMap<String, f64> {
        let round = |value: f64| (value * 10_000.0).round() / 10_000.0;
        let (command, beside) = match self.distilled_from() {
            Some(_) => ("distill", "teacher"),
            None => ("fit", "before"),
        };
        let mut rows = vec![
            ("held_out_photos".to_owned(), self.held_out.len() as f64),
            ("held_out_top1".to_owned(), round(after.accuracy)),
            (
                format!("held_out_top1_{beside}"),
                round(self.before.accuracy),
            ),
            ("held_out_loss".to_owned(), round(after.loss)),
            (format!("held_out_loss_{beside}"), round(self.before.loss)),
            ("photos".to_owned(), self.train.len() as f64),
            ("classes".to_owned(), self.dataset.classes.len() as f64),
            ("strength".to_owned(), self.settings.strength),
            ("drift".to_owned(), round(self.drift)),
        ];
        if let Some(taught) = &self.taught {
            let found = taught.agreement[1];
            let close = found.close;
            let cosines = [
                ("photos", close.photos.map(|close| close.mean)),
                ("photos_worst", close.photos.map(|close| close.worst)),
                ("texts", close.texts.map(|close| close.mean)),
                ("texts_worst", close.texts.map(|close| close.worst)),
                ("same_answer", found.same),
            ];
            for (name, value) in cosines {
                rows.extend(value.map(|v| (format!("to_teacher_{name}"), round(v))));
            }
        }
        let named = |(name, value)| (format!("{command}_{name}"), value);
        rows.into_iter().map(named).collect()
    }
}

/// Weights are rounded to what is stored before they are measured again, and `rough` ones were
/// multiplied in bf16.
fn agrees(what: &str, found: f64, wanted: f64, rough: bool) -> Result<()> {
    let most = if rough { 0.25 } else { 0.05 } * (1.0 + wanted.abs());
    ensure!(
        (found - wanted).abs() <= most,
        "what was learnt has a {what} of {found:.3}, the epoch that was kept had {wanted:.3}; nothing was \
         written. Please report this bundle and the command"
    );
    Ok(())
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
        let cosines = |seen: &Self| -> Result<Tensor> {
            let images = seen.maps.images(&seen.photos.themselves()?)?;
            let sentences = select(&seen.texts.rows, &seen.texts.negatives)?;
            Ok(images.matmul(&seen.maps.texts(&sentences)?.t()?)?)
        };
        let change = (cosines(self)? - cosines(before)?)?.abs()?;
        Ok(f64::from(change.mean_all()?.to_scalar::<f32>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_towers_than_those_that_were_kept_are_refused() {
        agrees("loss", 0.51, 0.5, false).unwrap();
        agrees("loss", 0.6, 0.5, true).unwrap();
        for (found, rough) in [(0.6, false), (0.4, false), (f64::NAN, false), (1.0, true)] {
            agrees("loss", found, 0.5, rough).unwrap_err();
        }
    }
}
