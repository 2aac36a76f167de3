//! The loss of a batch, and its gradient.

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::Towers;
use crate::train::fit::distillation;
use crate::train::fit::shown::{Batch, Goals, Pictures};
use crate::train::tower::Track;

impl Towers<'_> {
    /// The batch's loss, given the embeddings.
    fn loss(&self, images: &Tensor, texts: &Tensor, batch: &Batch) -> Result<Tensor> {
        let mut terms = Vec::new();
        let (weights, scale) = (self.settings.objective, self.settings.logit_scale);
        if weights.contrast > 0.0 {
            let cosines = images.matmul(&texts.t()?)?;
            let (loss, bias) = (self.settings.loss, self.bias.as_tensor());
            let loss = batch.targets.loss(loss, &cosines, scale, bias)?;
            terms.push((loss * weights.contrast)?);
        }
        if let Some(goals) = &batch.goals {
            terms.extend(self.distance(images, texts, goals)?);
        }
        let sum = terms.into_iter().map(Ok).reduce(|sum, term| sum? + term?);
        Ok(sum.context("no loss has a weight")??)
    }

    /// Weighted terms of the distance to a teacher.
    pub(super) fn distance(
        &self,
        images: &Tensor,
        texts: &Tensor,
        goals: &Goals,
    ) -> Result<Vec<Tensor>> {
        let mut terms = Vec::new();
        let (weights, scale) = (self.settings.objective, self.settings.logit_scale);
        if weights.mse > 0.0 {
            let photos = (self.tuning.image, images, &goals.photos);
            for (learnt, own, goal) in [photos, (self.tuning.text, texts, &goals.texts)] {
                if learnt {
                    terms.push((distillation::mse(own, goal)? * weights.mse)?);
                }
            }
        }
        if weights.affinity > 0.0 {
            let logits = (images.matmul(&texts.t()?)? * scale)?;
            let loss = distillation::affinity(&logits, &goals.logits()?)?;
            terms.push((loss * weights.affinity)?);
        }
        Ok(terms)
    }

    /// The gradient of the batch's loss, and the loss.
    pub(super) fn gradients(&self, batch: &Batch) -> Result<(GradStore, f64)> {
        let chunk = self.tuning.chunk;
        let inputs = match &batch.pictures {
            Pictures::Read(inputs) => &inputs[..],
            Pictures::Known(_) => &[],
        };
        let texts = &batch.texts[..];
        if inputs.len() <= chunk && texts.len() <= chunk {
            let images = match &batch.pictures {
                Pictures::Read(inputs) => self.embed_images(inputs, Track::Gradients)?,
                Pictures::Known(rows) => rows.clone(),
            };
            let texts = self.embed_texts(texts, Track::Gradients)?;
            let loss = self.loss(&images, &texts, batch)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            return Ok((loss.backward()?, value));
        }
        let images = match &batch.pictures {
            Pictures::Read(inputs) => self.in_chunks(inputs, Self::embed_images)?,
            Pictures::Known(rows) => rows.clone(),
        };
        let images = Var::from_tensor(&images)?;
        let texts_var = Var::from_tensor(&self.in_chunks(texts, Self::embed_texts)?)?;
        let loss = self.loss(images.as_tensor(), texts_var.as_tensor(), batch)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let mut gradients = loss.backward()?;
        let mut take = |var: &Var| gradients.remove(var);
        let (at_images, at_texts) = (take(&images), take(&texts_var));
        let nothing = "the loss has no gradient";
        if self.tuning.image {
            let at = at_images.context(nothing)?;
            self.back(inputs, Self::embed_images, &at, &mut gradients)?;
        }
        if self.tuning.text {
            let at = at_texts.context(nothing)?;
            self.back(texts, Self::embed_texts, &at, &mut gradients)?;
        }
        Ok((gradients, value))
    }

    /// Takes the gradient `at` the embeddings of `all` back through a tower, chunk by chunk.
    fn back<T>(
        &self,
        all: &[T],
        embed: impl Fn(&Self, &[T], Track) -> Result<Tensor>,
        at: &Tensor,
        gradients: &mut GradStore,
    ) -> Result<()> {
        let mut first = 0;
        for part in all.chunks(self.tuning.chunk) {
            let embeddings = embed(self, part, Track::Gradients)?;
            let at = at.narrow(0, first, part.len())?;
            gradients.extend((embeddings * at)?.sum_all()?.backward()?)?;
            first += part.len();
        }
        Ok(())
    }
}
