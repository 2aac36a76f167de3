//! What the tower is worth: how near its targets, and whether unseen paraphrases find their class.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::corpus::{Corpus, load_tokenizer, targets, tokenize, unit_rows};
use super::tower::{Batch, Tower};
use super::{EMBEDDING_DIM, Work};

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

/// Mean cosine of student and target over texts of another file (`text` column) and its teacher
/// embeddings, such as captions that no training saw.
///
/// # Errors
/// A file is missing or they do not fit together.
pub fn unseen(work: &Work, tower: &Tower, texts: &Path, teacher: &Path) -> Result<f32> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .quoting(false)
        .from_path(texts)?;
    let lines: Vec<String> = reader
        .records()
        .map(|line| Ok(line?.get(0).unwrap_or_default().to_owned()))
        .collect::<Result<_>>()?;
    let goal = targets(teacher, &work.space())?;
    ensure!(
        goal.len() == lines.len() * EMBEDDING_DIM,
        "{} does not fit {}",
        teacher.display(),
        texts.display()
    );
    let tokens = tokenize(
        &load_tokenizer(work)?,
        &lines.iter().map(String::as_str).collect::<Vec<_>>(),
    )?;
    let student = embed(tower, &tokens.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    let cosines: Vec<f32> = student
        .chunks_exact(EMBEDDING_DIM)
        .zip(goal.chunks_exact(EMBEDDING_DIM))
        .map(|(a, b)| dot(a, b))
        .collect();
    Ok(summary(&cosines).0)
}

/// A paraphrase and the classes it may mean.
#[derive(Debug, serde::Deserialize)]
struct Paraphrase {
    level: String,
    targets: String,
    text: String,
}

/// Answers of the tower to the held-out paraphrases.
pub struct Paraphrases {
    /// Those whose nearest prompt is of a right class.
    pub right: usize,
    /// All.
    pub total: usize,
    /// `text → nearest prompt`, for each that missed.
    pub missed: Vec<String>,
}

/// For each line of `models/data/paraphrases_heldout.tsv`: is the nearest `una foto di …` prompt,
/// by the tower's own embeddings, one of a right class? Coarse prompts answer coarse lines, fine
/// prompts fine ones.
///
/// # Errors
/// The file cannot be read.
pub fn paraphrases(
    work: &Work,
    corpus: &Corpus,
    tower: &Tower,
    file: &Path,
    coarse_names: &[String],
) -> Result<Paraphrases> {
    let lines: Vec<Paraphrase> = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .quoting(false)
        .from_path(file)
        .with_context(|| file.display().to_string())?
        .deserialize()
        .collect::<Result<_, _>>()?;
    let tokenizer = load_tokenizer(work)?;
    let tokens = tokenize(
        &tokenizer,
        &lines
            .iter()
            .map(|line| line.text.as_str())
            .collect::<Vec<_>>(),
    )?;
    let asked = embed(tower, &tokens.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    let prompts: Vec<usize> = (0..corpus.texts.len())
        .filter(|row| corpus.texts[*row].kind == "prompt")
        .collect();
    let known = embed(
        tower,
        &prompts
            .iter()
            .map(|row| corpus.tokens[*row].as_slice())
            .collect::<Vec<_>>(),
    )?;
    let mut answer = Paraphrases {
        right: 0,
        total: lines.len(),
        missed: Vec::new(),
    };
    for (line, question) in lines.iter().zip(asked.chunks_exact(EMBEDDING_DIM)) {
        let fine = line.level == "fine";
        let best = prompts
            .iter()
            .zip(known.chunks_exact(EMBEDDING_DIM))
            .filter(|(row, _)| {
                if fine {
                    corpus.texts[**row].fine >= 0
                } else {
                    corpus.texts[**row].coarse >= 0
                }
            })
            .max_by(|(_, a), (_, b)| dot(a, question).total_cmp(&dot(b, question)))
            .map(|(row, _)| &corpus.texts[*row])
            .context("no prompts in the corpus")?;
        let right = line.targets.split(',').any(|target| {
            if fine {
                target.parse() == Ok(best.fine)
            } else {
                usize::try_from(best.coarse)
                    .is_ok_and(|id| coarse_names.get(id).is_some_and(|name| name == target))
            }
        });
        if right {
            answer.right += 1;
        } else {
            answer.missed.push(format!("{} → {}", line.text, best.text));
        }
    }
    Ok(answer)
}

/// Writes `student_texts.safetensors`: `embedding [N, D]`, unit rows; rows of general texts are zero.
///
/// # Errors
/// The folder cannot be written.
pub fn write_student_texts(work: &Work, corpus: &Corpus, tower: &Tower) -> Result<()> {
    let rows: Vec<usize> = (0..corpus.texts.len())
        .filter(|row| corpus.texts[*row].kind != "corpus")
        .collect();
    let student = embed(
        tower,
        &rows
            .iter()
            .map(|row| corpus.tokens[*row].as_slice())
            .collect::<Vec<_>>(),
    )?;
    let mut all = vec![0.0; corpus.texts.len() * EMBEDDING_DIM];
    for (row, values) in rows.iter().zip(student.chunks_exact(EMBEDDING_DIM)) {
        all[row * EMBEDDING_DIM..(row + 1) * EMBEDDING_DIM].copy_from_slice(values);
    }
    let table = Tensor::from_vec(all, (corpus.texts.len(), EMBEDDING_DIM), &Device::Cpu)?;
    let path = work.student_texts();
    let temporary = path.with_extension("tmp");
    candle_core::safetensors::save(
        &std::collections::HashMap::from([("embedding", table)]),
        &temporary,
    )?;
    std::fs::rename(&temporary, &path).with_context(|| path.display().to_string())
}
