//! Calibrations: what turns the scores of one model for some labels into how often they are right,
//! and the thresholds that go with that.
//!
//! `vedetta-train calibrate` makes one from frames sorted by label and writes it as a [`file`]. It
//! holds only for the scores it was made with: the same model, and for each label the same prompts
//! against the same rivals and negatives. Anything else is a [`Refusal`].

mod apply;
mod file;
mod platt;

pub use apply::{Applied, Refusal, Refused};
pub use file::{CalibrationError, MAX_FRAMES, MAX_FRAMES_PER_LABEL, SCHEMA};
pub use platt::{Platt, logit, sigmoid};

use std::sync::Arc;

use crate::config::{Probability, Rule};
use crate::encoder::Embedding;
use crate::label_set::LabelSet;

/// What was fitted for some labels of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The bundle's name and hash, for people.
    pub bundle: String,
    /// [`crate::bundle::Bundle::model_sha256`] of that bundle.
    pub model_sha256: String,
    /// The precision that thresholds were asked for.
    pub precision: Probability,
    /// The labels and what they competed with.
    pub set: LabelSet,
    /// One per label of `set`.
    pub fits: Vec<Fit>,
    /// Frames that are blended into the scores.
    pub few_shot: Option<FewShot>,
}

/// What was fitted for one label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fit {
    /// From the score to how often it is right; `None` where nothing could be fitted.
    pub platt: Option<Platt>,
    /// `None` where the wanted precision could not be reached.
    pub thresholds: Option<Thresholds>,
    /// What was measured, each frame judged by what was fitted without it.
    pub measured: Option<Measured>,
}

/// Calibrated probabilities at which a label turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// ON from here.
    pub enter: Probability,
    /// OFF under this; at most `enter`.
    pub leave: Probability,
}

impl Thresholds {
    /// The rule with these thresholds.
    pub fn put_into(self, rule: Rule) -> Rule {
        Rule {
            enter: self.enter,
            leave: self.leave,
            ..rule
        }
    }
}

/// Leave-one-out measurement of one label, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Frames that were looked at.
    pub frames: u32,
    /// Of them, those that show the label.
    pub shown: u32,
    /// Of them, those that were found.
    pub found: u32,
    /// Frames that do not show the label and were taken for it.
    pub mistaken: u32,
}

impl Measured {
    /// Share of what was taken for the label that shows it; `None` when nothing was.
    pub fn precision(&self) -> Option<f64> {
        let taken = self.found + self.mistaken;
        (taken > 0).then(|| f64::from(self.found) / f64::from(taken))
    }

    /// Share of the frames with the label that were found; `None` without any.
    pub fn recall(&self) -> Option<f64> {
        (self.shown > 0).then(|| f64::from(self.found) / f64::from(self.shown))
    }
}

/// Labelled frames as a file keeps them; see [`crate::matcher::Shots`].
#[derive(Clone, Debug, PartialEq)]
pub struct FewShot {
    /// `α`, 0–100.
    pub alpha: f32,
    /// `β`, 0–100.
    pub beta: f32,
    /// One embedding per frame.
    pub keys: Arc<[Embedding]>,
    /// Per frame: position of the label it shows in the calibration's set; `None`: none of them.
    pub shows: Vec<Option<usize>>,
}
