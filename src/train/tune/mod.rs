//! Fine-tuning the image tower on photos, with a fresh view of every photo in every epoch.
//!
//! The first blocks stay as published; the rest is trained together with the head. Images go
//! through in small chunks so that a layer's activations stay near the core; chunks belong to a
//! fixed number of lanes whose gradients are summed in order, so that a run does not depend on the
//! number of threads.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::{log_softmax, softmax};
use candle_nn::optim::Optimizer;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use super::anchors::Anchors;
use super::augment::Strength;
use super::contrast::{Goals, Shares};
use super::demo::report_line;
use super::efficientnet::{Architecture, FEATURES};
use super::fitting::{HeadMean, Shown, draw, everyday, head_optimizer};
use super::head::{Dropout, Head, everyday_names};
use super::optimizer::{Adam, average, cosine, save};
use super::space::report;
use super::targets::{Bank, select};

mod head;
mod lane;
mod photos;

pub use head::fit_head;
pub use photos::{Photos, features};

use lane::{Lane, rates};

/// Images that go through the network together on one core.
const CHUNK: usize = 4;
/// Independent sums of gradients.
const LANES: usize = 4;

/// How [`tune`] works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passes over the photos.
    pub epochs: usize,
    /// Photos in a step, a multiple of 16.
    pub batch: usize,
    /// Edge length of a view.
    pub size_px: usize,
    /// First block that is trained, 1–17.
    pub first_block: usize,
    /// Largest change of a weight in a step, relative to the size of its channel's weights.
    pub rate: f32,
    /// Factor on `rate` from one block to the one before it.
    pub rate_decay: f32,
    /// Largest rate of the head.
    pub head_rate: f64,
    /// Weight of keeping the classifier's opinion.
    pub distill: f64,
    /// Share of blended views.
    pub mix: f64,
    /// Label smoothing.
    pub smoothing: f32,
    /// How far views go.
    pub strength: Strength,
    /// Dropout of the head.
    pub dropout: Dropout,
    /// Views of every photo for fitting the head again at the end.
    pub refit_views: usize,
    /// Steps of that.
    pub refit_steps: usize,
    /// Epochs between two reports.
    pub report_every: usize,
    /// Random seed.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epochs: 24,
            batch: 64,
            size_px: 224,
            first_block: 4,
            rate: 4e-3,
            rate_decay: 0.9,
            head_rate: 6e-4,
            distill: 0.3,
            mix: 0.3,
            smoothing: 0.1,
            strength: Strength::default(),
            dropout: Dropout {
                features: 0.2,
                hidden: 0.3,
            },
            refit_views: 6,
            refit_steps: 600,
            report_every: 4,
            seed: 1,
        }
    }
}

/// A tower with its averaged twin.
pub struct Tuned {
    /// Averaged parameters: what is shipped.
    pub parameters: Vec<f32>,
}

/// Fine-tunes the published tower and the head; `texts [N, D]` are the embeddings of the bank's
/// rows. The averaged head is left in `head`, both are saved in `folder` at every report.
///
/// # Errors
/// candle's, or the file system's.
#[expect(
    clippy::too_many_arguments,
    reason = "everything a training run brings together"
)]
pub fn tune(
    published: &[f32],
    photos: &Photos,
    check: &Photos,
    bank: &Bank,
    texts: &Tensor,
    anchors: &Anchors,
    head: &Head,
    settings: &Settings,
    folder: &Path,
    progress: &indicatif::ProgressBar,
) -> Result<Tuned> {
    let net = Architecture::lite0();
    let first = net.first_layer(settings.first_block);
    let base = net.first_parameter(first);
    let rates = rates(&net, published, first, settings.rate_decay);
    let mut parameters = published.to_vec();
    let mut mean = published.to_vec();
    let mut adam = Adam::new(net.parameters - base);
    let mut head_optimizer = head_optimizer(head)?;
    let mut head_mean = HeadMean::new(head)?;
    let names = everyday_names(bank, texts)?;
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let mut lanes: Vec<Lane> = (0..LANES).map(|_| Lane::default()).collect();
    let steps_per_epoch = photos.images.len() / settings.batch;
    let steps = steps_per_epoch * settings.epochs;
    progress.set_length((steps * settings.batch) as u64);
    let began = Instant::now();
    let mut step = 0;
    let mut running = 0.0f32;
    for epoch in 0..settings.epochs {
        let mut order: Vec<usize> = (0..photos.images.len()).collect();
        order.shuffle(&mut rng);
        for batch in order.chunks_exact(settings.batch) {
            let slope = cosine(step, steps, steps_per_epoch);
            let seed = settings
                .seed
                .wrapping_mul(7_919)
                .wrapping_add(step as u64)
                .wrapping_mul(100_003);
            lanes
                .par_iter_mut()
                .zip(batch.par_chunks(settings.batch / LANES))
                .for_each(|(lane, part)| {
                    lane.forward(&net, published, &parameters, photos, part, settings, seed);
                });
            let pooled: Vec<f32> = lanes
                .iter()
                .flat_map(|l| l.features.iter().copied())
                .collect();
            let features = Var::from_vec(pooled, (settings.batch, FEATURES), &Device::Cpu)?;
            let picks = draw(&mut rng, anchors.classes.len(), settings.batch / 2)?;
            let goals: Shown = lanes
                .iter()
                .flat_map(|l| l.goals.iter().cloned())
                .chain(everyday(anchors, &picks).map(|shows| vec![(shows, 1.0)]))
                .collect();
            let goals = Goals::new(bank, &goals, settings.smoothing)?;
            let all = Tensor::cat(
                &[features.as_tensor(), &select(&anchors.features, &picks)?],
                0,
            )?;
            let candidates = select(texts, &bank.draw(0.5, &mut rng))?;
            let embeddings = head.forward(&all, &names, Some(settings.dropout))?;
            let mut loss =
                goals.loss(&embeddings, &candidates, &head.scale()?, Shares::default())?;
            if settings.distill > 0.0 {
                loss = (loss
                    + (distillation(head, &lanes, &features, settings)? * settings.distill)?)?;
            }
            running = 0.95f32.mul_add(running, 0.05 * loss.to_scalar::<f32>()?);
            let gradients = loss.backward()?;
            head_optimizer.set_learning_rate(settings.head_rate * slope);
            head_optimizer.step(&gradients)?;
            let back = gradients
                .get(&features)
                .context("no gradient reached the features")?;
            let back = back.flatten_all()?.to_vec1::<f32>()?;
            lanes
                .par_iter_mut()
                .zip(back.par_chunks(settings.batch / LANES * FEATURES))
                .for_each(|(lane, gradient)| lane.backward(&net, &parameters, gradient, first));
            let (sum, rest) = lanes.split_at_mut(1);
            for lane in rest {
                for (s, g) in sum[0].gradient.iter_mut().zip(&lane.gradient) {
                    *s += g;
                }
            }
            adam.advance();
            #[expect(clippy::cast_possible_truncation, reason = "a factor between 0 and 1")]
            let rate = settings.rate * slope as f32;
            adam.update(
                &mut parameters[base..],
                &sum[0].gradient,
                &published[base..],
                &rates,
                rate,
                0.02,
            );
            #[expect(clippy::cast_precision_loss, reason = "a step count")]
            let decay = ((1 + step) as f32 / (10 + step) as f32).min(0.99);
            average(&mut mean[base..], &parameters[base..], decay);
            head_mean.follow(head, f64::from(decay))?;
            step += 1;
            progress.inc(settings.batch as u64);
            progress.set_message(format!("epoch {}, loss {running:.3}", epoch + 1));
        }
        if (epoch + 1) % settings.report_every == 0 || epoch + 1 == settings.epochs {
            let seen = features(
                &mean,
                check,
                settings.size_px,
                0,
                settings.strength,
                0,
                &indicatif::ProgressBar::hidden(),
            )?;
            let (fine, coarse) = head_mean.show(head, || report(bank, head, texts, &seen))?;
            report_line(
                progress,
                &format!(
                    "epoch {}: loss {running:.3}, fine {fine:.1} %, coarse {coarse:.1} %, {:.0} s",
                    epoch + 1,
                    began.elapsed().as_secs_f64()
                ),
            );
            save_tower(&mean, &folder.join("tower.safetensors"))?;
            save(head_mean.tensors(), &folder.join("head.safetensors"))?;
        }
    }
    head.restore(head_mean.tensors())?;
    Ok(Tuned { parameters: mean })
}

/// Kullback–Leibler divergence of the classifier's opinion on tuned features from that on published ones,
/// over each lane's first chunk.
fn distillation(
    head: &Head,
    lanes: &[Lane],
    features: &Tensor,
    settings: &Settings,
) -> Result<Tensor> {
    let per_lane = settings.batch / LANES;
    let mut rows = Vec::new();
    for lane in 0..LANES {
        rows.push(features.narrow(0, lane * per_lane, CHUNK)?);
    }
    let reference: Vec<f32> = lanes
        .iter()
        .flat_map(|l| l.reference.iter().copied())
        .collect();
    let reference = Tensor::from_vec(reference, (LANES * CHUNK, FEATURES), &Device::Cpu)?;
    let theirs = softmax(&head.logits(&reference)?, D::Minus1)?;
    let ours = log_softmax(&head.logits(&Tensor::cat(&rows, 0)?)?, D::Minus1)?;
    let entropy = (&theirs * (&theirs + 1e-9)?.log()?)?.sum_all()?;
    #[expect(clippy::cast_precision_loss, reason = "a row count")]
    let count = (LANES * CHUNK) as f64;
    Ok(((entropy - (theirs * ours)?.sum_all()?)? / count)?)
}

/// Saves a tower's parameters.
///
/// # Errors
/// The file system's.
pub fn save_tower(parameters: &[f32], path: &Path) -> Result<()> {
    let tensor = Tensor::from_slice(parameters, parameters.len(), &Device::Cpu)?;
    save(&HashMap::from([("parameters".to_owned(), tensor)]), path)
}

/// Reads a tower's parameters.
///
/// # Errors
/// A file of another length.
pub fn load_tower(path: &Path) -> Result<Vec<f32>> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu)
        .with_context(|| path.display().to_string())?;
    let parameters = tensors
        .get("parameters")
        .context("no parameters")?
        .to_vec1::<f32>()?;
    anyhow::ensure!(
        parameters.len() == Architecture::lite0().parameters,
        "not this tower: {}",
        path.display()
    );
    Ok(parameters)
}
