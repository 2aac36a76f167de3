//! From the raw file to a [`Calibration`]: every number, text and size is checked.

use super::{MAX_FRAMES, RawCalibration, RawFewShot, RawFrame, RawLabel, SCHEMA};
use crate::calibrate::{Calibration, FewShot, Fit, Measured, Thresholds};
use crate::config::{Id, Probability};
use crate::encoder::Embedding;
use crate::label_set::{Contender, LabelSet};
use crate::prompts;

/// Most labels.
const MAX_LABELS: usize = 256;
/// Most negatives: the built-in ones and what a configuration may add.
pub(super) const MAX_NEGATIVES: usize = 512;
/// Most values of an embedding.
const MAX_DIM: usize = 2048;
/// Largest `α` and `β`.
const MAX_BLEND: f32 = 100.0;

/// Checks everything; the error says what is wrong.
pub(super) fn check(raw: RawCalibration) -> Result<Calibration, String> {
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
