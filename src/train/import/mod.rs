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

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;

pub mod card;
pub mod checkpoint;
pub mod config;
pub mod family;
pub mod preprocessor;
pub mod tokenizer;
pub mod towers;
pub mod weights;
pub(in crate::train) mod write;

use self::checkpoint::Checkpoint;
use self::family::{Described, Family};
use self::write::Staging;
use crate::bundle::manifest::{Manifest, Precision, Provenance, SCHEMA, Scoring, Text};
use crate::bundle::{Bundle, Limits};
use crate::config::Id;
use crate::train::onnx::Store;

/// What the user may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bundle's name; by default the folder's.
    pub name: Option<String>,
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

/// Reads the checkpoint `source` (a folder, or a weight file inside one) and writes a float bundle
/// to `out`. The bundle appears when it is complete and has been opened again. `bar` counts bytes.
///
/// # Errors
/// A checkpoint that is incomplete, damaged or of an unknown family, or a folder that cannot be
/// written; the message says what to do.
pub fn import(source: &Path, out: &Path, options: &Options, bar: &ProgressBar) -> Result<Report> {
    ensure!(
        source.exists(),
        "{} does not exist; give a folder with config.json and weights",
        source.display()
    );
    let folder = if source.is_dir() {
        source
    } else {
        source.parent().unwrap_or(source)
    };
    let staging = Staging::new(out, options.force)?;
    let config = family::read_config(folder)?;
    Family::of(&config)?;
    let checkpoint = Checkpoint::open(source)?;
    let mut weights = family::weights(&config, &checkpoint)?;
    let described = Described::read(&config, &weights)?;
    let (image, note) = preprocessor::read(folder, described.size_px, &described.preprocessing)?;
    let mut notes: Vec<String> = note.into_iter().collect();
    let place = options.tokenizer.as_deref().unwrap_or(folder);
    let tokenizer = tokenizer::read(place, described.text.vocabulary)?;
    notes.extend(tokenizer.note);

    let hashes = write::hash_sources(&checkpoint, bar)?;
    let (logit_scale, note) = described.logit_scale(&mut weights)?;
    notes.extend(note);
    let card = card::Card::read(folder, options.licence.as_deref())?;
    notes.extend(card.note());
    // One tower after the other: each is in memory only until it is written.
    bar.set_message("reading image tower");
    let tower = described.image(&mut weights, options.store)?;
    let mut files = staging.model("image.onnx", tower, bar)?;
    bar.set_message("reading text tower");
    let tower = described.tokens(&mut weights, options.store)?;
    weights.finish()?;
    files.extend(staging.model("text.onnx", tower, bar)?);
    files.extend(staging.file("tokenizer.json", tokenizer.json.as_bytes())?);
    let title = title(folder);
    files.extend(staging.file("LICENSES.md", card.licences(&title, &hashes).as_bytes())?);

    let precision = match options.store {
        Store::Float => "f32",
        Store::Half => "f16",
    };
    let name = match &options.name {
        Some(name) => Id::new(name).with_context(|| format!("--name {name}: {}", Id::LEGAL))?,
        None => Id::from_text(&title).context("give the bundle a --name")?,
    };
    let manifest = Manifest {
        schema: SCHEMA,
        name: name.as_str().to_owned(),
        version: "1.0.0".to_owned(),
        minimum_vedetta: env!("CARGO_PKG_VERSION").to_owned(),
        language: options.language.clone().unwrap_or_else(|| "it".to_owned()),
        embedding_dim: described.dim,
        image,
        text: Text {
            max_tokens: options.max_tokens.unwrap_or(described.text.max_tokens),
            padding: described.text.padding,
            pad_id: tokenizer.pad_id.unwrap_or(described.text.pad_id),
        },
        scoring: Scoring {
            logit_scale: options.logit_scale.unwrap_or(logit_scale),
        },
        precision: Precision {
            image: precision.to_owned(),
            text: precision.to_owned(),
        },
        files,
        evaluation: std::collections::BTreeMap::new(),
        provenance: Provenance {
            command: options.command.clone(),
            sources: card.sources(&title, &hashes),
        },
    };
    ensure!(
        manifest.text.max_tokens <= described.positions(),
        "--max-tokens {} is more than the text tower's {} positions",
        manifest.text.max_tokens,
        described.positions()
    );
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

/// The checkpoint's name: its folder's.
fn title(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.file_name().map_or_else(
        || "checkpoint".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests;
