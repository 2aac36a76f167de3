//! How right a pair of maps is on photos it never saw.

use anyhow::Result;
use candle_core::{D, Tensor};
use candle_nn::ops::{log_softmax, softmax};

use super::examples::{Photos, Said, Texts};
use super::maps::Maps;
use crate::train::targets::{select, unit_rows};

/// Photos whose captions compete with each other at most.
const MAX_RETRIEVAL: usize = 2000;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Share of photos for which the right answer comes first, 0–1: of the class names, or of all
    /// captions and photos where there are no classes.
    pub accuracy: f64,
    /// Mean of −log p of the right answer among the class names and the daemon's negatives.
    pub loss: f64,
}

impl Score {
    /// More right answers; as many, and surer ones.
    pub fn beats(&self, other: &Self) -> bool {
        self.accuracy > other.accuracy || self.accuracy == other.accuracy && self.loss < other.loss
    }
}

/// The daemon's label embeddings: the mean of a class's unit prompts, unit again, `[K, D]`.
///
/// # Errors
/// candle's.
pub fn labels(texts: &Texts, maps: &Maps) -> Result<Tensor> {
    let mean = |rows: &Vec<u32>| maps.texts(&select(&texts.rows, rows)?)?.mean(0);
    let labels: Vec<Tensor> = texts
        .classes
        .iter()
        .map(mean)
        .collect::<candle_core::Result<_>>()?;
    Ok(unit_rows(&Tensor::stack(&labels, 0)?)?)
}

/// Measures `maps` on `photos`.
///
/// # Errors
/// candle's.
pub fn score(photos: &Photos, texts: &Texts, maps: &Maps, scale: f64) -> Result<Score> {
    let images = maps.images(&photos.themselves()?)?;
    if texts.classes.is_empty() {
        return retrieval(photos, texts, maps, &images, scale);
    }
    let classes: Vec<Option<usize>> = photos.said.iter().map(|said| said.class).collect();
    let rows: Vec<u32> = (0u32..)
        .zip(&classes)
        .filter_map(|(row, class)| class.map(|_| row))
        .collect();
    let wanted: Vec<usize> = classes.into_iter().flatten().collect();
    let mut candidates = labels(texts, maps)?;
    let count = candidates.dim(0)?;
    if !texts.negatives.is_empty() {
        let negatives = maps.texts(&select(&texts.rows, &texts.negatives)?)?;
        candidates = Tensor::cat(&[candidates, negatives], 0)?;
    }
    let logits = (select(&images, &rows)?.matmul(&candidates.t()?)? * scale)?;
    let answers = logits
        .narrow(1, 0, count)?
        .argmax(D::Minus1)?
        .to_vec1::<u32>()?;
    let right = answers
        .iter()
        .zip(&wanted)
        .filter(|(a, w)| usize::try_from(**a) == Ok(**w));
    let right = right.count();
    Ok(Score {
        accuracy: share(right, wanted.len()),
        loss: surprise(&logits, &wanted)?,
    })
}

/// What a photo is taken for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The class that comes first.
    pub class: usize,
    /// Its probability among the class names, 0–1.
    pub probability: f32,
    /// The probability of the right class; 0 where nobody said which that is.
    pub of_right: f32,
}

/// What each photo is taken for, in the order of `photos`.
///
/// # Errors
/// candle's.
pub fn answers(photos: &Photos, texts: &Texts, maps: &Maps, scale: f64) -> Result<Vec<Answer>> {
    let images = maps.images(&photos.themselves()?)?;
    let logits = (images.matmul(&labels(texts, maps)?.t()?)? * scale)?;
    let rows = softmax(&logits, D::Minus1)?.to_vec2::<f32>()?;
    let answer = |(row, said): (Vec<f32>, &Said)| {
        let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        let class = best.unwrap_or(0);
        Answer {
            class,
            probability: row[class],
            of_right: said.class.map_or(0.0, |class| row[class]),
        }
    };
    Ok(rows.into_iter().zip(&photos.said).map(answer).collect())
}

/// Mean of photo → caption and caption → photo, the first caption of each photo.
fn retrieval(
    photos: &Photos,
    texts: &Texts,
    maps: &Maps,
    images: &Tensor,
    scale: f64,
) -> Result<Score> {
    let with = photos.said.iter().zip(0u32..);
    let pairs: Vec<(u32, u32)> = with
        .filter_map(|(said, row)| said.captions.first().map(|caption| (row, *caption)))
        .take(MAX_RETRIEVAL)
        .collect();
    let (rows, captions): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
    let wanted: Vec<usize> = (0..rows.len()).collect();
    let texts = maps.texts(&select(&texts.rows, &captions)?)?;
    let logits = (select(images, &rows)?.matmul(&texts.t()?)? * scale)?;
    let (mut right, mut loss) = (0, 0.0);
    // Two photos may have the same caption.
    let same = |(row, answer): &(usize, u32)| {
        usize::try_from(*answer).is_ok_and(|answer| captions[answer] == captions[*row])
    };
    for logits in [logits.clone(), logits.t()?.contiguous()?] {
        let answers = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        right += answers.into_iter().enumerate().filter(same).count();
        loss += surprise(&logits, &wanted)? / 2.0;
    }
    Ok(Score {
        accuracy: share(right, 2 * rows.len()),
        loss,
    })
}

/// Mean −log p of the wanted column of each row.
fn surprise(logits: &Tensor, wanted: &[usize]) -> Result<f64> {
    let wanted: Vec<u32> = wanted
        .iter()
        .map(|w| u32::try_from(*w))
        .collect::<Result<_, _>>()?;
    let index = Tensor::new(&wanted[..], logits.device())?.unsqueeze(1)?;
    let log = log_softmax(logits, D::Minus1)?.gather(&index, 1)?;
    Ok(-f64::from(log.mean_all()?.to_scalar::<f32>()?))
}

#[expect(clippy::cast_precision_loss, reason = "a few million")]
fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}
