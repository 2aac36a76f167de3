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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Limits;
    use crate::config::Environment;

    #[test]
    fn prompts_are_embedded_with_signs_of_life() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let bundle = Bundle::open(&demo, &Limits::default()).unwrap();
        let text = "[[camera]]\nreplay = \"/nowhere\"\n[[label]]\nnoun = \"mela\"\n";
        let config = Config::from_toml(text, "v.toml", &[], &Environment::bare()).unwrap();
        let calibrated = Applied::of_config(&config, &bundle);
        let cache = tempfile::tempdir().unwrap();
        let mut signs = 0;
        let mut alive = || signs += 1;
        let cameras = watch(&config, &bundle, &calibrated, cache.path(), &mut alive).unwrap();
        assert_eq!(cameras.len(), 1);
        assert!(signs > 1, "one for every few prompts");
    }
}
