//! How well labels do on frames sorted by label, with a calibration or without.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::metrics::{Point, average_precision, curve};
use super::write::{key, rounded};
use crate::bundle::Bundle;
use crate::calibrate::{Applied, Calibration, Measured};
use crate::config::Probability;
use crate::train::calibrate::{self, Report as Chosen};
use crate::train::frames::{Frame, Frames, measure};

/// Cosine from which a frame counts as one that the calibration keeps.
const SAME: f32 = 0.9999;

/// One label on these frames.
#[derive(Clone, Debug)]
pub struct OfLabel {
    /// Precision and recall at every score that occurs, calibrated where a calibration is given.
    pub curve: Vec<Point>,
    /// Area under precision over recall; `None` where no frame shows the label.
    pub average_precision: Option<f64>,
    /// Where it turns ON: the calibration's threshold, else the configuration's.
    pub enter: f32,
    /// What that gives on these frames.
    pub measured: Measured,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of the frames' labels.
    pub labels: Vec<OfLabel>,
    /// What calibrating would choose, where no calibration is given.
    pub chosen: Option<Chosen>,
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
        let measured = || labels().map(|l| l.measured);
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
    match calibration {
        Some(calibration) => calibrated(bundle, frames, calibration),
        None => Ok(uncalibrated(bundle, frames, precision)),
    }
}

fn uncalibrated(bundle: &Bundle, frames: &Frames, precision: Probability) -> Report {
    let chosen = calibrate::fit(bundle, frames, precision, false);
    let table = frames.scores(None, |_| None);
    let label = |n: usize| {
        let (samples, enter) = (&table[n], frames.enter[n]);
        OfLabel {
            curve: curve(samples),
            average_precision: average_precision(samples),
            enter,
            measured: measure(samples, enter),
        }
    };
    Report {
        labels: (0..table.len()).map(label).collect(),
        chosen: Some(chosen),
        known: 0,
        frames: frames.frames.len(),
    }
}

fn calibrated(bundle: &Bundle, frames: &Frames, calibration: Calibration) -> Result<Report> {
    let all: Vec<usize> = (0..frames.set.labels.len()).collect();
    let kept = calibration
        .few_shot
        .as_ref()
        .map(|shots| Arc::clone(&shots.keys));
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
    let table = frames.scores(applied.shots(&all).as_ref(), |_| None);
    let label = |n: usize| {
        let platt = applied.platt(n);
        let calibrate = |&(p, shows): &(f32, bool)| (platt.apply(p), shows);
        let samples: Vec<_> = table[n].iter().map(calibrate).collect();
        let thresholds = applied.thresholds(n);
        let enter = thresholds.map_or(frames.enter[n], |t| t.enter.get());
        OfLabel {
            curve: curve(&samples),
            average_precision: average_precision(&samples),
            enter,
            measured: measure(&samples, enter),
        }
    };
    let is_known = |frame: &&Frame| {
        let mut keys = kept.iter().flat_map(|keys| keys.iter());
        keys.any(|key| key.dot(&frame.embedding) >= SAME)
    };
    Ok(Report {
        labels: (0..table.len()).map(label).collect(),
        chosen: None,
        known: frames.frames.iter().filter(is_known).count(),
        frames: frames.frames.len(),
    })
}
