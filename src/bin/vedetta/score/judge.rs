//! What a picture's embedding is compared with: given phrases, or the labels of a calibration.

use std::path::Path;

use anyhow::{Result, bail};
use vedetta::bundle::Bundle;
use vedetta::calibrate::{Applied, Calibration};
use vedetta::encoder::{self, Embedding};
use vedetta::matcher::{self, LabelBank};

use super::progress;

/// One label's result.
pub struct Scored {
    /// Position in [`Judge::names`].
    pub label: usize,
    /// Cosine between picture and label.
    pub cosine: f32,
    /// Over all phrases; or, calibrated, how often such a score is right.
    pub probability: f32,
    /// The enter threshold, where a calibration has one.
    pub threshold: Option<f32>,
}

/// Scores embeddings.
pub struct Judge {
    names: Vec<String>,
    scale: f32,
    asked: Asked,
}

enum Asked {
    /// The softmax over exactly these.
    Phrases(Vec<Embedding>),
    /// As the daemon does it.
    Labels(Box<LabelBank>, Applied),
}

impl Judge {
    /// Compares with `phrases` as they are.
    ///
    /// # Errors
    /// A text tower that fails.
    pub fn of_phrases(bundle: &Bundle, phrases: Vec<String>) -> Result<Self> {
        let mut encoder = encoder::load_text(bundle)?;
        let bar = progress(phrases.len());
        let mut bank = Vec::with_capacity(phrases.len());
        let texts: Vec<&str> = phrases.iter().map(String::as_str).collect();
        for chunk in texts.chunks(16) {
            bank.extend(encoder.encode_texts(chunk)?);
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        Ok(Self {
            names: phrases,
            scale: bundle.manifest().scoring.logit_scale,
            asked: Asked::Phrases(bank),
        })
    }

    /// Compares with the labels of the calibration at `path`.
    ///
    /// # Errors
    /// A file that cannot be used, or one that was made for another model.
    pub fn of_calibration(bundle: &Bundle, path: &Path) -> Result<Self> {
        let calibration = Calibration::load(path)?;
        let (set, made_for) = (calibration.set.clone(), calibration.bundle.clone());
        let all: Vec<usize> = (0..set.labels.len()).collect();
        let applied = Applied::new(
            calibration,
            &bundle.model_sha256(),
            bundle.manifest().embedding_dim,
            &set,
            std::iter::once(all.as_slice()),
        );
        if !applied.refused.is_empty() {
            bail!(
                "calibration {} was made for {made_for}, not for {}; name that bundle with --bundle, \
                 or run `vedetta-train calibrate` again",
                path.display(),
                bundle.id()
            );
        }
        let mut bank = set.bank(bundle, None, &mut |_, _| {})?;
        bank.shots = applied.shots(&all);
        Ok(Self {
            names: set
                .labels
                .iter()
                .map(|label| label.id.to_string())
                .collect(),
            scale: bundle.manifest().scoring.logit_scale,
            asked: Asked::Labels(Box::new(bank), applied),
        })
    }

    /// What people call the labels.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Scores one picture, the best label first.
    pub fn score(&self, image: &Embedding) -> Vec<Scored> {
        match &self.asked {
            Asked::Phrases(bank) => {
                let cosines: Vec<f32> = bank.iter().map(|label| image.dot(label)).collect();
                let probabilities = matcher::softmax(&cosines, self.scale);
                let one = |(label, (cosine, probability))| Scored {
                    label,
                    cosine,
                    probability,
                    threshold: None,
                };
                let pairs = cosines.into_iter().zip(probabilities);
                let mut scored: Vec<Scored> = pairs.enumerate().map(one).collect();
                scored.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
                scored
            }
            Asked::Labels(bank, applied) => {
                let scores = matcher::score(image, bank, self.scale).into_iter();
                let one = |(label, score): (usize, matcher::Score)| Scored {
                    label,
                    cosine: score.cosine,
                    probability: applied.platt(label).apply(score.probability),
                    threshold: applied.thresholds(label).map(|t| t.enter.get()),
                };
                let mut scored: Vec<Scored> = scores.enumerate().map(one).collect();
                scored.sort_by(|a, b| b.probability.total_cmp(&a.probability));
                scored
            }
        }
    }
}
