//! Both towers as a session learns them: epoch by epoch, measured on what is held out.

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use rand::rngs::StdRng;
use rand::{Rng, seq::SliceRandom};

use super::Towers;
use crate::train::descent::Learnable;
use crate::train::fit::examples::{Drawn, Photos, Said, Texts};
use crate::train::fit::maps::Maps;
use crate::train::fit::score::{Score, score};
use crate::train::fit::session::{Learner, Taken, steps};
use crate::train::fit::shown::{Batch, Goals};
use crate::train::fit::taught::{Seen, Taught};
use crate::train::targets::select;
use crate::train::tower::Learn;

impl Towers<'_> {
    /// Mean cosine to the teacher's embeddings, and the distance that is learnt to be short.
    fn measure_against(&self, taught: &Taught, photos: &Photos, texts: &Texts) -> Result<Score> {
        let rows = self.shown.measured_texts();
        let close = taught.closeness(&Seen {
            photos,
            texts,
            rows: &rows,
            image: self.tuning.image,
            text: self.tuning.text,
        })?;
        let images = photos.themselves()?;
        let goals = Goals {
            photos: taught.held_out.photos.themselves()?,
            texts: taught.texts(&rows)?,
            scale: taught.scale,
        };
        let mut loss = 0.0;
        for term in self.distance(&images, &select(&texts.rows, &rows)?, &goals)? {
            loss += f64::from(term.to_scalar::<f32>()?);
        }
        Ok(Score {
            accuracy: close.cosine(),
            loss,
        })
    }
}

impl Learner for Towers<'_> {
    fn learnables(&self) -> Vec<Learnable> {
        let mut learnables = Vec::new();
        for (tower, prefix) in [(&self.image, "image/"), (&self.text, "text/")] {
            let found = tower.iter().flat_map(|tower| tower.learnables(prefix));
            learnables.extend(found);
        }
        if self.has_bias() {
            learnables.push(Learnable::new("bias", &self.bias));
        }
        learnables
    }

    fn enter(&mut self, frozen: bool) -> Result<()> {
        let learn = match self.tuning.learn {
            _ if frozen => Learn::Projection,
            // What the frozen phase learnt goes on being learnt, and is kept with the adapters.
            Learn::Adapters(rank) if self.settings.frozen_epochs > 0 => {
                Learn::AdaptersAndProjection(rank)
            }
            learn => learn,
        };
        let seed = self.settings.seed;
        if let Some(image) = &mut self.image {
            image.learn(learn, seed).context("image.onnx")?;
        }
        if let Some(text) = &mut self.text {
            text.learn(learn, seed).context("text.onnx")?;
        }
        let rows = self.shown.measured_texts();
        self.tokenize(&rows)
    }

    fn steps(&self) -> usize {
        steps(self.shown.train.len(), self.settings.batch)
    }

    fn pass(&mut self, mut rng: StdRng, step: &mut Taken) -> Result<()> {
        let salt: u64 = rng.random();
        let shown = self.shown;
        let mut order = shown.train.to_vec();
        order.shuffle(&mut rng);
        let mut taken = 0;
        for part in order.chunks(self.settings.batch) {
            let known = shown.views.map_or(0, |views| views.count);
            let numbers: Vec<u8> = match shown.views {
                Some(_) => part.iter().map(|_| rng.random_range(0..=known)).collect(),
                None => Vec::new(),
            };
            let (pictures, read) = self.pictures(part, &numbers, salt)?;
            // A single photo would have nothing to be told from.
            if read.is_empty() || (read.len() == 1 && order.len() > 1) {
                continue;
            }
            let said: Vec<&Said> = read.iter().map(|at| &shown.said[part[*at]]).collect();
            let drawn = Drawn::draw(&said, shown.texts, &mut rng)?;
            self.tokenize(&drawn.texts)?;
            let goals = match shown.taught {
                None => None,
                Some(taught) => {
                    let views = read.iter().map(|at| (part[*at], numbers[*at]));
                    Some(Goals {
                        photos: taught.photos(&views.collect::<Vec<_>>())?,
                        texts: taught.texts(&drawn.texts)?,
                        scale: taught.scale,
                    })
                }
            };
            let batch = Batch {
                pictures,
                texts: drawn.texts,
                targets: drawn.targets,
                goals,
            };
            let (gradients, loss) = self.gradients(&batch)?;
            step(&gradients, loss)?;
            taken += 1;
        }
        ensure!(taken > 0, "none of {} photos can be read", order.len());
        Ok(())
    }

    fn measure(&self) -> Result<Score> {
        let (photos, texts) = self.held_out()?;
        if let Some(taught) = self.shown.taught.filter(|taught| taught.decides) {
            return self.measure_against(taught, &photos, &texts);
        }
        let unchanged = Maps::identity(photos.rows.dim(1)?, DType::F32)?;
        score(&photos, &texts, &unchanged, self.settings.logit_scale)
    }

    fn decides(&self) -> bool {
        true
    }
}
