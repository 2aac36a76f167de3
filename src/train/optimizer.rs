//! AdamW over a flat parameter vector, the learning-rate schedule, averaged weights, checkpoints.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Tensor;

/// Cosine schedule with a linear warm-up, 0–1.
#[expect(clippy::cast_precision_loss, reason = "step counts")]
pub fn cosine(step: usize, steps: usize, warmup: usize) -> f64 {
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

/// One step of Adam (Kingma & Ba, ICLR 2015): the decay rates of the moments and their bias
/// corrections `1 − βᵗ`.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    betas: (f32, f32),
    corrections: (f32, f32),
}

impl Step {
    /// Step number `t`, counted from 1.
    pub fn new(betas: (f32, f32), t: i32) -> Self {
        Self {
            betas,
            corrections: (1.0 - betas.0.powi(t), 1.0 - betas.1.powi(t)),
        }
    }

    /// Takes gradient `g` of one parameter into its moments; how far, at rate 1, it moves down.
    #[inline]
    pub fn direction(&self, first: &mut f32, second: &mut f32, g: f32) -> f32 {
        let (b1, b2) = self.betas;
        *first = b1 * *first + (1.0 - b1) * g;
        *second = b2 * *second + (1.0 - b2) * g * g;
        (*first / self.corrections.0) / ((*second / self.corrections.1).sqrt() + 1e-8)
    }
}

/// AdamW (Loshchilov & Hutter, ICLR 2019) with β = 0.9, 0.999 over one flat vector whose parameters
/// have rates of their own.
pub struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    step: i32,
}

impl Adam {
    /// For `n` parameters.
    pub fn new(n: usize) -> Self {
        Self {
            first: vec![0.0; n],
            second: vec![0.0; n],
            step: 0,
        }
    }

    /// Begins a step; [`Self::update`] is then called once for every group.
    pub fn advance(&mut self) {
        self.step += 1;
    }

    /// Updates every parameter with its own rate, `rate · rates[i]`. Weights are pulled by `decay`
    /// towards `anchor`, where they were pretrained, not towards zero (L2-SP, Li et al., ICML 2018).
    pub fn update(
        &mut self,
        parameters: &mut [f32],
        gradient: &[f32],
        anchor: &[f32],
        rates: &[f32],
        rate: f32,
        decay: f32,
    ) {
        let step = Step::new((0.9, 0.999), self.step);
        for i in 0..parameters.len() {
            let move_by = step.direction(&mut self.first[i], &mut self.second[i], gradient[i]);
            parameters[i] -= rate * (rates[i] * move_by + decay * (parameters[i] - anchor[i]));
        }
    }
}

/// Exponential moving average of weights; early on it averages over fewer steps.
pub fn average(mean: &mut [f32], now: &[f32], decay: f32) {
    for (m, n) in mean.iter_mut().zip(now) {
        *m = decay * *m + (1.0 - decay) * n;
    }
}

/// Writes safetensors beside `path`, waits until the disk has them, and renames: a reader sees the
/// old file or the new one, after a power cut too.
///
/// # Errors
/// The file system's.
pub fn save(tensors: &HashMap<String, Tensor>, path: &Path) -> Result<()> {
    let part = path.with_extension("part");
    candle_core::safetensors::save(tensors, &part).with_context(|| part.display().to_string())?;
    File::open(&part)
        .and_then(|file| file.sync_all())
        .with_context(|| part.display().to_string())?;
    std::fs::rename(&part, path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_rises_then_falls_to_nothing() {
        assert!(cosine(0, 100, 10) < cosine(5, 100, 10));
        assert!((cosine(10, 100, 10) - 1.0).abs() < 1e-9);
        assert!(cosine(99, 100, 10) < 0.001);
    }

    #[test]
    fn adam_finds_the_minimum_of_a_parabola() {
        let mut x = vec![5.0f32, -3.0];
        let mut adam = Adam::new(2);
        for _ in 0..2000 {
            let gradient: Vec<f32> = x.iter().map(|x| 2.0 * (x - 1.0)).collect();
            adam.advance();
            adam.update(&mut x, &gradient, &[0.0, 0.0], &[1.0, 1.0], 0.01, 0.0);
        }
        assert!(x.iter().all(|x| (x - 1.0).abs() < 0.05), "{x:?}");
    }

    #[test]
    fn decay_pulls_towards_the_pretrained_weights() {
        let mut x = vec![2.0f32];
        let mut adam = Adam::new(1);
        for _ in 0..100 {
            adam.advance();
            adam.update(&mut x, &[0.0], &[1.0], &[1.0], 0.1, 1.0);
        }
        assert!((x[0] - 1.0).abs() < 0.01, "{x:?}");
    }
}
