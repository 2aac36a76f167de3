//! Families of checkpoints, and how `config.json` names them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::checkpoint::{Checkpoint, MAX_JSON_BYTES, read_text};
use super::names;
use super::weights::Weights;

/// A known family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `VisionTextDualEncoder` or Flax' `HybridCLIP`: CLIP's vision transformer beside BERT.
    DualEncoder,
    /// `CLIPModel`.
    Clip,
    /// M-CLIP: an XLM-RoBERTa distilled into the space of a CLIP, which it needs for the images.
    MultilingualClip,
    /// open_clip's vision transformer beside an XLM-RoBERTa.
    OpenClip,
    /// `SiglipModel`, SigLIP 2's fixed resolutions among them.
    Siglip,
}

impl Family {
    /// What a configuration, [read](read_config), describes.
    ///
    /// # Errors
    /// A model that is not known.
    pub fn of(config: &Value) -> Result<Self> {
        if config.get("model_cfg").is_some() {
            return Ok(Self::OpenClip);
        }
        let name = config.get("model_type").and_then(Value::as_str);
        Ok(match name {
            Some("vision-text-dual-encoder" | "hybrid-clip") => Self::DualEncoder,
            Some("clip") => Self::Clip,
            Some("M-CLIP") => Self::MultilingualClip,
            Some("siglip") => Self::Siglip,
            Some("siglip2") => bail!(
                "config.json: siglip2 with pictures of any size (NaFlex) is not supported; take a \
                 checkpoint with a fixed size, as siglip2-base-patch16-224"
            ),
            other => bail!(
                "config.json: model_type is {}; known: vision-text-dual-encoder, hybrid-clip, clip, \
                 M-CLIP, siglip, and open_clip_config.json",
                other.unwrap_or("missing")
            ),
        })
    }

    /// As `models/catalog.toml` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DualEncoder => "vision-text-dual-encoder",
            Self::Clip => "clip",
            Self::MultilingualClip => "multilingual-clip",
            Self::OpenClip => "open-clip",
            Self::Siglip => "siglip2",
        }
    }

    /// All tensors of `checkpoint` by the names the towers ask for.
    ///
    /// # Errors
    /// Two tensors for one name.
    pub fn weights(self, checkpoint: &Checkpoint) -> Result<Weights<'_>> {
        match self {
            Self::DualEncoder | Self::Clip | Self::Siglip => {
                Weights::new(checkpoint, names::transformers)
            }
            Self::MultilingualClip => Weights::new(checkpoint, names::multilingual_clip),
            Self::OpenClip => Weights::new(checkpoint, names::open_clip),
        }
    }
}

/// Reads `folder/config.json`, or `folder/open_clip_config.json` where the text tower named there is
/// one of `transformers`'.
///
/// # Errors
/// A file that is missing or not JSON.
pub fn read_config(folder: &Path) -> Result<Value> {
    let read = |name: &str| -> Result<Value> {
        let text = read_text(&folder.join(name), MAX_JSON_BYTES)?;
        serde_json::from_str(&text).with_context(|| name.to_owned())
    };
    let name = "open_clip_config.json";
    if folder.join(name).exists() {
        let config = read(name)?;
        if config
            .pointer("/model_cfg/text_cfg/hf_model_name")
            .is_some()
        {
            return Ok(config);
        }
    }
    read("config.json")
}
