//! The stages that learn the towers themselves, on fresh views of the photos in every epoch.
//!
//! A batch larger than [`super::tuning::Tuning::chunk`] goes through the towers twice (gradient
//! caching: Gao et al., RepL4NLP 2021): once without being remembered, for the embeddings and the
//! loss's gradient at them; then chunk by chunk, each taking its part of that gradient back through
//! the tower. The gradient is that of the whole batch, the memory that of one chunk.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng, seq::SliceRandom};

use super::cache::key;
use super::examples::{Drawn, Photos, Said, Texts};
use super::gather::Side;
use super::loss::{Loss, Targets};
use super::maps::Maps;
use super::outcome::Embedded;
use super::score::{Score, score};
use super::session::{Learner, Settings, Taken, steps};
use super::tuning::{Compute, Tuning, Views};
use crate::bundle::Bundle;
use crate::config::Shape;
use crate::encoder::{ModelInput, Padded, TextInput, Tokens};
use crate::preprocess::Preprocessor;
use crate::train::data::{Dataset, Item, Skips, photos};
use crate::train::descent::Learnable;
use crate::train::onnx::Model;
use crate::train::targets::select;
use crate::train::tower::{Learn, Tower, Track};

/// Held-out photos that are looked at after every epoch at most.
const MAX_HELD_OUT: usize = 2000;

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
}

/// Both towers, and what they are learnt from.
pub struct Towers<'a> {
    shown: Shown<'a>,
    settings: Settings,
    tuning: Tuning,
    image: Tower,
    /// Nothing where the text tower is not learnt: its embeddings are known then.
    text: Option<Tower>,
    bias: Var,
    preprocessor: Preprocessor,
    input: TextInput,
    /// Tokens of every text that was needed.
    tokens: HashMap<u32, Tokens>,
    /// Photos that could not be read.
    pub skipped: Skips,
}

impl<'a> Towers<'a> {
    /// Reads the bundle's towers.
    ///
    /// # Errors
    /// A tower that cannot be learnt through; the message says what to use instead.
    pub fn new(shown: Shown<'a>, settings: Settings, tuning: Tuning) -> Result<Self> {
        ensure!(tuning.image || tuning.text, "no tower is learnt");
        ensure!(tuning.chunk > 0, "a chunk has at least one photo");
        let (device, kind) = tuning.compute.open()?;
        let open = |name: &str| -> Result<Tower> {
            let listed = shown.bundle.manifest().files.get(name);
            let listed = listed.with_context(|| format!("the bundle has no {name}"))?;
            let bytes = shown.bundle.read(name, listed.bytes)?;
            Tower::read(bytes, &device, kind)
                .with_context(|| format!("{name} cannot be learnt through; use --stage projection"))
        };
        let mut towers = Self {
            image: open("image.onnx")?,
            text: tuning.text.then(|| open("text.onnx")).transpose()?,
            bias: Var::from_tensor(&Tensor::new(&[0f32], &Device::Cpu)?)?,
            preprocessor: Preprocessor::new(&shown.bundle.manifest().image),
            input: TextInput::load(shown.bundle)?,
            tokens: HashMap::new(),
            skipped: Skips::default(),
            shown,
            settings,
            tuning,
        };
        towers.enter(settings.frozen_epochs > 0)?;
        if settings.loss == Loss::Sigmoid {
            // As SigLIP begins: every pair is expected not to belong together.
            towers.bias.set(&Tensor::new(&[-10f32], &Device::Cpu)?)?;
        }
        Ok(towers)
    }

    /// The towers with what a session learnt in its last phase (or, `whole` being false, in the
    /// frozen one), as they will be written, and what they make of the held-out photos.
    ///
    /// # Errors
    /// Values of other towers, or candle's.
    pub fn tuned(
        shown: Shown<'a>,
        settings: Settings,
        tuning: Tuning,
        values: &HashMap<String, Tensor>,
        whole: bool,
    ) -> Result<([Option<Box<Model>>; 2], Embedded)> {
        // Measured where and as the daemon computes.
        let tuning = Tuning {
            compute: Compute::Cpu,
            ..tuning
        };
        let mut towers = Self::new(shown, settings, tuning)?;
        towers.enter(!whole)?;
        towers.image.set("image/", values)?;
        towers.image.settle()?;
        if let Some(text) = &mut towers.text {
            text.set("text/", values)?;
            text.settle()?;
        }
        let (photos, texts) = towers.held_out()?;
        let after = Embedded::plain(photos, texts)?;
        let image = tuning.image.then_some(towers.image);
        let model = |tower: Option<Tower>| -> Result<_> {
            Ok(tower.map(Tower::into_model).transpose()?.map(Box::new))
        };
        Ok(([model(image)?, model(towers.text)?], after))
    }

    /// Views of photos as the image tower takes them, `None` for those that cannot be read.
    fn inputs(
        &self,
        items: &[usize],
        views: Views,
        salt: u64,
    ) -> Result<(Vec<Option<ModelInput>>, Skips)> {
        let items: Vec<&Item> = items
            .iter()
            .map(|i| &self.shown.dataset.items[*i])
            .collect();
        let size_px = u32::try_from(self.shown.bundle.manifest().image.size_px)?;
        let preprocessor = &self.preprocessor;
        photos::decode(&items, |at, photo| {
            let name = items[at].name.as_bytes();
            let seed = key(&[b"tower view", &salt.to_le_bytes(), name]);
            let view = views.draw(&photo, size_px, StdRng::from_seed(seed));
            let view = view.as_ref().unwrap_or(&photo);
            Ok(preprocessor.prepare(view, &Shape::Full)?)
        })
    }

    fn tokenize(&mut self, rows: &[u32]) -> Result<()> {
        if self.text.is_none() {
            return Ok(());
        }
        for row in rows {
            if !self.tokens.contains_key(row) {
                let text = &self.shown.texts.strings[usize::try_from(*row)?];
                self.tokens.insert(*row, self.input.tokenize(text)?);
            }
        }
        Ok(())
    }

    /// Texts by row, padded to the longest of them; their tokens are known.
    fn padded(&self, rows: &[u32]) -> Result<Vec<Padded>> {
        let tokens: Option<Vec<&Tokens>> = rows.iter().map(|row| self.tokens.get(row)).collect();
        let tokens = tokens.context("a text was not split into tokens")?;
        let longest = tokens.iter().map(|t| t.ids().len()).max().unwrap_or(0);
        let padded = tokens.iter().map(|t| self.input.padded_beside(t, longest));
        Ok(padded.collect())
    }

    fn embed_images(&self, inputs: &[&ModelInput], track: Track) -> Result<Tensor> {
        self.image.images(inputs, track)
    }

    fn embed_texts(&self, rows: &[u32], track: Track) -> Result<Tensor> {
        match &self.text {
            Some(tower) => tower.texts(&self.padded(rows)?, track),
            None => Ok(select(&self.shown.texts.rows, rows)?),
        }
    }

    /// Embeddings chunk by chunk, not remembered.
    fn in_chunks<T>(
        &self,
        all: &[T],
        embed: impl Fn(&Self, &[T], Track) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let parts = all.chunks(self.tuning.chunk);
        let parts: Vec<Tensor> = parts
            .map(|part| Ok(embed(self, part, Track::Nothing)?.detach()))
            .collect::<Result<_>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    fn loss(&self, images: &Tensor, texts: &Tensor, targets: &Targets) -> Result<Tensor> {
        let cosines = images.matmul(&texts.t()?)?;
        let (loss, scale) = (self.settings.loss, self.settings.logit_scale);
        Ok(targets.loss(loss, &cosines, scale, self.bias.as_tensor())?)
    }

    /// The gradient of the batch's loss, and the loss.
    fn gradients(
        &self,
        inputs: &[&ModelInput],
        texts: &[u32],
        targets: &Targets,
    ) -> Result<(GradStore, f64)> {
        let chunk = self.tuning.chunk;
        if inputs.len() <= chunk && texts.len() <= chunk {
            let images = self.embed_images(inputs, Track::Gradients)?;
            let texts = self.embed_texts(texts, Track::Gradients)?;
            let loss = self.loss(&images, &texts, targets)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            return Ok((loss.backward()?, value));
        }
        let images = Var::from_tensor(&self.in_chunks(inputs, Self::embed_images)?)?;
        let texts_var = Var::from_tensor(&self.in_chunks(texts, Self::embed_texts)?)?;
        let loss = self.loss(images.as_tensor(), texts_var.as_tensor(), targets)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let mut gradients = loss.backward()?;
        let mut take = |var: &Var| gradients.remove(var).context("the loss has no gradient");
        let (at_images, at_texts) = (take(&images)?, take(&texts_var)?);
        if self.tuning.image {
            self.back(inputs, Self::embed_images, &at_images, &mut gradients)?;
        }
        if self.tuning.text {
            self.back(texts, Self::embed_texts, &at_texts, &mut gradients)?;
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

    /// Rows of the texts that held-out photos are measured with.
    pub fn measured_texts(&self) -> Vec<u32> {
        let texts = self.shown.texts;
        let mut rows: BTreeSet<u32> = texts.classes.iter().flatten().copied().collect();
        rows.extend(&texts.negatives);
        let said = self.held_out_said();
        rows.extend(said.iter().flat_map(|said| &said.captions));
        rows.into_iter().collect()
    }

    fn held_out_said(&self) -> &[Said] {
        let said = &self.shown.held_out.photos.said;
        &said[..said.len().min(MAX_HELD_OUT)]
    }

    /// Held-out photos and the texts they are measured with, embedded by the towers as they are; rows
    /// of other texts are 0.
    ///
    /// # Errors
    /// A photo that cannot be read any more, or candle's.
    pub fn held_out(&self) -> Result<(Photos, Texts)> {
        let said = self.held_out_said();
        let items = &self.shown.held_out.items[..said.len()];
        let mut rows = Vec::new();
        for part in items.chunks(self.tuning.chunk) {
            let (inputs, _) = self.inputs(part, Views::Plain, 0)?;
            let inputs: Option<Vec<&ModelInput>> = inputs.iter().map(Option::as_ref).collect();
            let inputs =
                inputs.context("held-out photos changed while it was learnt; start again")?;
            rows.push(self.embed_images(&inputs, Track::Nothing)?.detach());
        }
        let photos = Photos {
            rows: Tensor::cat(&rows, 0)?,
            views: (0u32..).map(|row| (row, 1)).take(said.len()).collect(),
            said: said.to_vec(),
        };
        let mut texts = self.shown.texts.clone();
        if self.text.is_some() {
            let rows = self.measured_texts();
            let known = self.in_chunks(&rows, Self::embed_texts)?;
            let empty = texts.rows.zeros_like()?;
            let at = Tensor::new(&rows[..], &Device::Cpu)?;
            texts.rows = empty.index_add(&at, &known, 0)?;
        }
        Ok((photos, texts))
    }
}

impl Learner for Towers<'_> {
    fn learnables(&self) -> Vec<Learnable> {
        let mut learnables = self.image.learnables("image/");
        if let Some(text) = &self.text {
            learnables.extend(text.learnables("text/"));
        }
        if self.settings.loss == Loss::Sigmoid {
            learnables.push(Learnable::new("bias", &self.bias));
        }
        learnables
    }

    fn enter(&mut self, frozen: bool) -> Result<()> {
        let learn = if frozen {
            Learn::Projection
        } else {
            self.tuning.learn
        };
        let (image, seed) = (self.tuning.image, self.settings.seed);
        self.image
            .learn(if image { learn } else { Learn::Nothing }, seed)
            .context("image.onnx")?;
        if let Some(text) = &mut self.text {
            text.learn(learn, seed).context("text.onnx")?;
        }
        let rows = self.measured_texts();
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
            let (inputs, skips) = self.inputs(part, self.tuning.views, salt)?;
            for skip in skips.first() {
                if !self.skipped.first().iter().any(|s| s.name == skip.name) {
                    self.skipped.add(&skip.name, &skip.reason);
                }
            }
            let read = inputs.iter().zip(part);
            let read = read.filter_map(|(input, item)| Some((input.as_ref()?, *item)));
            let (inputs, items): (Vec<&ModelInput>, Vec<usize>) = read.unzip();
            // A single photo would have nothing to be told from.
            if inputs.is_empty() || (inputs.len() == 1 && order.len() > 1) {
                continue;
            }
            let said: Vec<&Said> = items.iter().map(|item| &shown.said[*item]).collect();
            let drawn = Drawn::draw(&said, shown.texts, &mut rng)?;
            self.tokenize(&drawn.texts)?;
            let (gradients, loss) = self.gradients(&inputs, &drawn.texts, &drawn.targets)?;
            step(&gradients, loss)?;
            taken += 1;
        }
        ensure!(taken > 0, "none of {} photos can be read", order.len());
        Ok(())
    }

    fn measure(&self) -> Result<Score> {
        let (photos, texts) = self.held_out()?;
        let unchanged = Maps::identity(photos.rows.dim(1)?, DType::F32)?;
        score(&photos, &texts, &unchanged, self.settings.logit_scale)
    }

    fn decides(&self) -> bool {
        true
    }
}
