//! A calibration as a file: TOML, versioned, hostile until it was checked.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Calibration, Fit, Platt};
use crate::bundle::hex;
use crate::config::Id;
use crate::encoder::Embedding;
use crate::label_set::Contender;

mod check;
#[cfg(test)]
mod tests;

use check::check;

/// Version of the file.
pub const SCHEMA: u32 = 1;
/// Longest file, bytes: 256 frames of 2048 values, twice over.
const MAX_BYTES: u64 = 8 << 20;
/// Most frames that are kept,
pub const MAX_FRAMES: usize = 256;
/// and most of one label.
pub const MAX_FRAMES_PER_LABEL: usize = 32;

/// Why a calibration cannot be used at all.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// Nothing can be read there.
    #[error("calibration {path}: {source}; make one with `vedetta-train calibrate`")]
    Read {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what this version reads.
    #[error("calibration {path}: {problem}; make it again with `vedetta-train calibrate`")]
    Content {
        /// Where.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCalibration {
    schema: u32,
    bundle: String,
    model_sha256: String,
    precision: f32,
    negatives: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    few_shot: Option<RawFewShot>,
    label: Vec<RawLabel>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    frame: Vec<RawFrame>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFewShot {
    alpha: f32,
    beta: f32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLabel {
    id: String,
    prompts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platt: Option<Platt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enter: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leave: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    measured: Option<RawMeasured>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMeasured {
    frames: u32,
    shown: u32,
    found: u32,
    mistaken: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFrame {
    /// Nothing where the frame shows none of the labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// Hex of the values, f32, little endian.
    embedding: String,
}

impl Calibration {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// See [`CalibrationError`].
    pub fn load(path: &Path) -> Result<Self, CalibrationError> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|source| CalibrationError::Read {
                path: name.clone(),
                source,
            })?;
        let parsed = match std::str::from_utf8(&bytes) {
            _ if bytes.len() as u64 > MAX_BYTES => Err(format!("is longer than {MAX_BYTES} bytes")),
            Ok(text) => Self::from_toml(text),
            Err(_) => Err("is not UTF-8 text".to_owned()),
        };
        parsed.map_err(|problem| CalibrationError::Content {
            path: name,
            problem,
        })
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let raw: RawCalibration =
            toml::from_str(text).map_err(|error| error.to_string().trim().to_owned())?;
        check(raw)
    }

    /// The text of its file.
    pub fn to_toml(&self) -> String {
        let label = |(label, fit): (&Contender, &Fit)| RawLabel {
            id: label.id.to_string(),
            prompts: label.prompts.clone(),
            group: label.group.as_ref().map(Id::to_string),
            platt: fit.platt,
            enter: fit.thresholds.map(|t| t.enter.get()),
            leave: fit.thresholds.map(|t| t.leave.get()),
            measured: fit.measured.map(|m| RawMeasured {
                frames: m.frames,
                shown: m.shown,
                found: m.found,
                mistaken: m.mistaken,
            }),
        };
        let frame = |(shows, key): (&Option<usize>, &Embedding)| RawFrame {
            label: shows.and_then(|n| Some(self.set.labels.get(n)?.id.to_string())),
            embedding: to_hex(key),
        };
        let raw = RawCalibration {
            schema: SCHEMA,
            bundle: self.bundle.clone(),
            model_sha256: self.model_sha256.clone(),
            precision: self.precision.get(),
            negatives: self.set.negatives.clone(),
            few_shot: self.few_shot.as_ref().map(|shots| RawFewShot {
                alpha: shots.alpha,
                beta: shots.beta,
            }),
            label: self.set.labels.iter().zip(&self.fits).map(label).collect(),
            frame: self
                .few_shot
                .iter()
                .flat_map(|shots| shots.shows.iter().zip(shots.keys.iter()).map(frame))
                .collect(),
        };
        // The mirror holds text, numbers and tables only: TOML can say all of it.
        toml::to_string(&raw).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

fn to_hex(key: &Embedding) -> String {
    let bytes = key.as_slice().iter().flat_map(|value| value.to_le_bytes());
    hex(&bytes.collect::<Vec<u8>>())
}
