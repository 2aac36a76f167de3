//! A calibration as a file: TOML, versioned, hostile until it was checked.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Calibration, FewShot, Fit, Measured, Platt, Thresholds};
use crate::config::{Id, Probability};
use crate::encoder::Embedding;
use crate::label_set::{Contender, LabelSet};
use crate::prompts;

/// Version of the file.
pub const SCHEMA: u32 = 1;
/// Longest file, bytes: 256 frames of 2048 values, twice over.
const MAX_BYTES: u64 = 8 << 20;
/// Most labels.
const MAX_LABELS: usize = 256;
/// Most negatives: the built-in ones and what a configuration may add.
const MAX_NEGATIVES: usize = 512;
/// Most frames that are kept,
pub const MAX_FRAMES: usize = 256;
/// and most of one label.
pub const MAX_FRAMES_PER_LABEL: usize = 32;
/// Most values of an embedding.
const MAX_DIM: usize = 2048;
/// Largest `α` and `β`.
const MAX_BLEND: f32 = 100.0;

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

fn check(raw: RawCalibration) -> Result<Calibration, String> {
    if raw.schema != SCHEMA {
        return Err(format!("has schema {}, not {SCHEMA}", raw.schema));
    }
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if raw.model_sha256.len() != 64 || !raw.model_sha256.chars().all(is_hex) {
        return Err("model_sha256 is no lower-case SHA-256".to_owned());
    }
    within(raw.label.len(), 1, MAX_LABELS, "labels")?;
    within(raw.negatives.len(), 0, MAX_NEGATIVES, "negatives")?;
    let negatives: Result<_, String> = raw.negatives.into_iter().map(prompt).collect();
    let mut set = LabelSet {
        labels: Vec::new(),
        negatives: negatives?,
    };
    let mut fits = Vec::new();
    for raw in raw.label {
        let (label, fit) = check_label(raw)?;
        if set.position(&label.id).is_some() {
            return Err(format!("there are two labels {}", label.id));
        }
        set.labels.push(label);
        fits.push(fit);
    }
    let bundle: String = raw
        .bundle
        .chars()
        .filter(|c| !c.is_control())
        .take(256)
        .collect();
    Ok(Calibration {
        bundle,
        model_sha256: raw.model_sha256,
        precision: probability(raw.precision, "precision")?,
        few_shot: check_frames(raw.few_shot, raw.frame, &set)?,
        set,
        fits,
    })
}

fn check_label(raw: RawLabel) -> Result<(Contender, Fit), String> {
    let id = |text: &str| Id::new(text).ok_or_else(|| format!("an id must be {}", Id::LEGAL));
    let label = id(&raw.id)?;
    let about = |problem: String| format!("label {label}: {problem}");
    within(raw.prompts.len(), 1, prompts::MAX_PROMPTS, "prompts").map_err(about)?;
    let prompts: Result<_, String> = raw.prompts.into_iter().map(prompt).collect();
    let thresholds = match (raw.enter, raw.leave) {
        (None, None) => None,
        (Some(enter), Some(leave)) if leave <= enter => Some(Thresholds {
            enter: probability(enter, "enter").map_err(about)?,
            leave: probability(leave, "leave").map_err(about)?,
        }),
        _ => {
            return Err(about(
                "enter and leave go together, leave at most enter".to_owned(),
            ));
        }
    };
    if thresholds.is_some() && raw.platt.is_none() {
        return Err(about("has thresholds without platt".to_owned()));
    }
    let fit = Fit {
        platt: raw.platt,
        thresholds,
        measured: raw.measured.map(|m| Measured {
            frames: m.frames,
            shown: m.shown,
            found: m.found,
            mistaken: m.mistaken,
        }),
    };
    let contender = Contender {
        prompts: prompts.map_err(about)?,
        group: raw.group.as_deref().map(id).transpose().map_err(about)?,
        id: label.clone(),
    };
    Ok((contender, fit))
}

fn check_frames(
    raw: Option<RawFewShot>,
    frames: Vec<RawFrame>,
    set: &LabelSet,
) -> Result<Option<FewShot>, String> {
    let Some(raw) = raw else {
        within(frames.len(), 0, 0, "frames without [few_shot]")?;
        return Ok(None);
    };
    let blend = |value: f32, name: &str| {
        let fits = (0.0..=MAX_BLEND).contains(&value);
        fits.then_some(value)
            .ok_or_else(|| format!("few_shot.{name} must be 0 to {MAX_BLEND}"))
    };
    within(frames.len(), 1, MAX_FRAMES, "frames")?;
    let (mut keys, mut shows): (Vec<Embedding>, Vec<_>) = Default::default();
    for frame in frames {
        let position = |id: String| {
            let known = Id::new(&id).and_then(|id| set.position(&id));
            known.ok_or_else(|| format!("a frame shows {:?}, which is no label here", shown(&id)))
        };
        let key = from_hex(&frame.embedding)
            .ok_or("the embedding of a frame is not the hex of a unit vector")?;
        let of_another = |first: &Embedding| first.as_slice().len() != key.as_slice().len();
        if keys.first().is_some_and(of_another) {
            return Err("embeddings of different lengths".to_owned());
        }
        keys.push(key);
        shows.push(frame.label.map(position).transpose()?);
    }
    Ok(Some(FewShot {
        alpha: blend(raw.alpha, "alpha")?,
        beta: blend(raw.beta, "beta")?,
        keys: keys.into(),
        shows,
    }))
}

fn within(count: usize, least: usize, most: usize, what: &str) -> Result<(), String> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(format!("has {count} {what}; legal: {least} to {most}"))
}

/// A prompt has to be what cleaning leaves of it: it is compared with prompts that were cleaned.
fn prompt(text: String) -> Result<String, String> {
    match prompts::clean(&text) {
        Ok(clean) if clean == text => Ok(text),
        Ok(_) => Err(format!("the prompt {:?} has needless space", shown(&text))),
        Err(error) => Err(format!("the prompt {:?}: {error}", shown(&text))),
    }
}

fn probability(value: f32, name: &str) -> Result<Probability, String> {
    Probability::new(value).ok_or_else(|| format!("{name} must be 0 to 1"))
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn to_hex(key: &Embedding) -> String {
    let bytes = key.as_slice().iter().flat_map(|value| value.to_le_bytes());
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Embedding> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(8) || digits.len() / 8 > MAX_DIM {
        return None;
    }
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let bytes: Option<Vec<u8>> = digits
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect();
    let values = bytes?;
    let values = values.as_chunks::<4>().0.iter();
    Embedding::from_unit(values.map(|value| f32::from_le_bytes(*value)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Calibration {
        let label = |id: &str, prompt: &str, group: Option<&str>| Contender {
            id: Id::new(id).unwrap(),
            prompts: vec![prompt.to_owned(), format!("una foto di {prompt}")],
            group: group.map(|g| Id::new(g).unwrap()),
        };
        let unit = |values: &[f32]| Embedding::normalized(values.to_vec()).unwrap();
        let p = |value| Probability::new(value).unwrap();
        Calibration {
            bundle: "tiny@sha256:0123456789ab".to_owned(),
            model_sha256: "ab".repeat(32),
            precision: p(0.95),
            set: LabelSet {
                labels: vec![
                    label("mela", "una mela", Some("frutta")),
                    label("pera", "una pera", None),
                ],
                negatives: vec!["una foto".to_owned()],
            },
            fits: vec![
                Fit {
                    platt: Platt::new(1.5, -0.25),
                    thresholds: Some(Thresholds {
                        enter: p(0.6),
                        leave: p(0.4),
                    }),
                    measured: Some(Measured {
                        frames: 20,
                        shown: 5,
                        found: 4,
                        mistaken: 0,
                    }),
                },
                Fit::default(),
            ],
            few_shot: Some(FewShot {
                alpha: 2.0,
                beta: 5.5,
                keys: [unit(&[1.0, 0.5]), unit(&[0.3, -1.0])].into(),
                shows: vec![Some(0), None],
            }),
        }
    }

    #[test]
    fn what_is_written_is_read_again_bit_by_bit() {
        let calibration = example();
        let text = calibration.to_toml();
        assert_eq!(
            Calibration::from_toml(&text).unwrap(),
            calibration,
            "{text}"
        );
        let plain = Calibration {
            few_shot: None,
            ..calibration
        };
        assert_eq!(Calibration::from_toml(&plain.to_toml()).unwrap(), plain);
    }

    #[test]
    fn nonsense_is_refused_with_what_is_wrong() {
        let good = example().to_toml();
        let changes = [
            ("schema = 1", "schema = 2", "schema 2"),
            ("precision = 0.95", "precision = nan", "precision must be"),
            ("a = 1.5", "a = -1.5", "a has to be over 0"),
            ("a = 1.5", "a = nan", "a has to be over 0"),
            ("leave = 0.4", "leave = 0.7", "at most enter"),
            ("enter = 0.6", "enter = 1.6", "enter must be"),
            ("alpha = 2.0", "alpha = inf", "alpha must be"),
            ("beta = 5.5", "beta = -1.0", "beta must be"),
            ("label = \"mela\"", "label = \"kiwi\"", "no label here"),
            ("id = \"pera\"", "id = \"mela\"", "two labels mela"),
            ("id = \"pera\"", "id = \"Pera!\"", "an id must be"),
            ("\"una foto\"", "\"una  foto\"", "needless space"),
            ("\"una foto\"", "\"\"", "no text"),
            ("model_sha256 = \"ab", "model_sha256 = \"AB", "SHA-256"),
            ("schema = 1", "schema = 1\nowner = 3", "unknown field"),
        ];
        for (from, to, expected) in changes {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            let error = Calibration::from_toml(&text).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
        let nan: String = [f32::NAN, 1.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .map(|b| format!("{b:02x}"))
            .collect();
        let key = to_hex(&example().few_shot.unwrap().keys[0]);
        for embedding in [nan.as_str(), "", "00", "zz00000000000000", "0000803f"] {
            let text = good.replacen(&key, embedding, 1);
            assert!(Calibration::from_toml(&text).is_err(), "{embedding}");
        }
    }

    #[test]
    fn sizes_are_capped() {
        let mut many = example();
        many.set.negatives = vec!["una foto".to_owned(); MAX_NEGATIVES + 1];
        assert!(
            Calibration::from_toml(&many.to_toml())
                .unwrap_err()
                .contains("negatives")
        );
        let mut many = example();
        let shots = many.few_shot.as_mut().unwrap();
        shots.keys = vec![shots.keys[0].clone(); MAX_FRAMES + 1].into();
        shots.shows = vec![None; MAX_FRAMES + 1];
        assert!(
            Calibration::from_toml(&many.to_toml())
                .unwrap_err()
                .contains("frames")
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.toml");
        let longest = usize::try_from(MAX_BYTES).unwrap() + 1;
        std::fs::write(&path, " ".repeat(longest)).unwrap();
        let error = Calibration::load(&path).unwrap_err().to_string();
        assert!(error.contains("longer than"), "{error}");
        let error = Calibration::load(&folder.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("vedetta-train calibrate"), "{error}");
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
            let mut bytes = example().to_toml().into_bytes();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let _ = Calibration::from_toml(text);
            }
        }
    }
}
