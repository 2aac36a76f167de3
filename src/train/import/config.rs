//! `config.json` beside a checkpoint: as written, then checked. What is left out has the value it
//! has in `transformers`.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::train::onnx::layers::{Activation, Heads};

/// Most layers of a tower.
const MAX_LAYERS: usize = 96;
/// Widest residual stream or shared space.
const MAX_WIDTH: usize = 8192;
/// Widest hidden layer.
const MAX_HIDDEN: usize = 65_536;

/// Sizes of a transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transformer {
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the hidden layer of each feed-forward part.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: Heads,
    /// Of the feed-forward parts.
    pub activation: Activation,
    /// ε of the layer normalisations.
    pub epsilon: f32,
}

/// Sizes of a vision transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vision {
    /// The layers.
    pub transformer: Transformer,
    /// Edge of the picture.
    pub size_px: usize,
    /// Edge of a patch.
    pub patch_px: usize,
}

impl Vision {
    /// Patches along an edge.
    pub fn grid(self) -> usize {
        self.size_px / self.patch_px
    }
}

/// Sizes of a text transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Text {
    /// The layers.
    pub transformer: Transformer,
    /// Most tokens.
    pub positions: usize,
    /// The token that ends a text.
    pub eos_id: Option<u32>,
    /// The token that fills up.
    pub pad_id: Option<u32>,
}

/// What the parts of `config.json` have in common, as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    num_channels: Option<usize>,
    max_position_embeddings: Option<usize>,
    eos_token_id: Option<Value>,
    pad_token_id: Option<Value>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
}

/// Most positions of a text tower; a causal mask has their square.
const MAX_POSITIONS: usize = 4096;

/// What `transformers` takes for a value that is not written.
struct Defaults {
    width: usize,
    hidden: usize,
    heads: usize,
    activation: &'static str,
    epsilon: f32,
    positions: usize,
    eos_id: Option<u32>,
    pad_id: Option<u32>,
}

/// A kind of tower, for its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `CLIPVisionConfig`.
    ClipVision,
    /// `CLIPTextConfig`.
    ClipText,
    /// `BertConfig`.
    Bert,
    /// `SiglipVisionConfig`.
    SiglipVision,
    /// `SiglipTextConfig`.
    SiglipText,
}

impl Kind {
    fn defaults(self) -> Defaults {
        let bert = Defaults {
            width: 768,
            hidden: 3072,
            heads: 12,
            activation: "gelu",
            epsilon: 1e-12,
            positions: 512,
            eos_id: None,
            pad_id: Some(0),
        };
        match self {
            Self::Bert => bert,
            Self::ClipVision => Defaults {
                activation: "quick_gelu",
                epsilon: 1e-5,
                pad_id: None,
                ..bert
            },
            Self::SiglipVision | Self::SiglipText => Defaults {
                activation: "gelu_pytorch_tanh",
                epsilon: 1e-6,
                positions: 64,
                pad_id: Some(1),
                ..bert
            },
            Self::ClipText => Defaults {
                width: 512,
                hidden: 2048,
                heads: 8,
                activation: "quick_gelu",
                epsilon: 1e-5,
                positions: 77,
                eos_id: Some(49_407),
                pad_id: Some(1),
            },
        }
    }
}

fn raw(value: &Value, part: &str) -> Result<Raw> {
    Raw::deserialize(value).with_context(|| format!("config.json: {part}"))
}

fn transformer(raw: &Raw, part: &str, defaults: &Defaults) -> Result<Transformer> {
    let within = |name: &str, found: usize, most: usize| {
        ensure!(
            (1..=most).contains(&found),
            "config.json: {part}.{name} is {found}; legal: 1 to {most}"
        );
        Ok(found)
    };
    let width = within(
        "hidden_size",
        raw.hidden_size.unwrap_or(defaults.width),
        MAX_WIDTH,
    )?;
    let hidden = raw.intermediate_size.unwrap_or(defaults.hidden);
    let heads = raw.num_attention_heads.unwrap_or(defaults.heads);
    let heads = within("num_attention_heads", heads, width)?;
    ensure!(
        width.is_multiple_of(heads),
        "config.json: {part}.num_attention_heads is {heads}, which does not divide {width}"
    );
    let epsilon = raw.layer_norm_eps.unwrap_or(defaults.epsilon);
    ensure!(
        (0.0..=0.1).contains(&epsilon),
        "config.json: {part}.layer_norm_eps is {epsilon}; legal: 0 to 0.1"
    );
    if let Some(kind) = &raw.position_embedding_type {
        ensure!(
            kind == "absolute",
            "config.json: {part}.position_embedding_type is {kind:?}; only absolute positions are supported"
        );
    }
    ensure!(
        raw.is_decoder != Some(true),
        "config.json: {part} is a decoder; only encoders are supported"
    );
    let name = raw.hidden_act.as_deref().unwrap_or(defaults.activation);
    Ok(Transformer {
        width,
        hidden: within("intermediate_size", hidden, MAX_HIDDEN)?,
        layers: within(
            "num_hidden_layers",
            raw.num_hidden_layers.unwrap_or(12),
            MAX_LAYERS,
        )?,
        heads: Heads {
            count: heads,
            width: width / heads,
        },
        activation: activation(name).with_context(|| format!("config.json: {part}.hidden_act"))?,
        epsilon,
    })
}

/// An activation by its name in `transformers`.
fn activation(name: &str) -> Result<Activation> {
    Ok(match name {
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        _ => bail!("is {name:?}; legal: gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu"),
    })
}

/// Reads the sizes of a vision tower.
///
/// # Errors
/// A value that is not legal, with its name.
pub fn vision(value: &Value, part: &str, kind: Kind) -> Result<Vision> {
    let raw = raw(value, part)?;
    let size_px = raw.image_size.unwrap_or(224);
    let usual = if kind == Kind::SiglipVision { 16 } else { 32 };
    let patch_px = raw.patch_size.unwrap_or(usual);
    ensure!(
        (32..=1024).contains(&size_px),
        "config.json: {part}.image_size is {size_px}; legal: 32 to 1024"
    );
    ensure!(
        (1..=size_px).contains(&patch_px),
        "config.json: {part}.patch_size is {patch_px}; legal: 1 to {size_px}"
    );
    ensure!(
        raw.num_channels.is_none_or(|n| n == 3),
        "config.json: {part}.num_channels has to be 3"
    );
    Ok(Vision {
        transformer: transformer(&raw, part, &kind.defaults())?,
        size_px,
        patch_px,
    })
}

/// Reads the sizes of a text tower.
///
/// # Errors
/// A value that is not legal, with its name.
pub fn text(value: &Value, part: &str, kind: Kind) -> Result<Text> {
    let raw = raw(value, part)?;
    let defaults = kind.defaults();
    let positions = raw.max_position_embeddings.unwrap_or(defaults.positions);
    ensure!(
        (4..=MAX_POSITIONS).contains(&positions),
        "config.json: {part}.max_position_embeddings is {positions}; legal: 4 to {MAX_POSITIONS}"
    );
    let id = |value: &Option<Value>, otherwise: Option<u32>| match value {
        None => otherwise,
        Some(value) => value.as_u64().and_then(|id| u32::try_from(id).ok()),
    };
    Ok(Text {
        transformer: transformer(&raw, part, &defaults)?,
        positions,
        eos_id: id(&raw.eos_token_id, defaults.eos_id),
        pad_id: id(&raw.pad_token_id, defaults.pad_id),
    })
}

/// Width of the shared space.
///
/// # Errors
/// A width that is not legal.
pub fn projection(config: &Value) -> Result<usize> {
    let dim = match config.get("projection_dim") {
        None => 512,
        Some(value) => value.as_u64().unwrap_or(0),
    };
    width("projection_dim", usize::try_from(dim)?)
}

/// `found`, when it can be a width.
///
/// # Errors
/// It cannot.
pub fn width(name: &str, found: usize) -> Result<usize> {
    ensure!(
        (2..=MAX_WIDTH).contains(&found),
        "{name} is {found}; legal: 2 to {MAX_WIDTH}"
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_written_is_what_transformers_takes() {
        let vision = vision(&json!({}), "vision_config", Kind::ClipVision).unwrap();
        assert_eq!(vision.grid(), 7);
        assert_eq!(vision.transformer.activation, Activation::QuickGelu);
        assert_eq!(vision.transformer.epsilon, 1e-5);
        let text = text(&json!({}), "text_config", Kind::Bert).unwrap();
        assert_eq!(text.transformer.heads.width, 64);
        assert_eq!(text.transformer.activation, Activation::Gelu);
        assert_eq!(text.transformer.epsilon, 1e-12);
    }

    #[test]
    fn an_illegal_value_is_refused_with_its_name() {
        for (written, named) in [
            (json!({"hidden_size": 0}), "hidden_size"),
            (json!({"num_attention_heads": 7}), "num_attention_heads"),
            (json!({"num_hidden_layers": 1_000_000}), "num_hidden_layers"),
            (json!({"hidden_act": "swish"}), "hidden_act"),
            (json!({"layer_norm_eps": -1.0}), "layer_norm_eps"),
            (json!({"image_size": 1_u64 << 40}), "image_size"),
            (json!({"patch_size": 0}), "patch_size"),
            (json!({"hidden_size": "wide"}), "vision_config"),
        ] {
            let error = vision(&written, "vision_config", Kind::ClipVision).unwrap_err();
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }
}
