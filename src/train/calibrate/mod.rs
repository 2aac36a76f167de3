//! From frames sorted by label to a [`Calibration`] for exactly this bundle and these labels.

pub mod choose;
mod few_shot;

use anyhow::Result;
use rayon::prelude::*;

use super::frames::{Frames, Wanted};
use crate::bundle::Bundle;
use crate::calibrate::Calibration;
use crate::config::Probability;
pub use choose::{Choice, Shortfall};
pub use few_shot::Trial;

/// What was made, and how well it does.
#[derive(Clone, Debug)]
pub struct Report {
    /// What goes into the file.
    pub calibration: Calibration,
    /// Per label.
    pub choices: Vec<Choice>,
    /// Whether the frames themselves help, where that was asked.
    pub trial: Option<Trial>,
}

/// Reads the frames and calibrates every label for `precision`. With `few_shot` the frames
/// themselves are tried as well.
///
/// # Errors
/// See [`Frames::open`].
pub fn calibrate(
    bundle: &Bundle,
    wanted: &Wanted,
    precision: Probability,
    few_shot: bool,
) -> Result<(Frames, Report)> {
    let frames = Frames::open(bundle, wanted)?;
    let report = fit(bundle, &frames, precision, few_shot);
    Ok((frames, report))
}

/// [`calibrate`] of frames that are embedded already.
pub fn fit(bundle: &Bundle, frames: &Frames, precision: Probability, few_shot: bool) -> Report {
    let kept = few_shot.then(|| few_shot::Kept::of(frames));
    let trial = kept.as_ref().map(|kept| few_shot::attempt(frames, kept));
    let blend = trial.as_ref().and_then(|trial| trial.few_shot.clone());
    let table = match (&kept, &blend) {
        (Some(kept), Some(blend)) => kept.scores(frames, blend.alpha, blend.beta),
        _ => frames.scores(None, |_| None),
    };
    let choices: Vec<Choice> = table
        .par_iter()
        .map(|samples| choose::choose(samples, precision))
        .collect();
    Report {
        calibration: Calibration {
            bundle: bundle.id(),
            model_sha256: bundle.model_sha256(),
            precision,
            set: frames.set.clone(),
            fits: choices.iter().map(|choice| choice.fit.clone()).collect(),
            few_shot: blend,
        },
        choices,
        trial,
    }
}
