//! Teaches the tower its targets: first the bag of words alone (seconds), then the whole tower.
//!
//! Loss of a batch, with student rows `s` and target rows `t`, all of unit length:
//! `mean(1 − ⟨s,t⟩) + A · mean((S·Sᵀ − T·Tᵀ)²) + K · cross-entropy(scale · s·C)`; the last term,
//! over texts that fit a grocery class, pulls a description towards its class `C` (towards all of
//! them alike, where it fits several) even where the teacher does not see the connection.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::corpus::{Corpus, Text, unit_rows};
use super::measure;
use super::optimizer::{AdamW, warm_up_and_cosine};
use super::tower::{Batch, Shape, Tower};
use super::{EMBEDDING_DIM, Work};
use crate::train::head::cross_entropy;

/// Weight `A` of the pairwise similarities.
const AFFINITY: f64 = 2.0;

/// Scale of the classes' logits.
const CLASS_SCALE: f64 = 20.0;

/// Batches sorted by length together: long enough to waste little padding, short enough to stay random.
const SORTED_TOGETHER: usize = 48;

/// What to spend.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Seed of weights and order.
    pub seed: u64,
    /// Passes of the bag of words over the corpus.
    pub bag_epochs: usize,
    /// Steps of the whole tower.
    pub steps: usize,
    /// Texts a step.
    pub batch: usize,
    /// Peak learning rate of the tower.
    pub rate: f32,
    /// Weight `K` of the classes.
    pub classes: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            bag_epochs: 6,
            steps: 2000,
            batch: 192,
            rate: 1e-3,
            classes: 0.05,
        }
    }
}

/// How often a text is seen in one pass: prompts and names are what will be asked for, so they
/// have to be exact; templates and general texts are many.
fn repeats(text: &Text, draw: f32) -> usize {
    let wanted = match text.kind.as_str() {
        "prompt" => 8.0,
        "name" => 6.0,
        "caption" => 3.0,
        "everyday" => 1.5,
        _ => 1.0,
    };
    (1..=8_u8)
        .take_while(|count| f32::from(*count) <= wanted + draw)
        .count()
}

/// One pass: rows in batches of similar length, in random order.
fn plan(corpus: &Corpus, rng: &mut StdRng, batch: usize) -> Vec<Vec<usize>> {
    let mut rows = Vec::new();
    for (row, text) in corpus.texts.iter().enumerate() {
        if !text.held_out() {
            rows.extend(std::iter::repeat_n(
                row,
                repeats(text, rng.random::<f32>() * 0.999),
            ));
        }
    }
    rows.shuffle(rng);
    let mut batches = Vec::new();
    for group in rows.chunks_mut(batch * SORTED_TOGETHER) {
        group.sort_by_key(|row| corpus.tokens[*row].len());
        batches.extend(group.chunks(batch).map(<[usize]>::to_vec));
    }
    batches.shuffle(rng);
    batches
}

fn batch_of(corpus: &Corpus, rows: &[usize]) -> Result<(Batch, Tensor)> {
    let sequences: Vec<&[u32]> = rows
        .iter()
        .map(|row| corpus.tokens[*row].as_slice())
        .collect();
    let targets: Vec<f32> = rows
        .iter()
        .flat_map(|row| corpus.target(*row))
        .copied()
        .collect();
    Ok((
        Batch::new(&sequences, 0)?,
        Tensor::from_vec(targets, (rows.len(), EMBEDDING_DIM), &Device::Cpu)?,
    ))
}

/// `mean(1 − cosine)`.
fn cosine_loss(student: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok((1.0 - ((student * target)?.sum_all()? / f64::from(u32::try_from(student.dim(0)?)?))?)?)
}

/// Which classes a text fits.
type Class = fn(&Text) -> &[usize];

/// Class centroids `[D, classes]` and which column of the file counts.
struct Classes {
    fine: Tensor,
    coarse: Tensor,
}

impl Classes {
    fn new(corpus: &Corpus) -> Result<Self> {
        let count = |class: Class| {
            corpus
                .texts
                .iter()
                .flat_map(class)
                .max()
                .map_or(0, |last| last + 1)
        };
        let tensor = |class: Class| -> Result<Tensor> {
            let classes = count(class);
            let centroids = Tensor::from_vec(
                corpus.centroids(classes, class),
                (classes, EMBEDDING_DIM),
                &Device::Cpu,
            )?;
            Ok(centroids.t()?.contiguous()?)
        };
        Ok(Self {
            fine: tensor(|text| &text.fine)?,
            coarse: tensor(|text| &text.coarse)?,
        })
    }

    /// Cross-entropy of the rows that fit a class, summed over fine and coarse and divided by
    /// the batch; `None` when no row does. Several classes of a row share the target evenly.
    fn loss(&self, corpus: &Corpus, rows: &[usize], student: &Tensor) -> Result<Option<Tensor>> {
        let mut total: Option<Tensor> = None;
        let kinds: [(&Tensor, Class); 2] = [
            (&self.fine, |text| &text.fine),
            (&self.coarse, |text| &text.coarse),
        ];
        for (centroids, class) in kinds {
            let count = centroids.dim(1)?;
            let (mut places, mut goals) = (Vec::new(), Vec::new());
            for (place, row) in rows.iter().enumerate() {
                let fitting = class(&corpus.texts[*row]);
                if fitting.is_empty() {
                    continue;
                }
                places.push(u32::try_from(place)?);
                let mut goal = vec![0.0_f32; count];
                #[expect(clippy::cast_precision_loss, reason = "a few classes")]
                fitting
                    .iter()
                    .for_each(|class| goal[*class] = 1.0 / fitting.len() as f32);
                goals.extend(goal);
            }
            if places.is_empty() {
                continue;
            }
            let share =
                f64::from(u32::try_from(places.len())?) / f64::from(u32::try_from(rows.len())?);
            let k = places.len();
            let chosen = student.index_select(&Tensor::from_vec(places, k, &Device::Cpu)?, 0)?;
            let logits = (chosen.matmul(centroids)? * CLASS_SCALE)?;
            let goals = Tensor::from_vec(goals, (k, count), &Device::Cpu)?;
            let loss = (cross_entropy(&logits, &goals, None)? * share)?;
            total = Some(match total {
                Some(sum) => (sum + loss)?,
                None => loss,
            });
        }
        Ok(total)
    }
}

fn tower_loss(
    tower: &Tower,
    corpus: &Corpus,
    classes: &Classes,
    rows: &[usize],
    weight: f64,
) -> Result<(Tensor, Tensor)> {
    let (batch, target) = batch_of(corpus, rows)?;
    let student = unit_rows(&tower.forward(&batch)?)?;
    let distance = cosine_loss(&student, &target)?;
    let pairs = (student.matmul(&student.t()?)? - target.matmul(&target.t()?)?)?
        .sqr()?
        .mean_all()?;
    let mut loss = (&distance + (pairs * AFFINITY)?)?;
    if let Some(classes) = classes.loss(corpus, rows, &student)? {
        loss = (loss + (classes * weight)?)?;
    }
    Ok((loss, distance.detach()))
}

/// Embeddings of tokens start as the mean target of the texts they occur in, a text of few tokens
/// counting more: near the answer for every word that is a text of its own.
fn start_embeddings(tower: &Tower, corpus: &Corpus) -> Result<()> {
    let vocabulary = tower.shape.vocabulary;
    let mut sums = vec![0.0_f32; vocabulary * EMBEDDING_DIM];
    let mut weights = vec![0.0_f32; vocabulary];
    for (row, ids) in corpus
        .tokens
        .iter()
        .enumerate()
        .filter(|(row, _)| !corpus.texts[*row].held_out())
    {
        let inner = &ids[1..ids.len().saturating_sub(1).max(1)];
        #[expect(clippy::cast_precision_loss, reason = "tens of tokens")]
        let weight = 1.0 / (inner.len().max(1) as f32).powi(3);
        for id in inner {
            let id = *id as usize;
            weights[id] += weight;
            let sum = &mut sums[id * EMBEDDING_DIM..(id + 1) * EMBEDDING_DIM];
            sum.iter_mut()
                .zip(corpus.target(row))
                .for_each(|(a, b)| *a += weight * b);
        }
    }
    for (sum, weight) in sums.chunks_exact_mut(EMBEDDING_DIM).zip(weights) {
        sum.iter_mut().for_each(|v| *v /= weight.max(1e-6));
    }
    tower.vars[0].set(&Tensor::from_vec(
        sums,
        (vocabulary, EMBEDDING_DIM),
        &Device::Cpu,
    )?)?;
    Ok(())
}

fn bar(total: usize, what: &str) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} ({eta} left)")?;
    Ok(ProgressBar::new(u64::try_from(total)?)
        .with_style(style)
        .with_prefix(what.to_owned()))
}

/// Trains a fresh tower on `corpus`, as a bag of words first; `checkpoint` as for [`go_on`].
///
/// # Errors
/// As [`go_on`].
pub fn train(
    corpus: &Corpus,
    shape: Shape,
    settings: Settings,
    checkpoint: impl FnMut(&Tower, usize) -> Result<()>,
) -> Result<Tower> {
    ensure!(!corpus.texts.is_empty(), "no texts to learn from");
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let tower = Tower::new(shape, settings.seed)?;
    start_embeddings(&tower, corpus)?;

    let progress = bar(settings.bag_epochs, "bag of words")?;
    let mut optimizer = AdamW::new(&tower.vars[..1], 0.0, 0.9)?;
    for epoch in 0..settings.bag_epochs {
        let batches = plan(corpus, &mut rng, settings.batch * 4);
        let mut sum = 0.0;
        for rows in &batches {
            let (batch, target) = batch_of(corpus, rows)?;
            let loss = cosine_loss(&unit_rows(&tower.bag_of_words(&batch)?)?, &target)?;
            sum += loss.to_scalar::<f32>()?;
            optimizer.step(
                &loss.backward()?,
                warm_up_and_cosine(epoch, settings.bag_epochs, 0, 3e-3),
            )?;
        }
        #[expect(clippy::cast_precision_loss, reason = "hundreds of batches")]
        progress.set_message(format!("cosine {:.4}", 1.0 - sum / batches.len() as f32));
        progress.inc(1);
        log::info!("bag of words, pass {}: {}", epoch + 1, progress.message());
    }
    progress.finish();
    go_on(&tower, corpus, settings, checkpoint)?;
    Ok(tower)
}

/// Trains `tower` on `corpus`; `checkpoint` is called with the averaged weights in place, every 250
/// steps and at the end, and they stay there.
///
/// # Errors
/// An empty corpus, a gradient that is not finite, or what `checkpoint` returns.
pub fn go_on(
    tower: &Tower,
    corpus: &Corpus,
    settings: Settings,
    mut checkpoint: impl FnMut(&Tower, usize) -> Result<()>,
) -> Result<()> {
    ensure!(!corpus.texts.is_empty(), "no texts to learn from");
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let classes = Classes::new(corpus)?;
    let progress = bar(settings.steps, "tower")?;
    let mut optimizer = AdamW::new(&tower.vars, 0.01, 0.998)?;
    let (mut queue, mut smooth) = (Vec::new(), None::<f32>);
    for step in 0..settings.steps {
        if queue.is_empty() {
            queue = plan(corpus, &mut rng, settings.batch);
        }
        let rows = queue
            .pop()
            .context("a corpus in which every text is held out")?;
        let (loss, distance) = tower_loss(tower, corpus, &classes, &rows, settings.classes)?;
        let rate = warm_up_and_cosine(step, settings.steps, settings.steps / 20, settings.rate);
        optimizer.step(&loss.backward()?, rate)?;
        let cosine = 1.0 - distance.to_scalar::<f32>()?;
        let shown = smooth.map_or(cosine, |old| 0.97 * old + 0.03 * cosine);
        smooth = Some(shown);
        progress.set_message(format!("cosine {shown:.4}"));
        progress.inc(1);
        if (step + 1) % 250 == 0 && step + 1 < settings.steps {
            log::info!("tower, step {}: cosine {shown:.4}", step + 1);
            optimizer.use_average(true)?;
            checkpoint(tower, step + 1)?;
            optimizer.use_average(false)?;
        }
    }
    progress.finish();
    optimizer.use_average(true)?;
    checkpoint(tower, settings.steps)
}

/// Step `text`: trains the tower of a work folder, keeps `text/tower.safetensors` and
/// `student_texts.safetensors` up to date, and reports what it measures.
///
/// # Errors
/// An earlier step has not run, or a file cannot be written.
pub fn distil(work: &Work, settings: Settings) -> Result<()> {
    let corpus = Corpus::load(work)?;
    let tower = train(
        &corpus,
        Shape::demo(corpus.vocabulary),
        settings,
        |tower, step| {
            tower.save(&work.tower())?;
            measure::write_student_texts(work, &corpus.texts, &corpus.tokens, tower)?;
            log::info!("step {step}: {}", measure::against_targets(&corpus, tower)?);
            Ok(())
        },
    )?;
    log::info!("{}", measure::against_targets(&corpus, &tower)?);
    Ok(())
}

#[cfg(test)]
mod tests;
