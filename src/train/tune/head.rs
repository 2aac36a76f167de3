//! The head alone, on features that do not change.

use anyhow::Result;
use candle_core::Tensor;
use candle_nn::optim::Optimizer;
use rand::{SeedableRng, rngs::StdRng};

use super::Settings;
use crate::train::anchors::Anchors;
use crate::train::contrast::{Goals, Shares};
use crate::train::demo::report_line;
use crate::train::fitting::{HeadMean, head_optimizer, mixed_batch};
use crate::train::head::{Head, everyday_names};
use crate::train::optimizer::cosine;
use crate::train::space::{Examples, report};
use crate::train::targets::{Bank, select};

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
    let mut optimizer = head_optimizer(head)?;
    let mut mean = HeadMean::new(head)?;
    progress.set_length(steps as u64);
    for step in 0..steps {
        optimizer.set_learning_rate(rate * cosine(step, steps, steps / 20 + 1));
        let (rows, goals) = mixed_batch(examples, anchors, &mut rng)?;
        let candidates = select(texts, &bank.draw(0.5, &mut rng))?;
        let embeddings = head.forward(&rows, &names, Some(settings.dropout))?;
        let goals = Goals::new(bank, &goals, settings.smoothing)?;
        let loss = goals.loss(&embeddings, &candidates, &head.scale()?, Shares::default())?;
        optimizer.step(&loss.backward()?)?;
        mean.follow(head, 0.98)?;
        progress.inc(1);
        if (step + 1) % 200 == 0 || step + 1 == steps {
            let (fine, coarse) = mean.show(head, || report(bank, head, texts, check))?;
            report_line(
                progress,
                &format!(
                    "step {}: loss {:.3}, fine {fine:.1} %, coarse {coarse:.1} %, scale {:.1}",
                    step + 1,
                    loss.to_scalar::<f32>()?,
                    head.scale()?.to_vec1::<f32>()?[0]
                ),
            );
        }
    }
    head.restore(mean.tensors())
}
