//! How well labels do on frames sorted by label, with a calibration or without.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::metrics::{Point, average_precision, curve};
use super::write::{key, rounded};
use crate::bundle::Bundle;
use crate::calibrate::{Applied, Calibration, Measured, Thresholds};
use crate::config::Probability;
use crate::train::calibrate::{self, Report as Calibrated};
use crate::train::frames::{Frames, measure};

/// Cosine from which a frame counts as one that the calibration keeps.
const SAME: f32 = 0.9999;

/// One label on these frames.
#[derive(Clone, Debug)]
pub struct OfLabel {
    /// Precision and recall at every score that occurs, calibrated where a calibration is given.
    pub curve: Vec<Point>,
    /// Area under precision over recall; `None` where no frame shows the label.
    pub average_precision: Option<f64>,
    /// Thresholds in force: the calibration's, or those that calibrating would choose.
    pub thresholds: Option<Thresholds>,
    /// What they give. With a calibration that was made from other frames: on these frames. Without:
    /// each frame judged by what is fitted to the others.
    pub measured: Option<Measured>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of the frames' labels.
    pub labels: Vec<OfLabel>,
    /// What calibrating would choose, where no calibration is given.
    pub calibrated: Option<Calibrated>,
    /// Frames that the calibration keeps: they recognise themselves.
    pub known: usize,
    /// Frames.
    pub frames: usize,
}

impl Report {
    /// Rows of the manifest's `[evaluation]`: means over the labels.
    pub fn table(&self, set: &str) -> BTreeMap<String, f64> {
        let set = key(set);
        #[expect(clippy::cast_precision_loss, reason = "a count of frames")]
        let mut table = BTreeMap::from([
            (format!("{set}_frames"), self.frames as f64),
            (format!("{set}_labels"), self.labels.len() as f64),
        ]);
        let mut mean = |what: &str, values: Vec<f64>| {
            #[expect(clippy::cast_precision_loss, reason = "a count of labels")]
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            if mean.is_finite() {
                table.insert(format!("{set}_{what}"), rounded(mean));
            }
        };
        let labels = || self.labels.iter();
        mean(
            "average_precision",
            labels().filter_map(|l| l.average_precision).collect(),
        );
        let measured = || labels().filter_map(|l| l.measured);
        mean(
            "precision",
            measured().filter_map(|m| m.precision()).collect(),
        );
        mean("recall", measured().filter_map(|m| m.recall()).collect());
        table
    }
}

/// Measures every label of `frames`: with `calibration` as the daemon would score, else also what
/// calibrating for `precision` would choose.
///
/// # Errors
/// A calibration that was made for something else.
pub fn evaluate(
    bundle: &Bundle,
    frames: &Frames,
    calibration: Option<Calibration>,
    precision: Probability,
) -> Result<Report> {
    let Some(calibration) = calibration else {
        let calibrated = calibrate::fit(bundle, frames, precision, false);
        let table = frames.scores(None, |_| None);
        let labels = table
            .iter()
            .zip(&calibrated.choices)
            .map(|(samples, choice)| {
                let platt = choice.fit.platt.unwrap_or_default();
                let samples: Vec<_> = samples.iter().map(|&(p, s)| (platt.apply(p), s)).collect();
                let (thresholds, measured) = (choice.fit.thresholds, choice.fit.measured);
                of_label(&samples, thresholds, measured)
            });
        return Ok(Report {
            labels: labels.collect(),
            calibrated: Some(calibrated),
            known: 0,
            frames: frames.frames.len(),
        });
    };
    let all: Vec<usize> = (0..frames.set.labels.len()).collect();
    let kept: Vec<_> = calibration
        .few_shot
        .iter()
        .flat_map(|shots| shots.keys.to_vec())
        .collect();
    let applied = Applied::new(
        calibration,
        &bundle.model_sha256(),
        bundle.manifest().embedding_dim,
        &frames.set,
        std::iter::once(all.as_slice()),
    );
    if let Some(refused) = applied.refused.first() {
        bail!("{refused}; calibrate for this bundle and these labels, or name their --config");
    }
    let shots = applied.shots(&all);
    let table = frames.scores(shots.as_ref(), |_| None);
    let labels = table.iter().enumerate().map(|(n, samples)| {
        let platt = applied.platt(n);
        let samples: Vec<_> = samples.iter().map(|&(p, s)| (platt.apply(p), s)).collect();
        let thresholds = applied.thresholds(n);
        let measured = thresholds.map(|t| measure(&samples, t.enter.get()));
        of_label(&samples, thresholds, measured)
    });
    let is_known =
        |embedding: &crate::encoder::Embedding| kept.iter().any(|key| key.dot(embedding) >= SAME);
    Ok(Report {
        labels: labels.collect(),
        calibrated: None,
        known: frames
            .frames
            .iter()
            .filter(|f| is_known(&f.embedding))
            .count(),
        frames: frames.frames.len(),
    })
}

fn of_label(
    samples: &[(f32, bool)],
    thresholds: Option<Thresholds>,
    measured: Option<Measured>,
) -> OfLabel {
    OfLabel {
        curve: curve(samples),
        average_precision: average_precision(samples),
        thresholds,
        measured,
    }
}
