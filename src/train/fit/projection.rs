//! The stage that learns one linear map behind each tower; the towers' embeddings are known.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use rand::rngs::StdRng;

use super::examples::{Batch, Photos, Texts};
use super::loss::Loss;
use super::maps::Maps;
use super::score::{Score, score};
use super::session::{Learner, Session, Settings, Taken, rng};
use crate::train::descent::Learnable;

/// Embedded photos to learn from and to measure with.
#[derive(Clone, Copy)]
pub struct Examples<'a> {
    /// To learn from.
    pub train: &'a Photos,
    /// To choose the epoch with; `None` keeps the last one.
    pub held_out: Option<&'a Photos>,
    /// What is said.
    pub texts: &'a Texts,
}

/// The maps, and what they are learnt from.
pub struct Projection<'a> {
    examples: Examples<'a>,
    settings: Settings,
    vars: [(&'static str, Var); 2],
    bias: Var,
}

impl<'a> Projection<'a> {
    /// A session that starts with maps that change nothing; with `checkpoint` the state is saved
    /// there after every epoch.
    ///
    /// # Errors
    /// Nothing to learn from, or candle's.
    pub fn session(
        examples: Examples<'a>,
        settings: Settings,
        checkpoint: Option<&Path>,
    ) -> Result<Session<Self>> {
        ensure!(
            !examples.train.is_empty(),
            "there is no photo to learn from"
        );
        let vars = Maps::identity(examples.train.rows.dim(1)?, DType::F32)?.variables()?;
        let projection = Self {
            examples,
            settings,
            vars,
            bias: Var::from_tensor(&Tensor::new(&[0f32], &Device::Cpu)?)?,
        };
        if settings.loss == Loss::Sigmoid {
            projection.bias.set(&projection.first_bias()?)?;
        }
        Session::new(projection, settings, checkpoint)
    }

    /// Puts the mean logit of a batch at 0.
    fn first_bias(&self) -> Result<Tensor> {
        let batches = self.batches(rng(self.settings.seed, 1));
        let batch = batches.into_iter().next().context("no batch")??;
        let cosines = batch.images.matmul(&batch.texts.t()?)?;
        Ok((cosines.mean_all()?.reshape(1)? * -self.settings.logit_scale)?)
    }

    /// The maps as they are now; gradients flow through them.
    fn maps(&self) -> Maps {
        Maps {
            image: self.vars[0].1.as_tensor().clone(),
            text: self.vars[1].1.as_tensor().clone(),
        }
    }

    /// The batches of an epoch.
    fn batches(&self, mut rng: StdRng) -> impl Iterator<Item = Result<Batch>> + use<'a> {
        let (photos, texts) = (self.examples.train, self.examples.texts);
        let views = photos.shuffled(&mut rng);
        // A single view would have nothing to be told from; it is drawn again in another epoch.
        let parts = views.chunks(self.settings.batch);
        let parts = parts.filter(|part| part.len() > 1 || views.len() == 1);
        let parts: Vec<_> = parts.map(<[_]>::to_vec).collect();
        let draw = move |views: Vec<_>| Batch::draw(photos, texts, &views, &mut rng);
        parts.into_iter().map(draw)
    }
}

impl Learner for Projection<'_> {
    fn learnables(&self) -> Vec<Learnable> {
        let maps = self.vars.iter();
        let mut learnables: Vec<_> = maps.map(|(name, var)| Learnable::new(name, var)).collect();
        if self.settings.loss == Loss::Sigmoid {
            learnables.push(Learnable::new("bias", &self.bias));
        }
        learnables
    }

    fn enter(&mut self, _frozen: bool) -> Result<()> {
        Ok(())
    }

    fn steps(&self) -> usize {
        let views = self.examples.train.views.iter();
        let rows: usize = views
            .map(|(_, count)| usize::try_from(*count).unwrap_or(0))
            .sum();
        super::session::steps(rows, self.settings.batch)
    }

    fn pass(&mut self, rng: StdRng, step: &mut Taken) -> Result<()> {
        for batch in self.batches(rng) {
            let batch = batch?;
            let maps = self.maps();
            let images = maps.images(&batch.images)?;
            let cosines = images.matmul(&maps.texts(&batch.texts)?.t()?)?;
            let (loss, scale) = (self.settings.loss, self.settings.logit_scale);
            let loss = batch
                .targets
                .loss(loss, &cosines, scale, self.bias.as_tensor())?;
            let whole = (&loss + (maps.distance()? * self.settings.strength)?)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            step(&whole.backward()?, value)?;
        }
        Ok(())
    }

    fn measure(&self) -> Result<Score> {
        let Some(photos) = self.examples.held_out else {
            let (accuracy, loss) = (0.0, 0.0);
            return Ok(Score { accuracy, loss });
        };
        let maps = self.maps();
        let maps = Maps {
            image: maps.image.detach(),
            text: maps.text.detach(),
        };
        let scale = self.settings.logit_scale;
        score(photos, self.examples.texts, &maps, scale)
    }

    fn decides(&self) -> bool {
        self.examples.held_out.is_some()
    }
}
