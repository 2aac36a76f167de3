//! From a checked configuration and a bundle to what the inference thread watches.

use std::path::Path;
use std::sync::Arc;

use super::ServeError;
use crate::bundle::Bundle;
use crate::config::Config;
use crate::decide;
use crate::label_bank;
use crate::lookout::{WatchedCamera, WatchedZone};
use crate::matcher::LabelBank;
use crate::prompts;

/// The cameras of `config` with their zones' label banks. Prompts that were embedded before come
/// from the cache in `cache_dir`; the text encoder is loaded only for the others, and freed.
///
/// # Errors
/// A label whose prompts cannot be made, or a text encoder that fails.
pub fn watch(
    config: &Config,
    bundle: &Bundle,
    cache_dir: &Path,
) -> Result<Vec<WatchedCamera>, ServeError> {
    let label_prompts = config
        .labels
        .iter()
        .map(|label| {
            prompts::for_label(&label.prompts)
                .map_err(|error| ServeError::Prompt(label.id.to_string(), error.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let negatives: Vec<Vec<String>> = prompts::negatives_besides(&config.negatives, &config.labels)
        .into_iter()
        .map(|prompt| vec![prompt])
        .collect();
    let mut groups: Vec<&str> = Vec::new();
    let group_of: Vec<Option<usize>> = config
        .labels
        .iter()
        .map(|label| {
            let name = label.group.as_ref()?.as_str();
            Some(
                groups
                    .iter()
                    .position(|known| *known == name)
                    .unwrap_or_else(|| {
                        groups.push(name);
                        groups.len() - 1
                    }),
            )
        })
        .collect();
    let mut announced = false;
    let mut progress = |done: usize, of: usize| {
        if !announced || done == of {
            log::info!("embedding prompts: {done} of {of}");
            announced = true;
        }
    };
    let bank = label_bank::build(
        bundle,
        Some(cache_dir),
        &label_prompts,
        group_of,
        &negatives,
        &mut progress,
    )
    .map_err(|error| ServeError::LabelBank(error.to_string()))?;

    let mut plans = decide::plan(config, |label| prompts::display(&label.prompts))
        .into_iter()
        .peekable();
    let cameras = config.cameras.iter().map(|camera| {
        let mut zones = Vec::new();
        for zone in &camera.zones {
            let Some(plan) = plans.next() else { break };
            let select = |n: &usize| bank.labels[*n].clone();
            let bank = LabelBank {
                labels: zone.labels.iter().map(select).collect(),
                groups: zone.labels.iter().map(|n| bank.groups[*n]).collect(),
                negatives: Arc::clone(&bank.negatives),
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
