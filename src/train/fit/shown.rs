//! What the stages that learn the towers themselves learn from, and batches of it.

use anyhow::Result;
use candle_core::Tensor;

use super::embed::Known;
use super::examples::{Said, Texts};
use super::gather::Side;
use super::loss::Targets;
use super::taught::Taught;
use crate::bundle::Bundle;
use crate::encoder::ModelInput;
use crate::train::data::Dataset;

/// What is learnt from and measured with.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The bundle as it was.
    pub bundle: &'a Bundle,
    /// The photos.
    pub dataset: &'a Dataset,
    /// What is said of each item.
    pub said: &'a [Said],
    /// Positions of the items to learn from.
    pub train: &'a [usize],
    /// Photos that are held out, embedded by the bundle as it was.
    pub held_out: &'a Side,
    /// Texts, embedded by the bundle as it was.
    pub texts: &'a Texts,
    /// The views that are learnt from, where something that is not learnt was run on them; otherwise
    /// every epoch has fresh ones.
    pub views: Option<Known>,
    /// Those views, embedded by the bundle as it was, where its image tower is not learnt.
    pub seen: Option<&'a Side>,
    /// What a teacher makes of those views and of the texts.
    pub taught: Option<&'a Taught>,
}

impl Shown<'_> {
    /// Rows of the texts that held-out photos are measured with.
    pub fn measured_texts(&self) -> Vec<u32> {
        self.texts.measured(self.held_out.photos.said.iter())
    }
}

/// Which view of a photo is taken.
pub(super) enum Draw<'a> {
    /// The photo itself.
    Plain,
    /// A fresh one, by this number.
    Fresh(u64),
    /// A known one of each photo.
    Known(Known, &'a [u8]),
}

/// Pictures of a batch.
pub(super) enum Pictures {
    /// To go through the image tower.
    Read(Vec<ModelInput>),
    /// Unit rows `[N, D]` of an image tower that is not learnt.
    Known(Tensor),
}

/// A batch of a step.
pub(super) struct Batch {
    pub pictures: Pictures,
    /// Rows of [`Shown::texts`].
    pub texts: Vec<u32>,
    pub targets: Targets,
    /// The teacher's.
    pub goals: Option<Goals>,
}

/// What a teacher makes of a batch: unit rows.
pub(super) struct Goals {
    /// `[N, D]`.
    pub photos: Tensor,
    /// `[M, D]`.
    pub texts: Tensor,
    /// Its logit scale.
    pub scale: f64,
}

impl Goals {
    /// The teacher's logits `[N, M]`.
    pub fn logits(&self) -> Result<Tensor> {
        Ok((self.photos.matmul(&self.texts.t()?)? * self.scale)?)
    }
}
