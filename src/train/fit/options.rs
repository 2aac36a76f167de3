//! What a refresh is asked for.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::loss::Loss;
use super::session::Settings;
use super::taught::Teaching;
use super::tuning::Tuning;
use crate::bundle::Bundle;
use crate::train::data;
use crate::train::descent::Rule;

/// Steps that a run without `epochs` does not exceed by much.
const MAX_STEPS: usize = 4000;

/// Epochs of a run without `epochs` at most: of maps, of towers.
const MAX_EPOCHS: (usize, usize) = (40, 10);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The photos.
    pub data: PathBuf,
    /// How they are laid out.
    pub dataset: data::Options,
    /// Share of every class that is held out, 0–1.
    pub held_out: f64,
    /// Random views of each photo, beside the photo itself, that maps are learnt from, or that a teacher
    /// or an image tower that is not learnt is run on.
    pub views: u8,
    /// Passes over all views; by default as many as are useful.
    pub epochs: Option<usize>,
    /// Views in a batch.
    pub batch: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// The optimizer's rule; AdaBelief is run with adaptive gradient clipping at 0.01.
    pub rule: Rule,
    /// Which contrastive loss.
    pub loss: Loss,
    /// Who teaches, and what.
    pub teaching: Teaching,
    /// Weight of the pull of maps towards the identity; by default chosen by cross-validation.
    pub strength: Option<f64>,
    /// Learn the towers themselves, so; otherwise maps behind them.
    pub tuning: Option<Tuning>,
    /// Random seed.
    pub seed: u64,
    /// Folder for embeddings and checkpoints.
    pub cache: PathBuf,
    /// Go on where an interrupted run of the same settings stopped.
    pub resume: bool,
    /// Replace a bundle that is there, and write one that is no better.
    pub force: bool,
    /// The command, for the manifest.
    pub command: String,
}

impl Options {
    /// Refuses numbers that cannot be, and what does not go together.
    ///
    /// # Errors
    /// The message says what is legal.
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [
            ("--rate", self.rate),
            ("--strength", self.strength.unwrap_or(0.0)),
        ] {
            ensure!(
                (0.0..=1e6).contains(&value),
                "{name} is {value}; legal: 0 to 1000000"
            );
        }
        self.teaching.check()?;
        ensure!(
            self.tuning.is_some() || !self.teaching.objective.is_taught(),
            "--loss mse and --loss affinity are for --stage adapters and --stage full"
        );
        if let Some(tuning) = &self.tuning {
            tuning.compute.open()?;
        }
        Ok(())
    }

    /// Where the state of the run of this name is saved.
    pub(super) fn checkpoint(&self, run: &str) -> PathBuf {
        self.cache.join(format!("run-{run}.safetensors"))
    }

    /// How it is learnt from `rows` views.
    pub(super) fn settings(&self, bundle: &Bundle, rows: usize) -> Settings {
        let steps = rows.div_ceil(self.batch).max(1);
        let tuning = self.tuning.as_ref();
        let most = if tuning.is_some() {
            MAX_EPOCHS.1
        } else {
            MAX_EPOCHS.0
        };
        let frozen_epochs = tuning.map_or(0, |tuning| tuning.frozen_epochs);
        let usual = (MAX_STEPS / steps).clamp(3, most);
        Settings {
            epochs: frozen_epochs + self.epochs.unwrap_or(usual),
            frozen_epochs,
            frozen_rate: tuning.map_or(0.0, |tuning| tuning.frozen_rate),
            batch: self.batch,
            rate: self.rate,
            rule: self.rule,
            clip: (self.rule == Rule::AdaBelief).then_some(0.01),
            loss: self.loss,
            objective: self.teaching.objective,
            strength: 0.0,
            logit_scale: f64::from(bundle.manifest().scoring.logit_scale),
            seed: self.seed,
        }
    }
}
