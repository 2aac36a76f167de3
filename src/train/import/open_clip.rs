//! `open_clip_config.json`.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::{self, Kind, Vision};
use super::preprocessor::{CLIP, Defaults};
use crate::bundle::manifest::{Crop, Resize};

#[derive(Deserialize)]
struct Model {
    embed_dim: usize,
    vision_cfg: VisionPart,
    text_cfg: TextPart,
    #[serde(default)]
    quick_gelu: bool,
}

#[derive(Deserialize)]
struct VisionPart {
    image_size: usize,
    layers: usize,
    width: usize,
    patch_size: usize,
    #[serde(default = "head_width")]
    head_width: usize,
    #[serde(default = "mlp_ratio")]
    mlp_ratio: f64,
    timm_model_name: Option<String>,
}

fn head_width() -> usize {
    64
}

fn mlp_ratio() -> f64 {
    4.0
}

#[derive(Deserialize)]
struct TextPart {
    hf_model_name: String,
    #[serde(alias = "hf_proj_type")]
    proj: Option<String>,
    #[serde(alias = "hf_pooler_type")]
    pooler_type: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Preprocessing {
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    interpolation: Option<String>,
    resize_mode: Option<String>,
}

/// Sizes of the image tower, and the width of the shared space.
///
/// # Errors
/// A model of another kind, with the key.
pub fn sizes(config: &Value) -> Result<(Vision, usize)> {
    let model = config.get("model_cfg").unwrap_or(&Value::Null);
    let model = Model::deserialize(model).context("open_clip_config.json: model_cfg")?;
    let text = &model.text_cfg;
    ensure!(
        text.hf_model_name.contains("xlm-roberta"),
        "open_clip_config.json: text_cfg.hf_model_name is {}; known: xlm-roberta-base, xlm-roberta-large",
        text.hf_model_name
    );
    ensure!(
        text.proj.as_deref() == Some("mlp"),
        "open_clip_config.json: text_cfg.hf_proj_type has to be mlp"
    );
    ensure!(
        text.pooler_type.as_deref() == Some("mean_pooler"),
        "open_clip_config.json: text_cfg.hf_pooler_type has to be mean_pooler"
    );
    let vision = model.vision_cfg;
    ensure!(
        vision.timm_model_name.is_none(),
        "open_clip_config.json: image towers of timm are not supported"
    );
    ensure!(
        vision.head_width > 0 && (1.0..=16.0).contains(&vision.mlp_ratio),
        "open_clip_config.json: vision_cfg.head_width or mlp_ratio is out of range"
    );
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "open_clip truncates too; a saturated value is refused below"
    )]
    let hidden = (vision.width as f64 * vision.mlp_ratio) as usize;
    let written = json!({
        "hidden_size": vision.width,
        "intermediate_size": hidden,
        "num_hidden_layers": vision.layers,
        "num_attention_heads": vision.width / vision.head_width,
        "hidden_act": if model.quick_gelu { "quick_gelu" } else { "gelu" },
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
    });
    let vision = config::vision(&written, "vision_cfg", Kind::ClipVision)?;
    Ok((vision, config::width("embed_dim", model.embed_dim)?))
}

/// How pictures are prepared.
///
/// # Errors
/// A preparation that a bundle cannot express.
pub fn preprocessing(config: &Value) -> Result<Defaults> {
    let raw = match config.get("preprocess_cfg") {
        Some(raw) => {
            Preprocessing::deserialize(raw).context("open_clip_config.json: preprocess_cfg")?
        }
        None => Preprocessing::default(),
    };
    Ok(Defaults {
        resize: match raw.interpolation.as_deref() {
            None | Some("bicubic") => Resize::Bicubic,
            Some("bilinear") => Resize::Bilinear,
            Some(other) => {
                bail!("open_clip_config.json: interpolation is {other}; legal: bicubic, bilinear")
            }
        },
        crop: match raw.resize_mode.as_deref() {
            None | Some("shortest") => Crop::Center,
            Some("squash") => Crop::Squash,
            Some(other) => {
                bail!("open_clip_config.json: resize_mode is {other}; legal: shortest, squash")
            }
        },
        mean: raw.mean.unwrap_or(CLIP.mean),
        std: raw.std.unwrap_or(CLIP.std),
    })
}
