//! Public checkpoints in, bundles out.
//!
//! ```text
//! config.json ─► family ─► sizes ──────────────┐
//! *.safetensors, … ─► checkpoint ─► weights ───┴─► towers ─► image.onnx, text.onnx ─┐
//! tokenizer.json │ vocab.txt │ vocab.json ─► tokenizer.json ────────────────────────┼─► bundle
//! preprocessor_config.json, README.md ─► bundle.toml, LICENSES.md ──────────────────┘
//! ```
//!
//! A checkpoint is hostile input: a tensor that is missing, unknown, misshapen or not finite is
//! refused with its name, and nothing in it is ever executed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use serde_json::Value;

pub mod card;
pub mod checkpoint;
pub mod config;
pub mod described;
mod download;
pub mod drawn;
pub mod family;
pub mod hub;
pub mod names;
pub mod open_clip;
pub mod preprocessor;
pub mod roberta;
pub mod tokenizer;
pub mod towers;
pub mod weights;
pub(in crate::train) mod write;

use self::card::Card;
use self::checkpoint::Checkpoint;
use self::described::Described;
use self::family::Family;
use self::hub::Found;
use self::weights::Weights;
use self::write::Staging;
use crate::bundle::manifest::{Manifest, Padding, Precision, Provenance, SCHEMA, Scoring, Text};
use crate::bundle::{Bundle, Limits};
use crate::config::Id;
use crate::train::onnx::Store;

/// What the user may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bundle's name; by default the folder's.
    pub name: Option<String>,
    /// The CLIP whose images a text tower alone was trained for.
    pub vision: Option<PathBuf>,
    /// A `tokenizer.json`, or a folder with a tokenizer; by default the checkpoint's own.
    pub tokenizer: Option<PathBuf>,
    /// The weights' licence; by default what the model card says.
    pub licence: Option<String>,
    /// Language of the prompts, BCP 47.
    pub language: Option<String>,
    /// How matrices are stored.
    pub store: Store,
    /// Most tokens of a text; by default the family's.
    pub max_tokens: Option<usize>,
    /// Linear factor before the softmax; by default the checkpoint's, or the family's.
    pub logit_scale: Option<f32>,
    /// Replace a bundle that is there.
    pub force: bool,
    /// The command line, for the manifest.
    pub command: String,
}

/// What was made.
#[derive(Debug)]
pub struct Report {
    /// Which family.
    pub family: Family,
    /// The manifest that was written.
    pub manifest: Manifest,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// An opened checkpoint.
struct Opened {
    folder: PathBuf,
    title: String,
    name: String,
    config: Value,
    checkpoint: Checkpoint,
}

impl Opened {
    fn open(source: &Path) -> Result<Self> {
        let Found { path, title, name } = hub::find(source)?;
        let folder = if path.is_dir() {
            path.as_path()
        } else {
            path.parent().unwrap_or(&path)
        };
        let config = family::read_config(folder)?;
        Family::of(&config)?;
        Ok(Self {
            folder: folder.to_owned(),
            title,
            name,
            config,
            checkpoint: Checkpoint::open(&path)?,
        })
    }

    fn described(&self) -> Result<(Described, Weights<'_>)> {
        let weights = Family::of(&self.config)?.weights(&self.checkpoint)?;
        Ok((Described::read(&self.config, &weights)?, weights))
    }

    /// A CLIP's images without its texts, for a text tower that has its own.
    fn images(&self) -> Result<(Described, Weights<'_>)> {
        ensure!(
            Family::of(&self.config)? == Family::Clip,
            "--vision has to name a CLIPModel"
        );
        let weights = Weights::new(&self.checkpoint, names::images_only)?;
        Ok((Described::read(&self.config, &weights)?, weights))
    }

    fn card(&self, licence: Option<&str>, bar: &ProgressBar) -> Result<Card> {
        let hashes = write::hash_sources(&self.checkpoint, bar)?;
        Card::read(&self.folder, &self.title, licence, hashes)
    }
}

/// The checkpoint of the images, where the texts' has none.
fn other(described: &Described, vision: Option<&Path>) -> Result<Option<Opened>> {
    match (&described.vision, vision) {
        (Some(_), None) => Ok(None),
        (None, Some(vision)) => Ok(Some(Opened::open(vision)?)),
        (Some(_), Some(_)) => {
            bail!("the checkpoint has an image tower; --vision is for text towers")
        }
        (None, None) => bail!(
            "the checkpoint is a text tower alone; name the CLIP whose images it was trained for \
             with --vision"
        ),
    }
}

/// Reads the checkpoint `source` (a folder, a weight file inside one, or an id on the hub, which is
/// downloaded) and writes a float bundle to `out`. The bundle appears when it is complete and has been opened again. `bar` counts bytes.
///
/// # Errors
/// A checkpoint that is incomplete, damaged or of an unknown family, or a folder that cannot be
/// written; the message says what to do.
pub fn import(source: &Path, out: &Path, options: &Options, bar: &ProgressBar) -> Result<Report> {
    let staging = Staging::new(out, options.force)?;
    let opened = Opened::open(source)?;
    let (described, mut weights) = opened.described()?;
    let other = other(&described, options.vision.as_deref())?;
    let mut apart = other.as_ref().map(Opened::images).transpose()?;
    if let Some((images, _)) = &apart {
        ensure!(
            images.dim == described.dim,
            "the images' space has {} dimensions, the texts' {}; they do not belong together",
            images.dim,
            described.dim
        );
    }
    let images = apart.as_ref().map_or(&described, |(images, _)| images);
    let size_px = images.vision.map_or(0, |vision| vision.size_px);
    let folder = &other.as_ref().unwrap_or(&opened).folder;
    let (image, note) = preprocessor::read(folder, size_px, &images.preprocessing)?;
    let mut notes: Vec<String> = note
        .filter(|_| images.family != Family::OpenClip)
        .into_iter()
        .collect();
    let place = options.tokenizer.as_deref().unwrap_or(&opened.folder);
    let tokenizer = tokenizer::read(place, described.text.vocabulary)?;
    notes.extend(tokenizer.note);
    let text = text_rules(&described, options, tokenizer.pad_id)?;

    let mut cards = vec![opened.card(options.licence.as_deref(), bar)?];
    if let Some(other) = &other {
        cards.push(other.card(None, bar)?);
    }
    notes.extend(cards.iter().filter_map(Card::note));
    // One tower after the other: each is in memory only until it is written.
    bar.set_message("reading image tower");
    let (images, from) = match &mut apart {
        Some((images, weights)) => (&*images, weights),
        None => (&described, &mut weights),
    };
    let (logit_scale, note) = images.logit_scale(from)?;
    notes.extend(note);
    let tower = images.image_tower(from, options.store)?;
    if let Some((_, weights)) = apart {
        weights.finish()?;
    }
    let mut files = staging.model("image.onnx", tower, bar)?;
    bar.set_message("reading text tower");
    let tower = described.text_tower(&mut weights, options.store)?;
    weights.finish()?;
    files.extend(staging.model("text.onnx", tower, bar)?);
    files.extend(staging.file("tokenizer.json", tokenizer.json.as_bytes())?);
    files.extend(staging.file("LICENSES.md", card::licences(&cards).as_bytes())?);

    let precision = match options.store {
        Store::Float => "f32",
        Store::Half => "f16",
    };
    let manifest = Manifest {
        schema: SCHEMA,
        name: name(options, &opened.name)?,
        version: "1.0.0".to_owned(),
        minimum_vedetta: env!("CARGO_PKG_VERSION").to_owned(),
        language: options.language.clone().unwrap_or_else(|| "it".to_owned()),
        embedding_dim: described.dim,
        image,
        text,
        scoring: Scoring {
            logit_scale: options.logit_scale.unwrap_or(logit_scale),
        },
        precision: Precision {
            image: precision.to_owned(),
            text: precision.to_owned(),
        },
        files,
        evaluation: BTreeMap::new(),
        provenance: Provenance {
            command: options.command.clone(),
            sources: cards.iter().flat_map(Card::sources).collect(),
        },
    };
    staging.manifest(&manifest)?;
    bar.set_message("checking the bundle");
    Bundle::open(staging.path(), &Limits::default())?;
    staging.commit()?;
    bar.finish_and_clear();
    Ok(Report {
        family: described.family,
        manifest,
        notes,
    })
}

fn name(options: &Options, usual: &str) -> Result<String> {
    let name = match &options.name {
        Some(name) => Id::new(name).with_context(|| format!("--name {name}: {}", Id::LEGAL))?,
        None => Id::from_text(usual).context("give the bundle a --name")?,
    };
    Ok(name.as_str().to_owned())
}

fn text_rules(described: &Described, options: &Options, pad_id: Option<u32>) -> Result<Text> {
    let rules = &described.text;
    let max_tokens = options.max_tokens.unwrap_or(rules.max_tokens);
    ensure!(
        max_tokens <= rules.positions,
        "--max-tokens {max_tokens} is more than the text tower's {} positions",
        rules.positions
    );
    ensure!(
        rules.padding == Padding::Longest || max_tokens == rules.positions,
        "--max-tokens {max_tokens}: this family's texts are always {} tokens long",
        rules.positions
    );
    Ok(Text {
        max_tokens,
        padding: rules.padding,
        pad_id: pad_id.unwrap_or(rules.pad_id),
    })
}

#[cfg(test)]
mod tests;
