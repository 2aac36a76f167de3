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
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use image::RgbImage;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use super::anchors::Anchors;
use super::augment::{self, Strength};
use super::contrast::{Goals, Shares, Shows};
use super::demo::report_line;
use super::efficientnet::{Architecture, FEATURES, Scratch, Workspace};
use super::grocery::{Class, Photo, decode};
use super::head::{Dropout, Head, everyday_names};
use super::optimizer::{Adam, average, cosine, save};
use super::space::{Examples, report};
use super::targets::{Bank, select};

/// Images that go through the network together on one core.
const CHUNK: usize = 4;
/// Independent sums of gradients.
const LANES: usize = 4;

/// Decoded photos.
pub struct Photos {
    images: Vec<RgbImage>,
    /// What each shows.
    pub shows: Vec<Shows>,
    readable: Vec<bool>,
}

impl Photos {
    /// Decodes all of `list`.
    ///
    /// # Errors
    /// The first photo that cannot be decoded.
    pub fn load(list: &[Photo], classes: &[Class]) -> Result<Self> {
        let images = list
            .par_iter()
            .map(|p| decode(&p.path))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            images,
            shows: list
                .iter()
                .map(|p| Shows::Grocery {
                    fine: p.fine,
                    coarse: p.coarse,
                })
                .collect(),
            readable: list.iter().map(|p| classes[p.fine].packaged).collect(),
        })
    }

    fn view(&self, i: usize, size: usize, strength: Strength, rng: &mut StdRng) -> Vec<f32> {
        augment::view(&self.images[i], size, self.readable[i], strength, rng)
    }

    /// A random view, now and then blended with another photo's, and what it then shows.
    fn mixed_view(
        &self,
        i: usize,
        settings: &Settings,
        rng: &mut StdRng,
    ) -> (Vec<f32>, Vec<(Shows, f32)>) {
        let size = settings.size_px;
        let mut pixels = self.view(i, size, settings.strength, rng);
        if !rng.random_bool(settings.mix) {
            return (pixels, vec![(self.shows[i], 1.0)]);
        }
        let j = rng.random_range(0..self.images.len());
        let other = self.view(j, size, settings.strength, rng);
        let share: f32 = if rng.random_bool(0.5) {
            let share = rng.random_range(0.0..0.5);
            for (p, o) in pixels.iter_mut().zip(&other) {
                *p += share * (o - *p);
            }
            share
        } else {
            paste(&mut pixels, &other, size, rng)
        };
        (
            pixels,
            vec![(self.shows[i], 1.0 - share), (self.shows[j], share)],
        )
    }
}

/// Copies a random rectangle of `other`, at most half the area (CutMix, Yun et al., ICCV 2019);
/// returns its share of the area.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions inside an image"
)]
fn paste(pixels: &mut [f32], other: &[f32], size: usize, rng: &mut impl Rng) -> f32 {
    let share: f32 = rng.random_range(0.0..0.5);
    let edge = ((share.sqrt() * size as f32) as usize).clamp(1, size);
    let (x, y) = (
        rng.random_range(0..=size - edge),
        rng.random_range(0..=size - edge),
    );
    for row in y..y + edge {
        let span = (row * size + x) * 3..(row * size + x + edge) * 3;
        pixels[span.clone()].copy_from_slice(&other[span]);
    }
    (edge * edge) as f32 / (size * size) as f32
}

/// Pooled features of `views` random views (or of the centre view alone when 0) of every photo,
/// `[photos · max(views, 1), 1280]`, photo by photo.
///
/// # Errors
/// candle's.
pub fn features(
    parameters: &[f32],
    photos: &Photos,
    size_px: usize,
    views: usize,
    strength: Strength,
    seed: u64,
    progress: &indicatif::ProgressBar,
) -> Result<Examples> {
    let net = Architecture::lite0();
    let per_photo = views.max(1);
    progress.set_length((photos.images.len() * per_photo) as u64);
    let rows: Vec<Vec<f32>> = (0..photos.images.len() * per_photo)
        .into_par_iter()
        .map_init(Workspace::default, |space, i| {
            let photo = i / per_photo;
            let pixels = if views == 0 {
                augment::centre_view(&photos.images[photo], size_px)
            } else {
                let mut rng =
                    StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(i as u64));
                photos.view(photo, size_px, strength, &mut rng)
            };
            net.forward(parameters, 0..net.layers.len(), &pixels, size_px, space);
            progress.inc(1);
            space.pooled(FEATURES)
        })
        .collect();
    let count = rows.len();
    Ok(Examples {
        features: Tensor::from_vec(rows.concat(), (count, FEATURES), &Device::Cpu)?,
        shows: (0..count).map(|i| photos.shows[i / per_photo]).collect(),
    })
}

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

/// One lane's share of a step, kept from the way forward to the way back.
#[derive(Default)]
struct Lane {
    chunks: Vec<Workspace>,
    frozen: Workspace,
    published: Workspace,
    scratch: Scratch,
    gradient: Vec<f32>,
    features: Vec<f32>,
    goals: Vec<Vec<(Shows, f32)>>,
    /// Features of the published tower for the lane's first chunk.
    reference: Vec<f32>,
}

impl Lane {
    /// Makes views of `photos`, runs the tower and keeps what the way back needs.
    #[expect(clippy::too_many_arguments, reason = "each is its own thing")]
    fn forward(
        &mut self,
        net: &Architecture,
        published: &[f32],
        parameters: &[f32],
        photos: &Photos,
        batch: &[usize],
        settings: &Settings,
        seed: u64,
    ) {
        let first = net.first_layer(settings.first_block);
        let trained = first..net.layers.len();
        self.features.clear();
        self.goals.clear();
        self.reference.clear();
        self.chunks
            .resize_with(batch.len().div_ceil(CHUNK), Workspace::default);
        for (number, chunk) in batch.chunks(CHUNK).enumerate() {
            let mut middle = Vec::new();
            let mut side = 0;
            for photo in chunk {
                let mut rng = StdRng::seed_from_u64(seed.wrapping_add(*photo as u64));
                let (pixels, goal) = photos.mixed_view(*photo, settings, &mut rng);
                self.goals.push(goal);
                net.forward(
                    published,
                    0..first,
                    &pixels,
                    settings.size_px,
                    &mut self.frozen,
                );
                let (output, output_side) = self.frozen.output();
                middle.extend_from_slice(output);
                side = output_side;
            }
            let space = &mut self.chunks[number];
            net.forward(parameters, trained.clone(), &middle, side, space);
            self.features.extend(space.pooled(FEATURES));
            if number == 0 && settings.distill > 0.0 {
                net.forward(
                    published,
                    trained.clone(),
                    &middle,
                    side,
                    &mut self.published,
                );
                self.reference = self.published.pooled(FEATURES);
            }
        }
    }

    fn backward(&mut self, net: &Architecture, parameters: &[f32], gradient: &[f32], first: usize) {
        let trained = first..net.layers.len();
        self.gradient.clear();
        self.gradient
            .resize(net.parameters - net.first_parameter(first), 0.0);
        for (space, gradient) in self.chunks.iter().zip(gradient.chunks(CHUNK * FEATURES)) {
            let gradient = space.unpool(gradient, FEATURES);
            net.backward(
                parameters,
                trained.clone(),
                &gradient,
                &mut self.gradient,
                space,
                &mut self.scratch,
            );
        }
    }
}

/// For every trained parameter how far one step may move it: the root mean square of its output
/// channel's published weights (folding batch normalisation left channels of very different
/// sizes), times the block's share.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "layer widths"
)]
fn rates(net: &Architecture, published: &[f32], first: usize, decay: f32) -> Vec<f32> {
    let base = net.first_parameter(first);
    let mut rates = vec![0.0; net.parameters - base];
    let last = net.layers.last().map_or(0, |l| l.block);
    for layer in &net.layers[first..] {
        let share = decay.powi((last - layer.block) as i32);
        let weight = &published[layer.weight.clone()];
        let n = layer.outputs;
        let mut squares = vec![0.0f32; n];
        for row in weight.chunks_exact(n) {
            for (s, w) in squares.iter_mut().zip(row) {
                *s += w * w;
            }
        }
        let rms: Vec<f32> = squares
            .iter()
            .map(|s| (s / (weight.len() / n) as f32).sqrt())
            .collect();
        for (i, r) in rates[layer.weight.start - base..layer.weight.end - base]
            .iter_mut()
            .enumerate()
        {
            *r = share * rms[i % n];
        }
        let bias = &published[layer.bias.clone()];
        let size = (bias.iter().map(|b| b * b).sum::<f32>() / n as f32).sqrt();
        rates[layer.bias.start - base..layer.bias.end - base].fill(share * 0.3 * size);
    }
    rates
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
    let mut head_optimizer = AdamW::new(
        head.variables(),
        ParamsAdamW {
            weight_decay: 0.02,
            ..ParamsAdamW::default()
        },
    )?;
    let mut head_mean = head.snapshot()?;
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
            let picks: Vec<u32> = (0..settings.batch / 2)
                .map(|_| u32::try_from(rng.random_range(0..anchors.classes.len())))
                .collect::<Result<_, _>>()?;
            let goals: Vec<Vec<(Shows, f32)>> = lanes
                .iter()
                .flat_map(|l| l.goals.iter().cloned())
                .chain(
                    picks
                        .iter()
                        .map(|p| vec![(Shows::Everyday(anchors.classes[*p as usize]), 1.0)]),
                )
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
            for (name, now) in head.snapshot()? {
                if let Some(old) = head_mean.get_mut(&name) {
                    *old = ((&*old * f64::from(decay))? + (now * f64::from(1.0 - decay))?)?;
                }
            }
            step += 1;
            progress.inc(settings.batch as u64);
            progress.set_message(format!("epoch {}, loss {running:.3}", epoch + 1));
        }
        if (epoch + 1) % settings.report_every == 0 || epoch + 1 == settings.epochs {
            let own = head.snapshot()?;
            head.restore(&head_mean)?;
            let seen = self::features(
                &mean,
                check,
                settings.size_px,
                0,
                settings.strength,
                0,
                &indicatif::ProgressBar::hidden(),
            )?;
            let (fine, coarse) = report(bank, head, texts, &seen)?;
            report_line(
                progress,
                &format!(
                    "epoch {}: loss {running:.3}, fine {fine:.1} %, coarse {coarse:.1} %, {:.0} s",
                    epoch + 1,
                    began.elapsed().as_secs_f64()
                ),
            );
            save_tower(&mean, &folder.join("tower.safetensors"))?;
            save(&head_mean, &folder.join("head.safetensors"))?;
            head.restore(&own)?;
        }
    }
    head.restore(&head_mean)?;
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

/// Fits the head alone on features that do not change; `texts [N, D]` likewise.
///
/// # Errors
/// candle's.
#[expect(
    clippy::too_many_arguments,
    reason = "everything a training run brings together"
)]
pub fn fit_head(
    head: &Head,
    bank: &Bank,
    texts: &Tensor,
    examples: &Examples,
    anchors: &Anchors,
    check: &Examples,
    (steps, rate): (usize, f64),
    settings: &Settings,
    progress: &indicatif::ProgressBar,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let names = everyday_names(bank, texts)?;
    let mut optimizer = AdamW::new(
        head.variables(),
        ParamsAdamW {
            weight_decay: 0.02,
            ..ParamsAdamW::default()
        },
    )?;
    let mut mean: HashMap<String, Tensor> = head.snapshot()?;
    progress.set_length(steps as u64);
    for step in 0..steps {
        optimizer.set_learning_rate(rate * cosine(step, steps, steps / 20 + 1));
        let pick = |rng: &mut StdRng, below: usize, n: usize| -> Result<Vec<u32>> {
            Ok((0..n)
                .map(|_| u32::try_from(rng.random_range(0..below)))
                .collect::<Result<_, _>>()?)
        };
        let photos = pick(&mut rng, examples.shows.len(), 192)?;
        let made = pick(&mut rng, anchors.classes.len(), 64)?;
        let rows = Tensor::cat(
            &[
                select(&examples.features, &photos)?,
                select(&anchors.features, &made)?,
            ],
            0,
        )?;
        let goals: Vec<Vec<(Shows, f32)>> = photos
            .iter()
            .map(|p| examples.shows[*p as usize])
            .chain(
                made.iter()
                    .map(|a| Shows::Everyday(anchors.classes[*a as usize])),
            )
            .map(|s| vec![(s, 1.0)])
            .collect();
        let candidates = select(texts, &bank.draw(0.5, &mut rng))?;
        let embeddings = head.forward(&rows, &names, Some(settings.dropout))?;
        let goals = Goals::new(bank, &goals, settings.smoothing)?;
        let loss = goals.loss(&embeddings, &candidates, &head.scale()?, Shares::default())?;
        optimizer.step(&loss.backward()?)?;
        for (name, now) in head.snapshot()? {
            if let Some(old) = mean.get_mut(&name) {
                *old = ((&*old * 0.98)? + (now * 0.02)?)?;
            }
        }
        progress.inc(1);
        if (step + 1) % 200 == 0 || step + 1 == steps {
            let own = head.snapshot()?;
            head.restore(&mean)?;
            let (fine, coarse) = report(bank, head, texts, check)?;
            report_line(
                progress,
                &format!(
                    "step {}: loss {:.3}, fine {fine:.1} %, coarse {coarse:.1} %, scale {:.1}",
                    step + 1,
                    loss.to_scalar::<f32>()?,
                    head.scale()?.to_vec1::<f32>()?[0]
                ),
            );
            head.restore(&own)?;
        }
    }
    head.restore(&mean)
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
