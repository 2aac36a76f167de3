//! A checkpoint with its sizes: which towers it has, and how they are written.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::config::{self, Kind};
use super::family::Family;
use super::open_clip;
use super::preprocessor::{self, Defaults};
use super::roberta;
use super::towers::{bert, clip_text, siglip, vit};
use super::weights::Weights;
use crate::bundle::manifest::{Crop, Padding, Resize};
use crate::train::onnx::{Model, Store};

/// Longest texts CLIP-Italian was trained on, tokens.
const DUAL_ENCODER_TOKENS: usize = 96;

/// CLIP-Italian's fixed scale. It was never written into the checkpoint as a trained value.
const DUAL_ENCODER_SCALE: f32 = 20.0;

/// open_clip's usual length, which its XLM-RoBERTa models were trained with; M-CLIP's captions were
/// no longer.
const ROBERTA_TOKENS: usize = 77;

/// SigLIP's image processor.
const SIGLIP: Defaults = Defaults {
    resize: Resize::Bicubic,
    crop: Crop::Squash,
    mean: [0.5; 3],
    std: [0.5; 3],
};

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
    /// Most tokens the tower has positions for.
    pub positions: usize,
}

/// How the text tower ends.
#[derive(Clone, Copy, Debug)]
enum TextTower {
    Bert,
    Clip,
    Roberta(bert::Projection),
    Siglip,
}

/// A checkpoint's sizes.
pub struct Described {
    /// Which family.
    pub family: Family,
    /// Width of the shared space.
    pub dim: usize,
    /// Preparation of the pictures when the checkpoint does not say it.
    pub preprocessing: Defaults,
    /// Text half of the manifest.
    pub text: TextRules,
    /// Sizes of the image tower; `None` for a text tower alone.
    pub vision: Option<config::Vision>,
    tokens: config::Text,
    tower: TextTower,
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

/// Rows of a table.
fn rows(weights: &Weights, table: &str) -> Result<usize> {
    Ok(weights.shape(table)?.first().copied().unwrap_or(0))
}

impl Described {
    /// Reads the sizes from the configuration and, where that is silent, from the tensors' shapes.
    ///
    /// # Errors
    /// A family or a value that is not known.
    pub fn read(config: &Value, weights: &Weights) -> Result<Self> {
        match Family::of(config)? {
            Family::DualEncoder => Self::dual_encoder(config, weights),
            Family::Clip => Self::clip(config, weights),
            Family::MultilingualClip => Self::multilingual(config, weights),
            Family::OpenClip => Self::open_clip(config, weights),
            Family::Siglip => Self::siglip(config, weights),
        }
    }

    fn dual_encoder(config: &Value, weights: &Weights) -> Result<Self> {
        let text = part(config, "text_config");
        let name = text.get("model_type").and_then(Value::as_str);
        ensure!(
            name.is_none_or(|name| name == "bert"),
            "config.json: text_config.model_type is {}; known: bert",
            name.unwrap_or_default()
        );
        let tokens = config::text(text, "text_config", Kind::Bert)?;
        let vision = part(config, "vision_config");
        let vision = config::vision(vision, "vision_config", Kind::ClipVision)?;
        Ok(Self {
            family: Family::DualEncoder,
            dim: config::projection(config)?,
            preprocessing: preprocessor::CLIP,
            text: TextRules {
                max_tokens: DUAL_ENCODER_TOKENS.min(tokens.positions),
                padding: Padding::Longest,
                pad_id: tokens.pad_id.unwrap_or(0),
                vocabulary: rows(weights, "text.embeddings.word_embeddings.weight")?,
                positions: tokens.positions,
            },
            vision: Some(vision),
            tokens,
            tower: TextTower::Bert,
        })
    }

    fn clip(config: &Value, weights: &Weights) -> Result<Self> {
        let text = part(config, "text_config");
        let tokens = config::text(text, "text_config", Kind::ClipText)?;
        let vision = part(config, "vision_config");
        let vision = config::vision(vision, "vision_config", Kind::ClipVision)?;
        // Without the text tower, when only the images are asked for, nothing is in the table.
        let table = "text.embeddings.token_embedding.weight";
        let vocabulary = if weights.has(table) {
            rows(weights, table)?
        } else {
            0
        };
        Ok(Self {
            family: Family::Clip,
            dim: config::projection(config)?,
            preprocessing: preprocessor::CLIP,
            text: TextRules {
                max_tokens: tokens.positions,
                padding: Padding::Longest,
                pad_id: tokens.pad_id.unwrap_or(0),
                vocabulary,
                positions: tokens.positions,
            },
            vision: Some(vision),
            tokens,
            tower: TextTower::Clip,
        })
    }

    fn multilingual(config: &Value, weights: &Weights) -> Result<Self> {
        let base = config.get("modelBase").and_then(Value::as_str);
        ensure!(
            base.is_none_or(|base| base.contains("xlm-roberta")),
            "config.json: modelBase is {}; known: xlm-roberta-base, xlm-roberta-large",
            base.unwrap_or_default()
        );
        let tokens = roberta::sizes(weights)?;
        let dim = config::width(
            "LinearTransformation",
            rows(weights, "text_projection.weight")?,
        )?;
        let tower = TextTower::Roberta(bert::Projection::Biased);
        Self::roberta(Family::MultilingualClip, dim, None, tokens, tower, weights)
    }

    fn open_clip(config: &Value, weights: &Weights) -> Result<Self> {
        let (vision, dim) = open_clip::sizes(config)?;
        let tokens = roberta::sizes(weights)?;
        let between = config::width("text.proj.0", rows(weights, "text_projection.0.weight")?)?;
        let tower = TextTower::Roberta(bert::Projection::Mlp(between));
        let mut described =
            Self::roberta(Family::OpenClip, dim, Some(vision), tokens, tower, weights)?;
        described.preprocessing = open_clip::preprocessing(config)?;
        Ok(described)
    }

    fn roberta(
        family: Family,
        dim: usize,
        vision: Option<config::Vision>,
        tokens: config::Text,
        tower: TextTower,
        weights: &Weights,
    ) -> Result<Self> {
        let positions = tokens
            .positions
            .saturating_sub(bert::ROBERTA_FIRST_POSITION);
        Ok(Self {
            family,
            dim,
            preprocessing: preprocessor::CLIP,
            text: TextRules {
                max_tokens: ROBERTA_TOKENS.min(positions),
                padding: Padding::Longest,
                pad_id: tokens.pad_id.unwrap_or(1),
                vocabulary: rows(weights, "text.embeddings.word_embeddings.weight")?,
                positions,
            },
            vision,
            tokens,
            tower,
        })
    }

    fn siglip(config: &Value, weights: &Weights) -> Result<Self> {
        let text = part(config, "text_config");
        let tokens = config::text(text, "text_config", Kind::SiglipText)?;
        let vision = part(config, "vision_config");
        let vision = config::vision(vision, "vision_config", Kind::SiglipVision)?;
        Ok(Self {
            family: Family::Siglip,
            dim: vision.transformer.width,
            preprocessing: SIGLIP,
            text: TextRules {
                max_tokens: tokens.positions,
                padding: Padding::MaxLength,
                pad_id: tokens.pad_id.unwrap_or(1),
                vocabulary: rows(weights, "text.embeddings.token_embedding.weight")?,
                positions: tokens.positions,
            },
            vision: Some(vision),
            tokens,
            tower: TextTower::Siglip,
        })
    }

    /// `image.onnx`.
    ///
    /// # Errors
    /// A tensor that is missing, misshapen or not finite, with its name.
    pub fn image_tower(&self, weights: &mut Weights, store: Store) -> Result<Model> {
        let vision = self.vision.as_ref().context("has no image tower")?;
        match self.family {
            Family::Siglip => siglip::image(weights, vision, store),
            _ => vit::clip(weights, vision, self.dim, store),
        }
    }

    /// `text.onnx`.
    ///
    /// # Errors
    /// As [`Self::image_tower`].
    pub fn text_tower(&self, weights: &mut Weights, store: Store) -> Result<Model> {
        let (sizes, dim) = (&self.tokens, self.dim);
        match self.tower {
            TextTower::Bert => bert::pooled(weights, sizes, dim, store),
            TextTower::Clip => clip_text::clip(weights, sizes, dim, store),
            TextTower::Roberta(projection) => bert::mean(weights, sizes, dim, projection, store),
            TextTower::Siglip => siglip::text(weights, sizes, dim, store),
        }
    }

    /// The linear factor before the softmax, and what the user should know about it.
    ///
    /// # Errors
    /// A scale that is missing where the family has one, or out of range.
    pub fn logit_scale(&self, weights: &mut Weights) -> Result<(f32, Option<String>)> {
        let stored = weights.scalar("logit_scale")?;
        let bias = weights.scalar("logit_bias")?;
        if self.family == Family::DualEncoder {
            let found = stored.map_or("none".to_owned(), |scale| scale.to_string());
            let note = format!(
                "logit scale {DUAL_ENCODER_SCALE}, as CLIP-Italian was trained; the checkpoint's own \
                 ({found}) was never trained. --logit-scale overrides it"
            );
            return Ok((DUAL_ENCODER_SCALE, Some(note)));
        }
        let scale = stored.context("tensor logit_scale is missing")?.exp();
        if !(1.0..=1000.0).contains(&scale) {
            bail!("tensor logit_scale gives a scale of {scale}; legal: 1 to 1000");
        }
        let note = bias.map(|bias| {
            format!(
                "trained with a sigmoid loss (scale {scale}, bias {bias}): the bias cancels in the \
                 softmax over a group and its negatives, so calibrate the thresholds"
            )
        });
        Ok((scale, note))
    }
}
