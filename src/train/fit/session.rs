//! Learning epoch by epoch: the best state on held-out photos is kept, and every epoch is saved.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};

use super::distillation::Objective;
use super::loss::Loss;
use super::score::Score;
use crate::train::descent::{Descent, Learnable, Rule};
use crate::train::optimizer::{cosine, save};

/// How to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Passes over all views, frozen ones included.
    pub epochs: usize,
    /// Views in a batch.
    pub batch: usize,
    /// Highest learning rate; reached after a tenth of the steps, then falling to 0 as a cosine.
    pub rate: f64,
    /// The optimizer's rule.
    pub rule: Rule,
    /// Adaptive gradient clipping.
    pub clip: Option<f32>,
    /// Which contrastive loss.
    pub loss: Loss,
    /// Weights of it and of a teacher's losses.
    pub objective: Objective,
    /// Epochs at the beginning in which the towers' last products are learnt alone.
    pub frozen_epochs: usize,
    /// Highest learning rate of those.
    pub frozen_rate: f64,
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

/// What a session learns.
pub trait Learner {
    /// What can be learnt in a phase. Names and shapes in the order of a checkpoint.
    fn learnables(&self) -> Vec<Learnable>;

    /// Enters a phase: `frozen` leaves everything but the last products as it is.
    ///
    /// # Errors
    /// candle's.
    fn enter(&mut self, frozen: bool) -> Result<()>;

    /// Steps of one epoch.
    fn steps(&self) -> usize;

    /// One pass, with what [`rng`] draws for this epoch; every batch's gradients and loss go to
    /// `step`.
    ///
    /// # Errors
    /// Photos that cannot be read at all, candle's, or those of `step`.
    fn pass(&mut self, rng: StdRng, step: &mut Taken) -> Result<()>;

    /// Measures on held-out photos, as well as can be without them.
    ///
    /// # Errors
    /// candle's.
    fn measure(&self) -> Result<Score>;

    /// Whether there are held-out photos, whose score decides what is kept; otherwise the last epoch
    /// is.
    fn decides(&self) -> bool;
}

/// Takes a batch's gradients and its loss.
pub type Taken<'a> = dyn FnMut(&GradStore, f64) -> Result<()> + 'a;

/// What came out.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// From epoch 0 on.
    pub curve: Vec<Point>,
    /// Position in `curve` of the best epoch; 0 where nothing beat the bundle as it was.
    pub best: usize,
    /// The epoch after 0 that was best.
    pub kept: usize,
    /// What was learnt, as it was then.
    pub values: HashMap<String, Tensor>,
}

/// A run that can be interrupted after every epoch.
pub struct Session<L> {
    learner: L,
    settings: Settings,
    descent: Descent,
    /// Whether the phase is the frozen one.
    frozen: bool,
    curve: Vec<Point>,
    /// The best values after epoch 0, and their epoch.
    best: Option<(usize, HashMap<String, Tensor>)>,
    checkpoint: Option<PathBuf>,
}

/// The random numbers of an epoch. They depend on the seed and the epoch alone, so that a resumed run
/// draws the same.
pub fn rng(seed: u64, epoch: usize) -> StdRng {
    StdRng::seed_from_u64(seed ^ (epoch as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Steps that `rows` views in batches make: a last single view has nothing to be told from.
pub fn steps(rows: usize, batch: usize) -> usize {
    let (whole, rest) = (rows / batch, rows % batch);
    (whole + usize::from(rest > 1)).max(1)
}

impl<L: Learner> Session<L> {
    /// Starts with what `learner` is; with `checkpoint` the state is saved there after every epoch.
    ///
    /// # Errors
    /// Settings that cannot be, or candle's.
    pub fn new(mut learner: L, settings: Settings, checkpoint: Option<&Path>) -> Result<Self> {
        ensure!(settings.batch > 1, "a batch has at least two photos");
        ensure!(
            settings.frozen_epochs <= settings.epochs,
            "{} of {} epochs are frozen",
            settings.frozen_epochs,
            settings.epochs
        );
        let frozen = settings.frozen_epochs > 0;
        learner.enter(frozen)?;
        let before = learner.measure()?;
        Ok(Self {
            descent: Descent::new(&learner.learnables(), settings.rule, settings.clip)?,
            learner,
            settings,
            frozen,
            curve: vec![Point {
                epoch: 0,
                loss: None,
                accuracy: before.accuracy,
                held_out_loss: before.loss,
            }],
            best: None,
            checkpoint: checkpoint.map(Path::to_owned),
        })
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
        self.learner.steps()
    }

    /// Enters the phase of `epoch`; the optimizer then begins anew.
    fn enter(&mut self, epoch: usize) -> Result<()> {
        let frozen = epoch <= self.settings.frozen_epochs;
        if frozen != self.frozen {
            self.frozen = frozen;
            self.learner.enter(frozen)?;
            let (rule, clip) = (self.settings.rule, self.settings.clip);
            self.descent = Descent::new(&self.learner.learnables(), rule, clip)?;
        }
        Ok(())
    }

    /// Highest rate, first epoch and number of epochs of the phase.
    fn phase(&self) -> (f64, usize, usize) {
        let frozen = self.settings.frozen_epochs;
        if self.frozen {
            (self.settings.frozen_rate, 1, frozen)
        } else {
            (
                self.settings.rate,
                frozen + 1,
                self.settings.epochs - frozen,
            )
        }
    }

    /// One pass over all views; measures, keeps the best, saves.
    ///
    /// # Errors
    /// A loss that is not finite, candle's, or the checkpoint's file system.
    pub fn epoch(&mut self, step_done: &mut dyn FnMut(f64)) -> Result<Point> {
        let epoch = self.curve.len();
        self.enter(epoch)?;
        let steps = self.steps();
        let (highest, first, epochs) = self.phase();
        let total = epochs * steps;
        let mut done = (epoch - first) * steps;
        let (mut sum, mut count) = (0.0, 0.0);
        let descent = &mut self.descent;
        let mut step = |gradients: &GradStore, loss: f64| {
            ensure!(loss.is_finite(), "the loss is not finite: lower --rate");
            let rate = highest * cosine(done, total, total.div_ceil(10));
            #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
            descent.step(gradients, rate as f32)?;
            done += 1;
            sum += loss;
            count += 1.0;
            step_done(loss);
            Ok(())
        };
        let rng = rng(self.settings.seed, epoch);
        self.learner.pass(rng, &mut step)?;
        let score = self.learner.measure()?;
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
        if !self.learner.decides() || kept.is_none_or(|kept| score.beats(&kept)) {
            let copy = |l: Learnable| Ok((l.name, l.var.as_detached_tensor().copy()?));
            let values = self.learner.learnables().into_iter().map(copy);
            self.best = Some((epoch, values.collect::<Result<_>>()?));
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
    ) -> Result<(Learnt, L)> {
        while self.curve.len() <= self.settings.epochs {
            let point = self.epoch(step_done)?;
            if each(&point).is_break() {
                break;
            }
        }
        let (epoch, values) = self
            .best
            .context("no epoch was run; give --epochs at least 1")?;
        let better = self.curve[epoch].score().beats(&self.curve[0].score());
        let learnt = Learnt {
            best: if better { epoch } else { 0 },
            kept: epoch,
            curve: self.curve,
            values,
        };
        Ok((learnt, self.learner))
    }

    fn save(&self, path: &Path) -> Result<()> {
        let mut state = self.descent.state()?;
        if let Some((epoch, values)) = &self.best {
            let values = values.iter().map(|(n, v)| (format!("best.{n}"), v.clone()));
            state.extend(values);
            let epoch = Tensor::new(&[i64::try_from(*epoch)?], &Device::Cpu)?;
            state.insert("epoch.best".to_owned(), epoch);
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
        let done = curve.len() - 1;
        ensure!(
            done <= self.settings.epochs,
            "it has {done} epochs, of {}",
            self.settings.epochs
        );
        self.enter(done.max(1))?;
        self.descent.restore(state)?;
        let epoch = *stored("epoch.best")?
            .to_vec1::<i64>()?
            .first()
            .context("no epoch")?;
        let epoch = usize::try_from(epoch)?;
        ensure!((1..=done).contains(&epoch), "its best epoch is {epoch}");
        let values = state.iter();
        let values: HashMap<String, Tensor> = values
            .filter_map(|(name, value)| {
                Some((name.strip_prefix("best.")?.to_owned(), value.clone()))
            })
            .collect();
        ensure!(!values.is_empty(), "it lacks what was best");
        self.best = Some((epoch, values));
        self.curve = curve;
        Ok(())
    }
}
