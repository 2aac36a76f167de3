//! `bundle.toml`, as written and as read. Checking it is [`crate::bundle`]'s work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the manifest this crate reads and writes.
pub const SCHEMA: u32 = 1;

/// File names inside a bundle, besides the manifest. Nothing else but [`PACKED`] may be listed in
/// `[files]`.
pub const FILES: [&str; 4] = ["image.onnx", "text.onnx", "tokenizer.json", "LICENSES.md"];

/// Towers packed for the int8 engine (see [`crate::encoder::int8::file`]), each beside or instead of
/// the graph it was made from.
pub const PACKED: [&str; 2] = ["image.int8", "text.int8"];

/// What may be listed instead of `file`.
pub fn instead_of(file: &str) -> Option<&'static str> {
    let tower = file.strip_suffix(".onnx")?;
    PACKED
        .into_iter()
        .find(|packed| packed.strip_suffix(".int8") == Some(tower))
}

/// `bundle.toml`.
///
/// Contract of the graphs: `image.onnx` maps `pixel_values [n, 3, S, S] f32` to `embedding [n, D]
/// f32`; `text.onnx` maps `input_ids [n, T] i64` and `attention_mask [n, T] i64` to `embedding
/// [n, D] f32`. Outputs need not be normalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Short name, `[a-z0-9-]`.
    pub name: String,
    /// Version of the weights, semantic.
    pub version: String,
    /// Oldest vedetta that can serve it.
    pub minimum_vedetta: String,
    /// BCP 47 language of the prompts, `it`.
    pub language: String,
    /// `D`.
    pub embedding_dim: usize,
    /// Preprocessing of the image tower.
    pub image: Image,
    /// Preprocessing of the text tower.
    pub text: Text,
    /// From cosines to probabilities.
    pub scoring: Scoring,
    /// Precision of the towers.
    pub precision: Precision,
    /// Hash and length of every file.
    pub files: BTreeMap<String, File>,
    /// What was measured on exactly these files.
    pub evaluation: BTreeMap<String, f64>,
    /// What it was made from.
    pub provenance: Provenance,
}

/// `[image]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Edge length `S`, 32–1024.
    pub size_px: usize,
    /// Resize filter.
    pub resize: Resize,
    /// How a picture that is not square is fitted.
    pub crop: Crop,
    /// Subtracted after scaling to 0–1, red green blue.
    pub mean: [f32; 3],
    /// Divided by, red green blue.
    pub std: [f32; 3],
    /// Channel order of the input.
    pub channels: Channels,
}

/// Resize filter, antialiased, as Pillow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Catmull-Rom, a = −0.5.
    Bicubic,
    /// Triangle.
    Bilinear,
}

/// How a picture that is not square is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// The short edge becomes `S`, then the centre square is taken (CLIP).
    Center,
    /// Both edges become `S`; proportions change, nothing is lost.
    Squash,
}

/// Channel order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// `[text]`. Lower-casing is the tokenizer's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Most tokens, the special ones included, 4–512.
    pub max_tokens: usize,
    /// Whether a sequence is padded to `max_tokens` or to the longest of its batch.
    pub padding: Padding,
    /// Token id that fills up.
    pub pad_id: u32,
}

/// How token sequences are padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Always to `max_tokens`.
    MaxLength,
    /// To the longest of the batch.
    Longest,
}

/// `[scoring]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scoring {
    /// Linear factor before the softmax, 1–1000 (20 for CLIP-Italian).
    pub logit_scale: f32,
}

/// `[precision]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// Image tower: `f32`, `f16` (stored, computed in f32) or `int8` (packed, see [`PACKED`]).
    pub image: String,
    /// Text tower, likewise.
    pub text: String,
}

/// One entry of `[files]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Lower-case hex SHA-256.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// `[provenance]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The command that made it.
    pub command: String,
    /// Data and weights it was made from, each with its licence.
    pub sources: Vec<String>,
}
