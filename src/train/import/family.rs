//! Families of checkpoints: how `config.json` names them, what their tensors are called, and which
//! towers they are made of.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::checkpoint::{Checkpoint, MAX_JSON_BYTES, Stored, read_text};
use super::config::{self, Kind};
use super::preprocessor::{self, Defaults};
use super::towers::{bert, clip_text, vit};
use super::weights::{Fate, Renamed, Weights};
use crate::bundle::manifest::Padding;
use crate::train::onnx::{Model, Store};

/// Longest texts CLIP-Italian was trained on, tokens.
const DUAL_ENCODER_TOKENS: usize = 96;

/// CLIP-Italian's fixed scale. It was never written into the checkpoint as a trained value.
const DUAL_ENCODER_SCALE: f32 = 20.0;

/// A known family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `VisionTextDualEncoder` or Flax' `HybridCLIP`: CLIP's vision transformer beside BERT.
    DualEncoder,
    /// `CLIPModel`.
    Clip,
}

impl Family {
    /// What `config.json` describes.
    ///
    /// # Errors
    /// A model that is not known.
    pub fn of(config: &Value) -> Result<Self> {
        let name = config.get("model_type").and_then(Value::as_str);
        Ok(match name {
            Some("vision-text-dual-encoder" | "hybrid-clip") => Self::DualEncoder,
            Some("clip") => Self::Clip,
            other => bail!(
                "config.json: model_type is {}; known: vision-text-dual-encoder, hybrid-clip, clip",
                other.unwrap_or("missing")
            ),
        })
    }

    /// As `models/catalog.toml` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DualEncoder => "vision-text-dual-encoder",
            Self::Clip => "clip",
        }
    }
}

/// The text half of the manifest.
#[derive(Clone, Copy, Debug)]
pub struct TextRules {
    /// Most tokens.
    pub max_tokens: usize,
    /// Padding.
    pub padding: Padding,
    /// What fills up, unless the tokenizer's files name another one.
    pub pad_id: u32,
    /// Rows of the embedding table.
    pub vocabulary: usize,
}

/// A checkpoint with its family's sizes, ready to be written.
pub struct Described {
    /// Which family.
    pub family: Family,
    /// Width of the shared space.
    pub dim: usize,
    /// Edge of the pictures.
    pub size_px: usize,
    /// Preparation of the pictures when the checkpoint does not say it.
    pub preprocessing: Defaults,
    /// Text half of the manifest.
    pub text: TextRules,
    vision: config::Vision,
    tokens: config::Text,
}

/// Reads `folder/config.json`.
///
/// # Errors
/// A file that is missing or not JSON.
pub fn read_config(folder: &Path) -> Result<Value> {
    let text = read_text(&folder.join("config.json"), MAX_JSON_BYTES)?;
    serde_json::from_str(&text).context("config.json")
}

/// A part of `config.json`; missing parts have their usual values throughout.
fn part<'a>(config: &'a Value, name: &str) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    match config.get(name) {
        // HybridCLIP may have the whole of CLIP's configuration here.
        Some(part) => part.get(name).unwrap_or(part),
        None => NOTHING,
    }
}

impl Described {
    /// Reads the sizes from `config.json`.
    ///
    /// # Errors
    /// A family or a value that is not known.
    pub fn read(config: &Value, weights: &Weights) -> Result<Self> {
        let family = Family::of(config)?;
        let vision = part(config, "vision_config");
        let vision = config::vision(vision, "vision_config", Kind::ClipVision)?;
        let text = part(config, "text_config");
        let (kind, table) = match family {
            Family::DualEncoder => {
                let name = text.get("model_type").and_then(Value::as_str);
                if name.is_some_and(|name| name != "bert") {
                    bail!(
                        "config.json: text_config.model_type is {}; known: bert",
                        name.unwrap_or_default()
                    );
                }
                (Kind::Bert, "text.embeddings.word_embeddings.weight")
            }
            Family::Clip => (Kind::ClipText, "text.embeddings.token_embedding.weight"),
        };
        let tokens = config::text(text, "text_config", kind)?;
        let most = match family {
            Family::DualEncoder => DUAL_ENCODER_TOKENS,
            Family::Clip => tokens.positions,
        };
        Ok(Self {
            family,
            dim: config::projection(config)?,
            size_px: vision.size_px,
            preprocessing: preprocessor::CLIP,
            text: TextRules {
                max_tokens: most.min(tokens.positions),
                padding: Padding::Longest,
                pad_id: tokens.pad_id.unwrap_or(0),
                vocabulary: weights.shape(table)?.first().copied().unwrap_or(0),
            },
            vision,
            tokens,
        })
    }

    /// Most tokens the text tower has positions for.
    pub fn positions(&self) -> usize {
        self.tokens.positions
    }

    /// `image.onnx`.
    ///
    /// # Errors
    /// A tensor that is missing, misshapen or not finite, with its name.
    pub fn image(&self, weights: &mut Weights, store: Store) -> Result<Model> {
        vit::clip(weights, &self.vision, self.dim, store)
    }

    /// `text.onnx`.
    ///
    /// # Errors
    /// As [`Self::image`].
    pub fn tokens(&self, weights: &mut Weights, store: Store) -> Result<Model> {
        match self.family {
            Family::DualEncoder => bert::pooled(weights, &self.tokens, self.dim, store),
            Family::Clip => clip_text::clip(weights, &self.tokens, self.dim, store),
        }
    }

    /// The linear factor before the softmax, and what the user should know about it.
    ///
    /// # Errors
    /// A scale that is missing where the family has one, or out of range.
    pub fn logit_scale(&self, weights: &mut Weights) -> Result<(f32, Option<String>)> {
        let stored = weights.scalar("logit_scale")?;
        match self.family {
            Family::DualEncoder => {
                let found = stored.map_or("none".to_owned(), |scale| scale.to_string());
                let note = format!(
                    "logit scale {DUAL_ENCODER_SCALE}, as CLIP-Italian was trained; the checkpoint's own \
                     ({found}) was never trained. --logit-scale overrides it"
                );
                Ok((DUAL_ENCODER_SCALE, Some(note)))
            }
            Family::Clip => {
                let scale = stored.context("tensor logit_scale is missing")?.exp();
                if !(1.0..=1000.0).contains(&scale) {
                    bail!("tensor logit_scale gives a scale of {scale}; legal: 1 to 1000");
                }
                Ok((scale, None))
            }
        }
    }
}

/// All tensors of `checkpoint` by the names the towers of `config` ask for.
///
/// # Errors
/// A family that is not known, or two tensors for one name.
pub fn weights<'a>(config: &Value, checkpoint: &'a Checkpoint) -> Result<Weights<'a>> {
    match Family::of(config)? {
        Family::DualEncoder | Family::Clip => Weights::new(checkpoint, transformers),
    }
}

/// Prefixes in `transformers`' checkpoints, the longer first: the vision tower nests once or twice.
const PREFIXES: [(&str, &str); 3] = [
    ("vision_model.vision_model.", "vision."),
    ("vision_model.", "vision."),
    ("text_model.", "text."),
];

/// Names as `transformers` writes them.
fn transformers(name: &str, stored: &Stored) -> Result<Fate> {
    if name.ends_with("position_ids") || name.ends_with("token_type_ids") {
        return Ok(Fate::Ignored);
    }
    let found = PREFIXES
        .iter()
        .find_map(|(prefix, tower)| Some(format!("{tower}{}", name.strip_prefix(prefix)?)));
    let name = found.unwrap_or_else(|| name.to_owned());
    Ok(Fate::Renamed(vec![Renamed {
        name: name.replace("vision.pre_layernorm.", "vision.pre_layrnorm."),
        stored: stored.clone(),
    }]))
}
