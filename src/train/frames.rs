//! Frames sorted by label, scored exactly as the daemon scores them.
//!
//! One folder per label, and one called `nessuno` (or `none`) for frames that show none of them. A
//! frame counts as showing its folder's label and no other.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::data::{Dataset, Format, Options, Skips};
use super::embed;
use crate::bundle::Bundle;
use crate::calibrate::Measured;
use crate::config::{Config, Id, Label, Negatives, PromptSource, Rule, Shape};
use crate::encoder::Embedding;
use crate::label_set::{Contender, LabelSet};
use crate::matcher::{self, LabelBank, Shots};

/// What the folder of frames without any label may be called.
const NONE: [&str; 2] = ["nessuno", "none"];

/// Where frames and labels come from.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Folder with one folder per label.
    pub folder: PathBuf,
    /// Italian names of the folders; see [`super::data::Names`].
    pub names: Option<PathBuf>,
    /// Labels, groups and negatives; without it every folder is a label.
    pub config: Option<Config>,
    /// Only the labels of this zone, and of every frame only the zone's part.
    pub zone: Option<Id>,
    /// Without a configuration: the labels exclude each other.
    pub exclusive: bool,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its path inside the folder.
    pub name: String,
    /// Position of the label it shows; `None`: none of them.
    pub shows: Option<usize>,
    /// Its embedding.
    pub embedding: Embedding,
}

/// Labelled frames and what they are compared with.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The labels.
    pub set: LabelSet,
    /// Where each turns ON without a calibration.
    pub enter: Vec<f32>,
    /// Their embeddings.
    pub bank: LabelBank,
    /// The bundle's logit scale.
    pub logit_scale: f32,
    /// Sorted by name.
    pub frames: Vec<Frame>,
    /// What could not be used.
    pub skipped: Skips,
}

impl Frames {
    /// Reads and embeds them.
    ///
    /// # Errors
    /// A folder that is no label, labels that cannot be made, a model that fails.
    pub fn open(bundle: &Bundle, wanted: &Wanted) -> Result<Self> {
        let options = Options {
            format: Some(Format::Folders),
            names: wanted.names.clone(),
        };
        let dataset = Dataset::open(&wanted.folder, &options)?;
        let (set, shape) = match &wanted.config {
            Some(config) => watched(config, wanted.zone.as_ref())?,
            None => {
                ensure!(wanted.zone.is_none(), "--zone needs --config");
                (of_folders(&dataset, wanted.exclusive)?, Shape::Full)
            }
        };
        let shows = dataset
            .classes
            .iter()
            .map(|class| match position(&set, &class.key, &class.noun) {
                Some(label) => Ok(Some(label)),
                None if is_none(&class.key) => Ok(None),
                None if elsewhere(wanted.config.as_ref(), &class.key, &class.noun) => Ok(None),
                None => bail!(
                    "the folder {:?} is no label of the configuration; call it {} or nessuno, or \
                     name it in names.tsv",
                    class.key,
                    set.labels
                        .iter()
                        .map(|label| label.id.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            })
            .collect::<Result<Vec<_>>>()?;
        let bank = set.bank(bundle, None, &mut |_, _| {})?;
        let items: Vec<_> = dataset.items.iter().collect();
        let (embeddings, unread) = embed::photos(bundle, &items, &shape)?;
        let mut skipped = dataset.skipped.clone();
        for one in unread.first() {
            skipped.add(&one.name, &one.reason);
        }
        let frames: Vec<Frame> = dataset
            .items
            .iter()
            .zip(embeddings)
            .filter_map(|(item, embedding)| {
                Some(Frame {
                    name: item.name.clone(),
                    shows: shows[item.class?],
                    embedding: embedding?,
                })
            })
            .collect();
        ensure!(
            !frames.is_empty(),
            "no frame of {} can be read",
            wanted.folder.display()
        );
        let configured = wanted.config.iter().flat_map(|config| &config.labels);
        let enter = |label: &Contender| {
            let rule = configured
                .clone()
                .find(|l| l.id == label.id)
                .map(|l| l.rule);
            rule.unwrap_or_default().enter.get()
        };
        Ok(Self {
            enter: set.labels.iter().map(enter).collect(),
            set,
            bank,
            logit_scale: bundle.manifest().scoring.logit_scale,
            frames,
            skipped,
        })
    }

    /// `[label][frame]`: the probability the daemon would give before calibration, and whether the
    /// frame shows the label. A frame that is one of the `shots` is scored without itself; `key`
    /// says which it is.
    pub fn scores(
        &self,
        shots: Option<&Shots>,
        key: impl Fn(usize) -> Option<usize>,
    ) -> Vec<Vec<(f32, bool)>> {
        let bank = LabelBank {
            shots: shots.cloned(),
            ..self.bank.clone()
        };
        let mut table = vec![Vec::with_capacity(self.frames.len()); self.set.labels.len()];
        for (n, frame) in self.frames.iter().enumerate() {
            let left_out = shots.and_then(|_| key(n));
            let scores =
                matcher::score_without(&frame.embedding, &bank, self.logit_scale, left_out);
            for (label, score) in scores.into_iter().enumerate() {
                table[label].push((score.probability, frame.shows == Some(label)));
            }
        }
        table
    }
}

/// What a threshold makes of samples: `(probability, shows it)`.
pub fn measure(samples: &[(f32, bool)], enter: f32) -> Measured {
    let count = |wanted: &dyn Fn(&(f32, bool)) -> bool| {
        u32::try_from(samples.iter().filter(|s| wanted(s)).count()).unwrap_or(u32::MAX)
    };
    Measured {
        frames: count(&|_| true),
        shown: count(&|s| s.1),
        found: count(&|s| s.1 && s.0 >= enter),
        mistaken: count(&|s| !s.1 && s.0 >= enter),
    }
}

fn is_none(key: &str) -> bool {
    NONE.contains(&key.to_lowercase().as_str())
}

fn position(set: &LabelSet, key: &str, noun: &str) -> Option<usize> {
    let ids = [Id::from_text(key), Id::from_noun(noun), Id::from_noun(key)];
    ids.into_iter().flatten().find_map(|id| set.position(&id))
}

/// Whether a folder is a label of the configuration that another zone watches.
fn elsewhere(config: Option<&Config>, key: &str, noun: &str) -> bool {
    let ids = [Id::from_text(key), Id::from_noun(noun)];
    config.is_some_and(|config| {
        let known = |label: &Label| ids.iter().flatten().any(|id| *id == label.id);
        config.labels.iter().any(known)
    })
}

/// The labels of a zone and its place; without a name those that all zones watch, and the whole
/// picture.
fn watched(config: &Config, zone: Option<&Id>) -> Result<(LabelSet, Shape)> {
    let all = LabelSet::new(&config.labels, &config.negatives)?;
    let mut zones = config.cameras.iter().flat_map(|camera| &camera.zones);
    if let Some(id) = zone {
        let names: Vec<&str> = zones.clone().map(|zone| zone.id.as_str()).collect();
        let zone = zones
            .find(|zone| zone.id == *id)
            .with_context(|| format!("there is no zone {id}; there are {}", names.join(", ")))?;
        return Ok((all.select(&zone.labels), zone.shape.clone()));
    }
    let first = zones.next().context("the configuration has no zone")?;
    ensure!(
        zones.all(|zone| zone.labels == first.labels),
        "zones watch different labels, so scores differ between them; name one with --zone"
    );
    Ok((all.select(&first.labels), Shape::Full))
}

/// Every folder is a label, as a configuration with `[[label]]` and `noun` alone would have it.
fn of_folders(dataset: &Dataset, exclusive: bool) -> Result<LabelSet> {
    let group = Id::new("etichette").filter(|_| exclusive);
    let mut labels: Vec<Label> = Vec::new();
    for class in dataset.classes.iter().filter(|class| !is_none(&class.key)) {
        let id = Id::from_noun(&class.noun).with_context(|| {
            format!(
                "the folder {:?} gives no id; name it in names.tsv",
                class.key
            )
        })?;
        ensure!(
            labels.iter().all(|label| label.id != id),
            "two folders are the label {id}; name them in names.tsv"
        );
        labels.push(Label {
            id,
            prompts: PromptSource::Noun(class.noun.clone()),
            group: group.clone(),
            rule: Rule::default(),
        });
    }
    ensure!(
        !labels.is_empty(),
        "there is no folder with frames of a label"
    );
    let negatives = Negatives {
        builtin: true,
        extra: Vec::new(),
    };
    Ok(LabelSet::new(&labels, &negatives)?)
}
