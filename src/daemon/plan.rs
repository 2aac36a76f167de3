//! From a checked configuration and a bundle to what the inference thread watches.

use std::path::Path;
use std::sync::Arc;

use super::ServeError;
use crate::bundle::Bundle;
use crate::calibrate::Applied;
use crate::config::Config;
use crate::decide;
use crate::label_set::LabelSet;
use crate::lookout::{WatchedCamera, WatchedZone};
use crate::matcher::LabelBank;
use crate::prompts;

/// The cameras of `config` with their zones' label banks, and what of a calibration holds for them.
/// Prompts that were embedded before come from the cache in `cache_dir`; the text encoder is loaded
/// only for the others, and freed. That takes minutes with many labels on a small board: `alive` is
/// called again and again meanwhile.
///
/// # Errors
/// A label whose prompts cannot be made, or a text encoder that fails.
pub fn watch(
    config: &Config,
    bundle: &Bundle,
    calibrated: &Applied,
    cache_dir: &Path,
    alive: &mut dyn FnMut(),
) -> Result<Vec<WatchedCamera>, ServeError> {
    let set = LabelSet::new(&config.labels, &config.negatives)?;
    let mut announced = false;
    let mut progress = |done: usize, of: usize| {
        alive();
        if !announced || done == of {
            log::info!("embedding prompts: {done} of {of}");
            announced = true;
        }
    };
    let bank = set
        .bank(bundle, Some(cache_dir), &mut progress)
        .map_err(|error| ServeError::LabelBank(error.to_string()))?;

    let mut plans = decide::plan(config, |label| prompts::display(&label.prompts))
        .into_iter()
        .peekable();
    let cameras = config.cameras.iter().map(|camera| {
        let mut zones = Vec::new();
        for zone in &camera.zones {
            let Some(mut plan) = plans.next() else { break };
            for (label, n) in plan.labels.iter_mut().zip(&zone.labels) {
                label.calibration = calibrated.platt(*n);
            }
            let select = |n: &usize| bank.labels[*n].clone();
            let bank = LabelBank {
                labels: zone.labels.iter().map(select).collect(),
                groups: zone.labels.iter().map(|n| bank.groups[*n]).collect(),
                negatives: Arc::clone(&bank.negatives),
                shots: calibrated.shots(&zone.labels),
            };
            zones.push(WatchedZone { plan, bank });
        }
        WatchedCamera {
            camera: camera.clone(),
            zones,
        }
    });
    Ok(cameras.collect())
}
