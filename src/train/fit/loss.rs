//! Contrastive losses where a photo may fit several texts and a text several photos.
//!
//! Both take cosines `[N, M]` of N photos and M texts, and what belongs together ([`Relation`]).
//! With `s` the logit scale:
//!
//! - **InfoNCE** (van den Oord et al., 2018; symmetric as in CLIP): for every photo the divergence
//!   `KL(q ‖ softmax(s·cos))`, where `q` is the same for all of its texts and 0 for others; the same
//!   for every text that has a photo in the batch; the mean of both. With one partner each it is
//!   CLIP's cross-entropy; with several its smallest value is still 0.
//! - **Sigmoid** (SigLIP, Zhai et al., ICCV 2023): `−log σ(±(s·cos + b))` of every pair, summed over
//!   the texts and averaged over the photos, `b` being learnt along and then forgotten.

use candle_core::{D, Device, Result, Tensor};

use crate::train::head::cross_entropy;

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Symmetric, softmax.
    InfoNce,
    /// Every pair by itself.
    Sigmoid,
}

/// How photo and text stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They belong together.
    Same,
    /// They do not.
    Other,
    /// Nobody said; the pair is left out.
    Unknown,
}

/// What belongs together in a batch of N photos and M texts.
pub struct Targets {
    /// `[N, M]`: 1 where they belong together.
    same: Tensor,
    /// `[N, M]`: 1 where it is known whether they do.
    known: Tensor,
    photos: Side,
    texts: Side,
}

/// One direction of InfoNCE: goals and masks, rows that have a partner only.
struct Side {
    rows: Tensor,
    goals: Tensor,
    mask: Tensor,
    /// Mean entropy of the goals.
    entropy: f64,
}

/// Added to logits that stay out.
const OUT: f32 = -1e4;

impl Targets {
    /// From `relation(photo, text)`.
    ///
    /// # Errors
    /// candle's.
    pub fn new(
        (photos, texts): (usize, usize),
        relation: impl Fn(usize, usize) -> Relation,
    ) -> Result<Self> {
        let table = |value: &dyn Fn(Relation) -> f32| {
            let pairs = (0..photos).flat_map(|p| (0..texts).map(move |t| (p, t)));
            let values = pairs.map(|(p, t)| value(relation(p, t)));
            Tensor::from_vec(values.collect::<Vec<f32>>(), (photos, texts), &Device::Cpu)
        };
        Ok(Self {
            same: table(&|r| f32::from(u8::from(r == Relation::Same)))?,
            known: table(&|r| f32::from(u8::from(r != Relation::Unknown)))?,
            photos: Side::new(photos, texts, &relation)?,
            texts: Side::new(texts, photos, |t, p| relation(p, t))?,
        })
    }

    /// The loss of `cosines [N, M]` at logit scale `scale`; `bias [1]` is for [`Loss::Sigmoid`].
    ///
    /// # Errors
    /// candle's.
    pub fn loss(&self, loss: Loss, cosines: &Tensor, scale: f64, bias: &Tensor) -> Result<Tensor> {
        let logits = (cosines * scale)?;
        let kind = logits.dtype();
        if loss == Loss::InfoNce {
            let photos = self.photos.divergence(&logits)?;
            let texts = self.texts.divergence(&logits.t()?.contiguous()?)?;
            return (photos + texts)? * 0.5;
        }
        let same = self.same.to_dtype(kind)?;
        let sign = ((&same * 2.0)? - 1.0)?;
        let agreement = logits.broadcast_add(bias)?.mul(&sign)?;
        // −log σ(x) = max(−x, 0) + log(1 + exp(−|x|))
        let each = (agreement.neg()?.relu()? + (agreement.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
        (each * self.known.to_dtype(kind)?)?
            .sum(D::Minus1)?
            .mean_all()
    }
}

impl Side {
    #[expect(clippy::cast_precision_loss, reason = "partners in a batch")]
    fn new(n: usize, m: usize, relation: impl Fn(usize, usize) -> Relation) -> Result<Self> {
        let (mut rows, mut goals, mut mask) = (Vec::new(), Vec::new(), Vec::new());
        let mut entropy = 0.0;
        for row in 0..n {
            let relations: Vec<Relation> = (0..m).map(|column| relation(row, column)).collect();
            let partners = relations.iter().filter(|r| **r == Relation::Same).count();
            if partners == 0 {
                continue;
            }
            rows.push(u32::try_from(row).map_err(candle_core::Error::wrap)?);
            entropy += (partners as f64).ln();
            let share = 1.0 / partners as f32;
            goals.extend(relations.iter().map(|r| match r {
                Relation::Same => share,
                _ => 0.0,
            }));
            mask.extend(relations.iter().map(|r| match r {
                Relation::Unknown => OUT,
                _ => 0.0,
            }));
        }
        let count = rows.len();
        Ok(Self {
            goals: Tensor::from_vec(goals, (count, m), &Device::Cpu)?,
            mask: Tensor::from_vec(mask, (count, m), &Device::Cpu)?,
            rows: Tensor::from_vec(rows, count, &Device::Cpu)?,
            entropy: entropy / count.max(1) as f64,
        })
    }

    fn divergence(&self, logits: &Tensor) -> Result<Tensor> {
        let kind = logits.dtype();
        if self.rows.elem_count() == 0 {
            return Tensor::zeros((), kind, &Device::Cpu);
        }
        let logits = logits.index_select(&self.rows, 0)?;
        let goals = self.goals.to_dtype(kind)?;
        cross_entropy(&logits, &goals, Some(&self.mask.to_dtype(kind)?))? - self.entropy
    }
}
