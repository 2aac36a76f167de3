//! The contrastive loss between images and the texts of their classes.

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::grocery::{COARSE, FINE};
use super::head::cross_entropy;
use super::targets::{Bank, CANDIDATES};

/// What an image shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// A grocery photo.
    Grocery {
        /// 0–80.
        fine: usize,
        /// 0–42.
        coarse: usize,
    },
    /// An anchor of an ImageNet class.
    Everyday(usize),
}

/// Soft targets of a batch over all candidates, and within the fine and the coarse ones.
pub struct Goals {
    all: Tensor,
    mask: Tensor,
    fine: Tensor,
    coarse: Tensor,
}

/// Share of the three parts in the loss.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Among the 81 fine classes.
    pub fine: f64,
    /// Among the 43 coarse classes.
    pub coarse: f64,
    /// Among everything nameable.
    pub all: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            fine: 1.0,
            coarse: 0.6,
            all: 0.5,
        }
    }
}

impl Goals {
    /// Targets of a batch; each image shows one thing or a blend of two (weights sum to 1).
    ///
    /// # Errors
    /// candle's.
    pub fn new(bank: &Bank, images: &[Vec<(Shows, f32)>], smoothing: f32) -> Result<Self> {
        let n = images.len();
        let mut all = vec![0.0f32; n * CANDIDATES];
        let mut mask = vec![0.0f32; n * CANDIDATES];
        let mut fine = vec![0.0f32; n * FINE];
        let mut coarse = vec![0.0f32; n * COARSE];
        for (i, parts) in images.iter().enumerate() {
            let row = &mut all[i * CANDIDATES..][..CANDIDATES];
            let mask = &mut mask[i * CANDIDATES..][..CANDIDATES];
            for (shows, weight) in parts {
                match *shows {
                    Shows::Grocery { fine: f, coarse: c } => {
                        row[f] += 0.5 * weight;
                        row[FINE + c] += 0.5 * weight;
                        smoothed(&mut fine[i * FINE..][..FINE], f, *weight, smoothing);
                        smoothed(&mut coarse[i * COARSE..][..COARSE], c, *weight, smoothing);
                        for r in bank.related(f).iter().chain(bank.related(FINE + c)) {
                            mask[*r] = -1e4;
                        }
                    }
                    Shows::Everyday(id) => {
                        row[FINE + COARSE + id] += weight;
                        for r in bank.related(FINE + COARSE + id) {
                            mask[*r] = -1e4;
                        }
                    }
                }
            }
            for (m, t) in mask.iter_mut().zip(row.iter()) {
                if *t > 0.0 {
                    *m = 0.0;
                }
            }
        }
        let tensor = |v: Vec<f32>, width: usize| Tensor::from_vec(v, (n, width), &Device::Cpu);
        Ok(Self {
            all: tensor(all, CANDIDATES)?,
            mask: tensor(mask, CANDIDATES)?,
            fine: tensor(fine, FINE)?,
            coarse: tensor(coarse, COARSE)?,
        })
    }

    /// Loss of unit `embeddings [n, D]` against unit `candidates [1124, D]`.
    ///
    /// # Errors
    /// candle's.
    pub fn loss(
        &self,
        embeddings: &Tensor,
        candidates: &Tensor,
        scale: &Tensor,
        shares: Shares,
    ) -> candle_core::Result<Tensor> {
        let logits = embeddings.matmul(&candidates.t()?)?.broadcast_mul(scale)?;
        let fine = cross_entropy(&logits.narrow(1, 0, FINE)?, &self.fine, None)?;
        let coarse = cross_entropy(&logits.narrow(1, FINE, COARSE)?, &self.coarse, None)?;
        let all = cross_entropy(&logits, &self.all, Some(&self.mask))?;
        (fine * shares.fine)? + (coarse * shares.coarse)? + (all * shares.all)?
    }
}

#[expect(clippy::cast_precision_loss, reason = "a class count")]
fn smoothed(row: &mut [f32], class: usize, weight: f32, smoothing: f32) {
    let rest = weight * smoothing / row.len() as f32;
    row.iter_mut().for_each(|v| *v += rest);
    row[class] += weight * (1.0 - smoothing);
}

/// How many of unit `embeddings [n, D]` are nearest to the prompt of their class, in percent.
///
/// # Errors
/// candle's.
pub fn top1(embeddings: &Tensor, prompts: &Tensor, classes: &[usize]) -> Result<f64> {
    let best = embeddings
        .matmul(&prompts.t()?)?
        .argmax(1)?
        .to_vec1::<u32>()?;
    let right = best
        .iter()
        .zip(classes)
        .filter(|(b, c)| usize::try_from(**b).is_ok_and(|b| b == **c))
        .count();
    #[expect(clippy::cast_precision_loss, reason = "a photo count")]
    Ok(100.0 * right as f64 / classes.len().max(1) as f64)
}
