//! AdamW (Loshchilov & Hutter 2019) with a moving average of the weights, over plain slices: an
//! embedding table has millions of weights, and a pass each over them beats a graph of temporaries.

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;

use crate::train::optimizer::{Step, cosine};

const BETAS: (f32, f32) = (0.9, 0.98);

/// Values a worker takes at a time.
const CHUNK: usize = 1 << 16;

struct Slot {
    var: Var,
    weights: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    average: Vec<f32>,
    decay: f32,
}

/// The optimizer and its state.
pub struct AdamW {
    slots: Vec<Slot>,
    step: i32,
    average_decay: f32,
    /// Largest norm of a whole gradient; a larger one is scaled down.
    pub clip: f32,
}

impl AdamW {
    /// Takes over `vars`; matrices decay by `weight_decay`, vectors do not. The average of the
    /// weights keeps `average_decay` of itself each step (less in the first steps).
    ///
    /// # Errors
    /// A variable that is not f32.
    pub fn new(vars: &[Var], weight_decay: f32, average_decay: f32) -> Result<Self> {
        let slots = vars
            .iter()
            .map(|var| {
                let weights = var.flatten_all()?.to_vec1::<f32>()?;
                Ok(Slot {
                    var: var.clone(),
                    first: vec![0.0; weights.len()],
                    second: vec![0.0; weights.len()],
                    average: weights.clone(),
                    decay: if var.rank() > 1 { weight_decay } else { 0.0 },
                    weights,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            slots,
            step: 0,
            average_decay,
            clip: 1.0,
        })
    }

    /// One step at `rate`; returns the norm of the gradient before clipping.
    ///
    /// # Errors
    /// A variable without a gradient: an operation on its way drops gradients.
    pub fn step(&mut self, gradients: &GradStore, rate: f32) -> Result<f32> {
        let found = self
            .slots
            .iter()
            .map(|slot| {
                let gradient = gradients
                    .get(&slot.var)
                    .context("a variable without a gradient")?;
                Ok(gradient.flatten_all()?.to_vec1::<f32>()?)
            })
            .collect::<Result<Vec<_>>>()?;
        let norm = found
            .iter()
            .map(|gradient| {
                gradient
                    .par_chunks(CHUNK)
                    .map(|part| part.iter().map(|v| v * v).sum::<f32>())
                    .sum::<f32>()
            })
            .sum::<f32>()
            .sqrt();
        anyhow::ensure!(
            norm.is_finite(),
            "the gradient is not finite: lower the learning rate"
        );
        let scale = if norm > self.clip {
            self.clip / norm
        } else {
            1.0
        };
        self.step += 1;
        let step = Step::new(BETAS, self.step);
        #[expect(clippy::cast_precision_loss, reason = "steps are thousands")]
        let passed = self.step as f32;
        let keep = self.average_decay.min((1.0 + passed) / (10.0 + passed));
        for (slot, gradient) in self.slots.iter_mut().zip(found) {
            let decay = 1.0 - rate * slot.decay;
            slot.weights
                .par_chunks_mut(CHUNK)
                .zip(slot.first.par_chunks_mut(CHUNK))
                .zip(slot.second.par_chunks_mut(CHUNK))
                .zip(slot.average.par_chunks_mut(CHUNK))
                .zip(gradient.par_chunks(CHUNK))
                .for_each(|((((weights, first), second), average), gradient)| {
                    for i in 0..weights.len() {
                        let g = gradient[i] * scale;
                        let move_by = step.direction(&mut first[i], &mut second[i], g);
                        weights[i] = weights[i] * decay - rate * move_by;
                        average[i] = keep * average[i] + (1.0 - keep) * weights[i];
                    }
                });
            slot.var.set(&Tensor::from_vec(
                slot.weights.clone(),
                slot.var.dims(),
                &Device::Cpu,
            )?)?;
        }
        Ok(norm)
    }

    /// Puts the averaged weights into the variables (`true`) or the trained ones back (`false`).
    ///
    /// # Errors
    /// Not enough memory.
    pub fn use_average(&self, average: bool) -> Result<()> {
        for slot in &self.slots {
            let values = if average {
                &slot.average
            } else {
                &slot.weights
            };
            slot.var.set(&Tensor::from_vec(
                values.clone(),
                slot.var.dims(),
                &Device::Cpu,
            )?)?;
        }
        Ok(())
    }
}

/// Learning rate at `step` of `steps`: linear warm-up to `peak`, then half a cosine to a hundredth.
pub fn warm_up_and_cosine(step: usize, steps: usize, warm_up: usize, peak: f32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a share of 1")]
    let share = cosine(step, steps, warm_up) as f32;
    if step < warm_up {
        return peak * share;
    }
    peak * (0.01 + 0.99 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_bottom_of_a_bowl() {
        let var = Var::new(&[3.0_f32, -2.0], &Device::Cpu).unwrap();
        let mut optimizer = AdamW::new(std::slice::from_ref(&var), 0.0, 0.9).unwrap();
        for step in 0..400 {
            let loss = (var.as_tensor() - 1.0)
                .unwrap()
                .sqr()
                .unwrap()
                .sum_all()
                .unwrap();
            optimizer
                .step(
                    &loss.backward().unwrap(),
                    warm_up_and_cosine(step, 400, 10, 0.1),
                )
                .unwrap();
        }
        for value in var.to_vec1::<f32>().unwrap() {
            assert!((value - 1.0).abs() < 0.02, "{value}");
        }
        optimizer.use_average(true).unwrap();
        assert!((var.to_vec1::<f32>().unwrap()[0] - 1.0).abs() < 0.05);
    }

    #[test]
    fn the_rate_rises_then_falls() {
        let rate = |step| warm_up_and_cosine(step, 100, 10, 1.0);
        assert!(rate(0) < rate(5) && rate(5) < rate(9) && rate(50) < rate(11) && rate(99) < 0.02);
    }
}
