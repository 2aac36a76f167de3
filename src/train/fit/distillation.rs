//! Losses that a teacher takes part in, and how they are weighted with the contrastive one.
//!
//! With unit embeddings `s` of the learnt towers and `t` of the teacher:
//!
//! - **MSE**: the mean over photos, or texts, of `‖s − t‖² = 2 − 2·cos(s, t)`. It is summed over the
//!   embedding's values, so that it does not depend on how many there are.
//! - **Affinity distillation** (Wu et al., TinyCLIP, ICCV 2023): for every photo of a batch the
//!   divergence `KL(softmax(c·⟨tᵢ, tⱼ⟩) ‖ softmax(b·⟨sᵢ, sⱼ⟩))` over the batch's texts `j`, the same for
//!   every text over the photos, and the mean of both; `c` and `b` are the logit scales. TinyCLIP has
//!   the cross-entropy, which differs by the teacher's own entropy: here a perfect student has 0.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::{log_softmax, softmax};

/// Weights of the losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Of [`super::loss::Loss`], which takes what belongs together from the data.
    pub contrast: f64,
    /// Of the distance to the teacher's embeddings.
    pub mse: f64,
    /// Of the divergence from the teacher's affinities.
    pub affinity: f64,
}

impl Default for Objective {
    /// Without a teacher.
    fn default() -> Self {
        Self {
            contrast: 1.0,
            mse: 0.0,
            affinity: 0.0,
        }
    }
}

impl Objective {
    /// Whether there has to be a teacher.
    pub fn is_taught(&self) -> bool {
        self.mse > 0.0 || self.affinity > 0.0
    }
}

/// Mean of `‖s − t‖²` over unit rows `[N, D]`.
///
/// # Errors
/// candle's.
pub fn mse(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    (student - teacher)?.sqr()?.sum(D::Minus1)?.mean_all()
}

/// Affinity distillation of logits `[N, M]` of N photos and M texts: cosines times the scale.
///
/// # Errors
/// candle's.
pub fn affinity(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let turned = |logits: &Tensor| logits.t()?.contiguous();
    let photos = divergence(student, teacher)?;
    let texts = divergence(&turned(student)?, &turned(teacher)?)?;
    (photos + texts)? * 0.5
}

/// Mean over rows of `KL(softmax(teacher) ‖ softmax(student))`.
fn divergence(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let goal = softmax(teacher, D::Minus1)?.detach();
    let ratio = (log_softmax(teacher, D::Minus1)?.detach() - log_softmax(student, D::Minus1)?)?;
    (goal * ratio)?.sum(D::Minus1)?.mean_all()
}
