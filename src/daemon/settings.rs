//! Changes made over MQTT: kept in the state directory, put over the configuration at every start.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Config, Id, Label, Probability, PromptSource};
use crate::decide::with_enter;
use crate::publish::Change;

/// Larger files are not ours.
const MAX_BYTES: u64 = 256 * 1024;
/// Labels a run-time list may have.
const MAX_LABELS: usize = 64;

/// `settings.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Replaces the configured labels: slug and Italian noun, in order.
    labels: Option<Vec<(String, String)>>,
    /// Enter threshold by slug.
    thresholds: BTreeMap<String, f32>,
    /// Italian noun or prompt by slug.
    prompts: BTreeMap<String, String>,
}

/// Why a change was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No such label.
    #[error("there is no label {0}; the labels are: {1}")]
    UnknownLabel(String, String),
    /// A number out of range.
    #[error("a threshold must be 0 to 1")]
    Threshold,
    /// Nothing to watch, or too much.
    #[error("a label list has 1 to {MAX_LABELS} labels with different ids")]
    Labels,
}

impl Settings {
    /// Reads them from `path`. A missing file is no settings; a file that cannot be used is moved
    /// aside, said in the log, and is no settings either: the daemon has to start.
    pub fn load(path: &Path) -> Self {
        let text = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Ok(data) if data.len() > MAX_BYTES => Err("it is too large".to_owned()),
            _ => std::fs::read_to_string(path).map_err(|error| error.to_string()),
        };
        let parsed =
            text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
        parsed.unwrap_or_else(|error| {
            let aside = path.with_extension("json.corrupt");
            log::error!(
                "run-time settings {} cannot be used ({error}); moved to {}, the configuration file \
                 holds",
                path.display(),
                aside.display()
            );
            if let Err(error) = std::fs::rename(path, &aside) {
                log::error!("and cannot be moved: {error}");
            }
            Self::default()
        })
    }

    /// Writes them: a reader, also after a power cut, finds the old or the new file, whole.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let temporary: PathBuf = path.with_extension("json.new");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::File::open(folder)?.sync_all()
    }

    /// Takes `change` in, checked against the configuration it will be put over.
    ///
    /// # Errors
    /// Unknown labels, thresholds out of range, an empty or repeating label list.
    pub fn change(&mut self, config: &Config, change: &Change) -> Result<(), SettingsError> {
        let known = |label: &Id| {
            if config.labels.iter().any(|l| l.id == *label) {
                return Ok(label.to_string());
            }
            let labels: Vec<&str> = config.labels.iter().map(|l| l.id.as_str()).collect();
            Err(SettingsError::UnknownLabel(
                label.to_string(),
                labels.join(", "),
            ))
        };
        match change {
            Change::Threshold { label, value } => {
                Probability::new(*value).ok_or(SettingsError::Threshold)?;
                self.thresholds.insert(known(label)?, *value);
            }
            Change::Prompt { label, text } => {
                self.prompts.insert(known(label)?, text.clone());
            }
            Change::Labels(labels) => {
                let mut ids: Vec<&Id> = labels.iter().map(|(id, _)| id).collect();
                ids.sort();
                ids.dedup();
                if labels.is_empty() || labels.len() > MAX_LABELS || ids.len() != labels.len() {
                    return Err(SettingsError::Labels);
                }
                let keep = |slug: &String| ids.iter().any(|id| id.as_str() == slug);
                self.thresholds.retain(|slug, _| keep(slug));
                self.prompts.clear();
                let pair = |(id, noun): &(Id, String)| (id.to_string(), noun.clone());
                self.labels = Some(labels.iter().map(pair).collect());
            }
        }
        Ok(())
    }

    /// Puts labels and prompts over `config`. What no longer fits (a label that is gone) is left out.
    ///
    /// New labels are watched in every zone, with the rule of the first configured label and in its
    /// group when all configured labels share one; a label that was there keeps its rule and zones.
    pub fn apply_labels(&self, config: &mut Config) {
        if let Some(labels) = &self.labels {
            replace_labels(config, labels);
        }
        for label in &mut config.labels {
            if let Some(text) = self.prompts.get(label.id.as_str()) {
                label.prompts = PromptSource::Noun(text.clone());
            }
        }
    }

    /// Puts thresholds over those of `config`, the last word on them.
    pub fn apply_thresholds(&self, config: &mut Config) {
        for label in &mut config.labels {
            let threshold = self.thresholds.get(label.id.as_str());
            if let Some(enter) = threshold.and_then(|p| Probability::new(*p)) {
                label.rule = with_enter(label.rule, enter);
            }
        }
    }
}

fn replace_labels(config: &mut Config, labels: &[(String, String)]) {
    let Some(first) = config.labels.first().cloned() else {
        return;
    };
    let shared_group = config.labels.iter().all(|l| l.group == first.group);
    let before = std::mem::take(&mut config.labels);
    let mut came_from = Vec::new();
    for (slug, noun) in labels {
        let Some(id) = Id::new(slug) else { continue };
        let old = before.iter().position(|label| label.id == id);
        let base = old.map_or(&first, |n| &before[n]);
        let group = base.group.clone().filter(|_| old.is_some() || shared_group);
        let prompts = PromptSource::Noun(noun.clone());
        config.labels.push(Label {
            id,
            prompts,
            group,
            rule: base.rule,
        });
        came_from.push(old);
    }
    for zone in config
        .cameras
        .iter_mut()
        .flat_map(|camera| &mut camera.zones)
    {
        let watched = std::mem::take(&mut zone.labels);
        let watches = |old: &Option<usize>| old.is_none_or(|n| watched.contains(&n));
        zone.labels = (0..came_from.len())
            .filter(|&n| watches(&came_from[n]))
            .collect();
    }
}
