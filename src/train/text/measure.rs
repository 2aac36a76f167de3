//! What the tower is worth: how near it comes to its targets, on texts it saw and on texts it did not.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::corpus::{Corpus, unit_rows};
use super::tower::{Batch, Tower};
use super::{EMBEDDING_DIM, Work};
use crate::train::texts::Text;

/// Texts embedded at a time.
const BATCH: usize = 128;

/// Unit embeddings `[n, D]` of token sequences, row-major, in the order given.
///
/// # Errors
/// An id outside the tower's vocabulary.
pub fn embed(tower: &Tower, sequences: &[&[u32]]) -> Result<Vec<f32>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|row| sequences[*row].len());
    let parts: Vec<Vec<f32>> = order
        .par_chunks(BATCH)
        .map(|rows| {
            let batch = Batch::new(
                &rows.iter().map(|row| sequences[*row]).collect::<Vec<_>>(),
                0,
            )?;
            Ok(unit_rows(&tower.forward(&batch)?)?
                .flatten_all()?
                .to_vec1::<f32>()?)
        })
        .collect::<Result<_>>()?;
    let mut out = vec![0.0; sequences.len() * EMBEDDING_DIM];
    for (row, values) in order.iter().zip(
        parts
            .iter()
            .flat_map(|part| part.chunks_exact(EMBEDDING_DIM)),
    ) {
        out[row * EMBEDDING_DIM..(row + 1) * EMBEDDING_DIM].copy_from_slice(values);
    }
    Ok(out)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Mean and smallest value.
fn summary(values: &[f32]) -> (f32, f32) {
    #[expect(clippy::cast_precision_loss, reason = "thousands of texts")]
    let mean = values.iter().sum::<f32>() / values.len().max(1) as f32;
    (mean, values.iter().copied().fold(1.0, f32::min))
}

/// Cosines of student and target over the held-out general texts and over each kind of class text.
///
/// # Errors
/// As [`embed`].
pub fn against_targets(corpus: &Corpus, tower: &Tower) -> Result<String> {
    let mut parts = Vec::new();
    for kind in [
        "held-out", "prompt", "name", "caption", "template", "everyday",
    ] {
        let rows: Vec<usize> = (0..corpus.texts.len())
            .filter(|row| {
                if kind == "held-out" {
                    corpus.texts[*row].held_out()
                } else {
                    corpus.texts[*row].kind == kind
                }
            })
            .collect();
        let sequences: Vec<&[u32]> = rows
            .iter()
            .map(|row| corpus.tokens[*row].as_slice())
            .collect();
        let student = embed(tower, &sequences)?;
        let cosines: Vec<f32> = rows
            .iter()
            .zip(student.chunks_exact(EMBEDDING_DIM))
            .map(|(row, s)| dot(s, corpus.target(*row)))
            .collect();
        let (mean, least) = summary(&cosines);
        parts.push(format!(
            "{kind} {mean:.3} (least {least:.2}, {})",
            rows.len()
        ));
    }
    Ok(format!("cosine to target: {}", parts.join(", ")))
}

/// Writes `student_texts.safetensors`: `embedding [N, D]`, unit rows; rows of general texts are zero.
/// `tokens` are those of `texts`.
///
/// # Errors
/// The folder cannot be written.
pub fn write_student_texts(
    work: &Work,
    texts: &[Text],
    tokens: &[Vec<u32>],
    tower: &Tower,
) -> Result<()> {
    let rows: Vec<usize> = (0..texts.len())
        .filter(|row| texts[*row].kind != "corpus")
        .collect();
    let student = embed(
        tower,
        &rows
            .iter()
            .map(|row| tokens[*row].as_slice())
            .collect::<Vec<_>>(),
    )?;
    let mut all = vec![0.0; texts.len() * EMBEDDING_DIM];
    for (row, values) in rows.iter().zip(student.chunks_exact(EMBEDDING_DIM)) {
        all[row * EMBEDDING_DIM..(row + 1) * EMBEDDING_DIM].copy_from_slice(values);
    }
    let table = Tensor::from_vec(all, (texts.len(), EMBEDDING_DIM), &Device::Cpu)?;
    let path = work.student_texts();
    let temporary = path.with_extension("tmp");
    candle_core::safetensors::save(
        &std::collections::HashMap::from([("embedding", table)]),
        &temporary,
    )?;
    std::fs::rename(&temporary, &path).with_context(|| path.display().to_string())
}
