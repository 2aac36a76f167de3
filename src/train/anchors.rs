//! Image-side anchors of the 1000 ImageNet classes, made without photos.
//!
//! A row of the classifier says in which direction features of its class lie, seen through the
//! covariance Σ of features within a class: for Gaussian classes with common covariance the best
//! linear classifier is w = Σ⁻¹ m, so class means lie along m = Σ w. An anchor is the mean feature
//! plus a step along Σ w plus the residual of some real photo, clipped at zero as pooled ReLU6
//! features are; it is kept only when the classifier recognises it.

use anyhow::{Result, ensure};
use candle_core::{D, Device, IndexOp, Tensor};
use rand::Rng;

use super::efficientnet::FEATURES;
use super::onnx::Pretrained;
use super::targets::EVERYDAY;

/// Synthetic features and the classes they belong to.
pub struct Anchors {
    /// `[n, 1280]`.
    pub features: Tensor,
    /// ImageNet class of each row.
    pub classes: Vec<usize>,
}

/// Makes up to `per_class` anchors of every class from photo features `[n, 1280]` with their
/// class numbers.
///
/// # Errors
/// Fewer than two photos, or candle's.
pub fn synthesize(
    pretrained: &Pretrained,
    features: &Tensor,
    photo_classes: &[usize],
    per_class: usize,
    rng: &mut impl Rng,
) -> Result<Anchors> {
    let device = Device::Cpu;
    let n = features.dim(0)?;
    ensure!(
        n == photo_classes.len() && n > 1,
        "photos and classes differ"
    );
    let mean = features.mean_keepdim(0)?;
    let residuals = residuals(features, photo_classes)?;
    #[expect(clippy::cast_precision_loss, reason = "a photo count")]
    let covariance = (residuals.t()?.contiguous()?.matmul(&residuals)? / n as f64)?;
    let classifier = Tensor::from_slice(&pretrained.classifier, (FEATURES, EVERYDAY), &device)?;
    let bias = Tensor::from_slice(&pretrained.classifier_bias, EVERYDAY, &device)?;
    let directions = covariance.matmul(&classifier)?.t()?.contiguous()?;
    let typical = residuals
        .sqr()?
        .sum(D::Minus1)?
        .sqrt()?
        .mean_all()?
        .to_scalar::<f32>()?;
    let lengths = directions.sqr()?.sum_keepdim(1)?.sqrt()?;
    let directions = (directions.broadcast_div(&lengths)? * f64::from(typical))?;

    let mut kept = Vec::new();
    let mut classes = Vec::new();
    for round in 0..per_class * 3 {
        // Steps grow until the classifier is sure; some classes need longer ones.
        let step = 1.0 + 3.0 * rng.random::<f64>() + if round >= per_class { 2.0 } else { 0.0 };
        let picks: Vec<u32> = (0..EVERYDAY)
            .map(|_| u32::try_from(rng.random_range(0..n)))
            .collect::<Result<_, _>>()?;
        let noise = (super::targets::select(&residuals, &picks)? * 0.6)?;
        let made = ((&directions * step)? + noise)?
            .broadcast_add(&mean)?
            .clamp(0f32, 6f32)?;
        let logits = made.matmul(&classifier)?.broadcast_add(&bias)?;
        let best = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let mut rows = Vec::new();
        for (class, best) in best.iter().enumerate() {
            let have = classes.iter().filter(|c| **c == class).count();
            if usize::try_from(*best)? == class && have < per_class {
                rows.push(u32::try_from(class)?);
                classes.push(class);
            }
        }
        if !rows.is_empty() {
            kept.push(super::targets::select(&made, &rows)?);
        }
    }
    ensure!(!kept.is_empty(), "the classifier recognised no anchor");
    Ok(Anchors {
        features: Tensor::cat(&kept, 0)?,
        classes,
    })
}

/// Features minus the mean of their class.
fn residuals(features: &Tensor, classes: &[usize]) -> Result<Tensor> {
    let count = classes.iter().max().map_or(0, |m| m + 1);
    let mut means = Vec::with_capacity(count);
    for class in 0..count {
        let rows: Vec<u32> = classes
            .iter()
            .enumerate()
            .filter(|(_, c)| **c == class)
            .map(|(i, _)| u32::try_from(i))
            .collect::<Result<_, _>>()?;
        means.push(if rows.is_empty() {
            features.i(0)?.zeros_like()?
        } else {
            super::targets::select(features, &rows)?.mean(0)?
        });
    }
    let means = Tensor::stack(&means, 0)?;
    let rows: Vec<u32> = classes
        .iter()
        .map(|c| u32::try_from(*c))
        .collect::<Result<_, _>>()?;
    Ok((features - super::targets::select(&means, &rows)?)?)
}
