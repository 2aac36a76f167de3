//! How strongly the maps are held at the identity, chosen by cross-validation among the photos that
//! are learnt from.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::examples::{Photos, Texts};
use super::maps::Maps;
use super::projection::{Examples, Projection};
use super::score::score;
use super::session::Settings;
use crate::train::text::write_atomically;

/// What is tried, the strongest first.
const STRENGTHS: [f64; 5] = [10.0, 3.0, 1.0, 0.3, 0.1];

/// Parts the photos are divided into.
const FOLDS: usize = 4;

/// Photos that are used at most; more hardly change the choice.
const MAX_PHOTOS: usize = 400;

/// Epochs at most.
const MAX_EPOCHS: usize = 20;

/// One strength, measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// `λ`.
    pub strength: f64,
    /// Mean loss on the photos left out.
    pub loss: f64,
    /// Standard error of that mean, from the folds.
    pub error: f64,
    /// Mean accuracy on the photos left out, 0–1.
    pub accuracy: f64,
}

/// Tries every strength; the choice is the strongest whose loss is within one standard error of the
/// best one's (Breiman et al., 1984): what differs by chance alone does not bend the space. Of photos
/// too few to leave some out nothing is tried, and the strongest of all is taken.
///
/// # Errors
/// Those of learning.
pub fn choose(
    photos: &Photos,
    texts: &Texts,
    settings: Settings,
    bar: &ProgressBar,
) -> Result<(f64, Vec<Trial>)> {
    let photos = photos.subset(&(0..photos.len().min(MAX_PHOTOS)).collect::<Vec<_>>());
    let folds = folds(&photos);
    if folds.is_empty() {
        log::warn!(
            "too few photos to choose the strength with: {} is taken, the strongest; give at least \
             three photos of everything, better twenty",
            STRENGTHS[0]
        );
        return Ok((STRENGTHS[0], Vec::new()));
    }
    bar.set_length((STRENGTHS.len() * folds.len()) as u64);
    let mut trials = Vec::new();
    for strength in STRENGTHS {
        let settings = Settings {
            strength,
            epochs: settings.epochs.min(MAX_EPOCHS),
            ..settings
        };
        let mut scores = Vec::new();
        for (train, left_out) in &folds {
            let examples = Examples {
                train,
                held_out: None,
                texts,
            };
            let session = Projection::session(examples, settings, None)?;
            let (learnt, _) = session.run(&mut |_| {}, &mut |_| ControlFlow::Continue(()))?;
            let (maps, scale) = (Maps::learnt(&learnt.values)?, settings.logit_scale);
            scores.push(score(left_out, texts, &maps, scale)?);
            bar.inc(1);
        }
        let losses: Vec<f64> = scores.iter().map(|s| s.loss).collect();
        let accuracies: Vec<f64> = scores.iter().map(|s| s.accuracy).collect();
        let (loss, error) = mean(&losses);
        trials.push(Trial {
            strength,
            loss,
            error,
            accuracy: mean(&accuracies).0,
        });
    }
    Ok((chosen(&trials).context("no strength was tried")?, trials))
}

/// [`choose`], or what it found before for the same run, which `kept` holds.
///
/// # Errors
/// Those of learning, or the file system's.
pub fn choose_once(
    photos: &Photos,
    texts: &Texts,
    settings: Settings,
    kept: &Path,
    bar: &ProgressBar,
) -> Result<(f64, Vec<Trial>)> {
    let known = std::fs::read(kept).ok();
    let known = known.and_then(|json| serde_json::from_slice::<Vec<Trial>>(&json).ok());
    if let Some((strength, trials)) = known.and_then(|t| Some((chosen(&t)?, t))) {
        return Ok((strength, trials));
    }
    let (strength, trials) = choose(photos, texts, settings, bar)?;
    write_atomically(kept, &serde_json::to_vec(&trials)?)?;
    Ok((strength, trials))
}

fn chosen(trials: &[Trial]) -> Option<f64> {
    let best = trials.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))?;
    let within = |trial: &&Trial| trial.loss <= best.loss + best.error;
    let strongest = trials.iter().filter(within).map(|trial| trial.strength);
    strongest.max_by(f64::total_cmp)
}

/// Mean and its standard error.
#[expect(clippy::cast_precision_loss, reason = "a few folds")]
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let error = if n > 1.0 {
        (square / (n - 1.0) / n).sqrt()
    } else {
        0.0
    };
    (mean, error)
}

/// What to learn from and what to leave out; every class is in every part as evenly as it goes.
fn folds(photos: &Photos) -> Vec<(Photos, Photos)> {
    let mut seen: HashMap<Option<usize>, usize> = HashMap::new();
    let mut fold_of = Vec::new();
    for said in &photos.said {
        let count = seen.entry(said.class).or_default();
        fold_of.push(*count % FOLDS);
        *count += 1;
    }
    let part = |keep: &dyn Fn(usize) -> bool| {
        let chosen: Vec<usize> = (0..photos.len()).filter(|p| keep(fold_of[*p])).collect();
        photos.subset(&chosen)
    };
    let divided = (0..FOLDS).map(|fold| (part(&|f| f != fold), part(&|f| f == fold)));
    divided
        .filter(|(train, left_out)| !train.is_empty() && !left_out.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::examples::Said;
    use super::*;
    use crate::encoder::Embedding;

    #[test]
    fn of_what_differs_by_chance_the_strongest_is_taken() {
        let trial = |strength, loss| Trial {
            strength,
            loss,
            error: 0.1,
            accuracy: 0.0,
        };
        let trials = [
            trial(10.0, 0.9),
            trial(1.0, 0.55),
            trial(0.1, 0.5),
            trial(0.01, 0.7),
        ];
        assert_eq!(chosen(&trials), Some(1.0));
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn every_photo_is_left_out_once_and_classes_are_spread() {
        let photo = |class| {
            let said = Said {
                class: Some(class),
                captions: Vec::new(),
            };
            (vec![Embedding::normalized(vec![1.0, 0.0]).unwrap()], said)
        };
        let photos = Photos::new((0..24).map(|i| photo(i % 3)).collect(), 2).unwrap();
        let folds = folds(&photos);
        assert_eq!(folds.len(), FOLDS);
        for (train, left_out) in folds {
            assert_eq!((train.len(), left_out.len()), (18, 6));
            for class in 0..3 {
                let of = left_out.said.iter().filter(|s| s.class == Some(class));
                assert_eq!(of.count(), 2);
            }
        }
    }
}
