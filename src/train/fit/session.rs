//! Learning the maps, epoch by epoch; the best on held-out photos are kept.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use rand::{SeedableRng, rngs::StdRng};

use super::examples::{Batch, Photos, Texts};
use super::loss::Loss;
use super::maps::Maps;
use super::score::{Score, score};
use crate::train::descent::{Descent, Rule};
use crate::train::optimizer::{cosine, save};

/// How to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Passes over all views.
    pub epochs: usize,
    /// Views in a batch.
    pub batch: usize,
    /// Highest learning rate; reached after a tenth of the steps, then falling to 0 as a cosine.
    pub rate: f64,
    /// The optimizer's rule.
    pub rule: Rule,
    /// Adaptive gradient clipping.
    pub clip: Option<f32>,
    /// Which loss.
    pub loss: Loss,
    /// Weight `λ` of `‖A − 1‖²`.
    pub strength: f64,
    /// Linear factor before the softmax: the bundle's.
    pub logit_scale: f64,
    /// Random seed.
    pub seed: u64,
}

/// The curve after an epoch; epoch 0 is the bundle as it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Epochs done.
    pub epoch: usize,
    /// Mean loss of the epoch's batches without the pull towards the identity; of epoch 0 unknown.
    pub loss: Option<f64>,
    /// Held-out accuracy, 0–1.
    pub accuracy: f64,
    /// Held-out loss.
    pub held_out_loss: f64,
}

impl Point {
    /// What was measured on held-out photos.
    pub fn score(&self) -> Score {
        Score {
            accuracy: self.accuracy,
            loss: self.held_out_loss,
        }
    }
}

/// Embedded photos to learn from and to measure with.
pub struct Examples<'a> {
    /// To learn from.
    pub train: &'a Photos,
    /// To choose the epoch with; `None` keeps the last one.
    pub held_out: Option<&'a Photos>,
    /// What is said.
    pub texts: &'a Texts,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// From epoch 0 on.
    pub curve: Vec<Point>,
    /// Position in `curve` of the best epoch; 0 where nothing beat the bundle as it was.
    pub best: usize,
    /// The maps of the best epoch after 0.
    pub maps: Maps,
}

/// A run that can be interrupted after every epoch.
pub struct Session<'a> {
    examples: Examples<'a>,
    settings: Settings,
    vars: [(&'static str, Var); 2],
    bias: Var,
    descent: Descent,
    curve: Vec<Point>,
    /// The best maps after epoch 0, and their epoch.
    best: Option<(usize, Maps)>,
    checkpoint: Option<PathBuf>,
}

impl<'a> Session<'a> {
    /// Starts with maps that change nothing; with `checkpoint` the state is saved there after every
    /// epoch.
    ///
    /// # Errors
    /// Nothing to learn from, or candle's.
    pub fn new(
        examples: Examples<'a>,
        settings: Settings,
        checkpoint: Option<&Path>,
    ) -> Result<Self> {
        ensure!(
            !examples.train.is_empty(),
            "there is no photo to learn from"
        );
        ensure!(settings.batch > 1, "a batch has at least two photos");
        let vars = Maps::identity(examples.train.rows.dim(1)?, DType::F32)?.variables()?;
        let bias = Var::from_tensor(&Tensor::new(&[0f32], &Device::Cpu)?)?;
        let mut session = Self {
            descent: Descent::new(&[], settings.rule, settings.clip)?,
            examples,
            settings,
            vars,
            bias,
            curve: Vec::new(),
            best: None,
            checkpoint: checkpoint.map(Path::to_owned),
        };
        if settings.loss == Loss::Sigmoid {
            session.bias.set(&session.first_bias()?)?;
        }
        session.descent = Descent::new(&session.named(), settings.rule, settings.clip)?;
        let before = session.measure()?;
        session.curve.push(Point {
            epoch: 0,
            loss: None,
            accuracy: before.accuracy,
            held_out_loss: before.loss,
        });
        Ok(session)
    }

    /// What is learnt.
    fn named(&self) -> Vec<(&'static str, Var)> {
        let mut named = self.vars.to_vec();
        if self.settings.loss == Loss::Sigmoid {
            named.push(("bias", self.bias.clone()));
        }
        named
    }

    /// Puts the mean logit of a batch at 0.
    fn first_bias(&self) -> Result<Tensor> {
        let batch = self.batches(1).next().context("no batch")??;
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
        score(
            photos,
            self.examples.texts,
            &maps,
            self.settings.logit_scale,
        )
    }

    /// The batches of an epoch. They depend on the seed and the epoch alone, so that a resumed run
    /// draws the same.
    fn batches(&self, epoch: usize) -> impl Iterator<Item = Result<Batch>> + use<'a> {
        let seed = self.settings.seed ^ (epoch as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut rng = StdRng::seed_from_u64(seed);
        let (photos, texts) = (self.examples.train, self.examples.texts);
        let views = photos.shuffled(&mut rng);
        // A single view would have nothing to be told from; it is drawn again in another epoch.
        let parts = views.chunks(self.settings.batch);
        let parts = parts.filter(|part| part.len() > 1 || views.len() == 1);
        let parts: Vec<_> = parts.map(<[_]>::to_vec).collect();
        let draw = move |views: Vec<_>| Batch::draw(photos, texts, &views, &mut rng);
        parts.into_iter().map(draw)
    }

    /// The bundle as it was.
    pub fn first(&self) -> Point {
        self.curve[0]
    }

    /// Epochs done.
    pub fn epochs_done(&self) -> usize {
        self.curve.len() - 1
    }

    /// Steps of one epoch.
    pub fn steps(&self) -> usize {
        let views = self.examples.train.views.iter();
        let rows: usize = views
            .map(|(_, count)| usize::try_from(*count).unwrap_or(0))
            .sum();
        let (whole, rest) = (rows / self.settings.batch, rows % self.settings.batch);
        (whole + usize::from(rest > 1)).max(1)
    }

    /// One pass over all views; measures, keeps the best, saves.
    ///
    /// # Errors
    /// A loss that is not finite, candle's, or the checkpoint's file system.
    pub fn epoch(&mut self, step_done: &mut dyn FnMut(f64)) -> Result<Point> {
        let epoch = self.curve.len();
        let steps = self.steps();
        let total = self.settings.epochs * steps;
        let (mut sum, mut count) = (0.0, 0.0);
        for (at, batch) in self.batches(epoch).enumerate() {
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
            ensure!(value.is_finite(), "the loss is not finite: lower --rate");
            let done = (epoch - 1) * steps + at;
            let rate = self.settings.rate * cosine(done, total, total.div_ceil(10));
            #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
            self.descent.step(&whole.backward()?, rate as f32)?;
            sum += value;
            count += 1.0;
            step_done(value);
        }
        let score = self.measure()?;
        let point = Point {
            epoch,
            loss: Some(sum / f64::max(count, 1.0)),
            accuracy: score.accuracy,
            held_out_loss: score.loss,
        };
        self.curve.push(point);
        let kept = self
            .best
            .as_ref()
            .map(|(best, _)| self.curve[*best].score());
        if self.examples.held_out.is_none() || kept.is_none_or(|kept| score.beats(&kept)) {
            let maps = self.maps();
            let copy = |t: &Tensor| t.detach().copy();
            let maps = Maps {
                image: copy(&maps.image)?,
                text: copy(&maps.text)?,
            };
            self.best = Some((epoch, maps));
        }
        if let Some(path) = &self.checkpoint {
            self.save(path)?;
        }
        Ok(point)
    }

    /// All epochs that are left; `each` may stop it after any.
    ///
    /// # Errors
    /// As [`Self::epoch`].
    pub fn run(
        mut self,
        step_done: &mut dyn FnMut(f64),
        each: &mut dyn FnMut(&Point) -> ControlFlow<()>,
    ) -> Result<Learnt> {
        while self.curve.len() <= self.settings.epochs {
            let point = self.epoch(step_done)?;
            if each(&point).is_break() {
                break;
            }
        }
        let (epoch, maps) = self
            .best
            .context("no epoch was run; give --epochs at least 1")?;
        let better = self.curve[epoch].score().beats(&self.curve[0].score());
        Ok(Learnt {
            best: if better { epoch } else { 0 },
            curve: self.curve,
            maps,
        })
    }

    fn save(&self, path: &Path) -> Result<()> {
        let mut state = self.descent.state()?;
        if let Some((epoch, maps)) = &self.best {
            state.insert("best.image".to_owned(), maps.image.clone());
            state.insert("best.text".to_owned(), maps.text.clone());
            let epoch = Tensor::new(&[i64::try_from(*epoch)?], &Device::Cpu)?;
            state.insert("best.epoch".to_owned(), epoch);
        }
        let row = |p: &Point| vec![p.loss.unwrap_or(f64::NAN), p.accuracy, p.held_out_loss];
        let rows: Vec<Vec<f64>> = self.curve.iter().map(row).collect();
        state.insert("curve".to_owned(), Tensor::new(rows, &Device::Cpu)?);
        save(&state, path)
    }

    /// Takes up the state in the checkpoint, where there is one; returns the epochs done.
    ///
    /// # Errors
    /// A checkpoint that is damaged or of another run.
    pub fn resume(&mut self) -> Result<usize> {
        let Some(path) = self.checkpoint.clone().filter(|path| path.exists()) else {
            return Ok(0);
        };
        let state = candle_core::safetensors::load(&path, &Device::Cpu)?;
        self.take_up(&state).with_context(|| {
            let path = path.display();
            format!("{path} cannot be resumed; start again without --resume")
        })?;
        Ok(self.curve.len() - 1)
    }

    fn take_up(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let stored = |name: &str| state.get(name).with_context(|| format!("it lacks {name}"));
        let rows = stored("curve")?.to_vec2::<f64>()?;
        let point = |(epoch, row): (usize, Vec<f64>)| {
            let [loss, accuracy, held_out_loss] = row[..] else {
                bail!("a curve of {} columns", row.len())
            };
            Ok(Point {
                epoch,
                loss: (!loss.is_nan()).then_some(loss),
                accuracy,
                held_out_loss,
            })
        };
        let curve: Vec<Point> = rows
            .into_iter()
            .enumerate()
            .map(point)
            .collect::<Result<_>>()?;
        ensure!(
            curve.first() == self.curve.first(),
            "it is of another run: the photos were not the same"
        );
        self.descent.restore(state)?;
        let epoch = *stored("best.epoch")?
            .to_vec1::<i64>()?
            .first()
            .context("no epoch")?;
        let epoch = usize::try_from(epoch)?;
        ensure!(epoch < curve.len(), "its best epoch is {epoch}");
        let map = |name: &str| -> Result<Tensor> {
            let map = stored(name)?.clone();
            ensure!(
                map.dims() == self.vars[0].1.dims(),
                "{name} has another shape"
            );
            Ok(map)
        };
        let maps = Maps {
            image: map("best.image")?,
            text: map("best.text")?,
        };
        self.best = Some((epoch, maps));
        self.curve = curve;
        Ok(())
    }
}
