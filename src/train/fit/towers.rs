//! The stages that learn the towers themselves, on fresh views of the photos in every epoch.
//!
//! A batch larger than [`super::tuning::Tuning::chunk`] goes through the towers twice (gradient
//! caching: Gao et al., RepL4NLP 2021): once without being remembered, for the embeddings and the
//! loss's gradient at them; then chunk by chunk, each taking its part of that gradient back through
//! the tower. The gradient is that of the whole batch, the memory that of one chunk.

mod bias;
mod gradient;
mod learner;

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::cache::key;
use super::examples::{Photos, Texts};
use super::loss::Loss;
use super::outcome::Embedded;
use super::session::{Learner, Settings};
pub use super::shown::Shown;
use super::shown::{Draw, Pictures};
use super::tuning::{Compute, Tuning};
use crate::config::Shape;
use crate::encoder::{ModelInput, Padded, TextInput, Tokens};
use crate::preprocess::Preprocessor;
use crate::train::data::{Item, Skips, photos};
use crate::train::onnx::Model;
use crate::train::targets::select;
use crate::train::tower::{Tower, Track};

/// Both towers, and what they are learnt from.
pub struct Towers<'a> {
    shown: Shown<'a>,
    settings: Settings,
    tuning: Tuning,
    /// Nothing where the image tower is not learnt: its embeddings are known then.
    image: Option<Tower>,
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
        ensure!(
            tuning.image || (shown.views.is_some() && shown.seen.is_some()),
            "the photos' embeddings are not known"
        );
        ensure!(
            shown.taught.is_some() || !settings.objective.is_taught(),
            "there is no teacher"
        );
        ensure!(
            shown.taught.is_none() || shown.views.is_some(),
            "a teacher was not run on fresh views"
        );
        let (device, kind) = tuning.compute.open()?;
        let open = |name: &str| -> Result<Tower> {
            let listed = shown.bundle.manifest().files.get(name);
            let listed = listed.with_context(|| format!("the bundle has no {name}"))?;
            let bytes = shown.bundle.read(name, listed.bytes)?;
            Tower::read(bytes, &device, kind)
                .with_context(|| format!("{name} cannot be learnt through; use --stage projection"))
        };
        let mut towers = Self {
            image: tuning.image.then(|| open("image.onnx")).transpose()?,
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
        if towers.has_bias() {
            towers.bias.set(&towers.first_bias()?)?;
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
        if let Some(image) = &mut towers.image {
            image.set("image/", values)?;
            image.settle()?;
        }
        if let Some(text) = &mut towers.text {
            text.set("text/", values)?;
            text.settle()?;
        }
        let (photos, texts) = towers.held_out()?;
        let after = Embedded::plain(photos, texts)?;
        let model = |tower: Option<Tower>| -> Result<_> {
            Ok(tower.map(Tower::into_model).transpose()?.map(Box::new))
        };
        Ok(([model(towers.image)?, model(towers.text)?], after))
    }

    /// Whether the loss has a bias that is learnt along.
    fn has_bias(&self) -> bool {
        self.settings.loss == Loss::Sigmoid && self.settings.objective.contrast > 0.0
    }

    /// Views of photos as the image tower takes them, `None` for those that cannot be read.
    fn inputs(&self, items: &[usize], draw: &Draw) -> Result<(Vec<Option<ModelInput>>, Skips)> {
        let items: Vec<&Item> = items
            .iter()
            .map(|i| &self.shown.dataset.items[*i])
            .collect();
        let size_px = u32::try_from(self.shown.bundle.manifest().image.size_px)?;
        // A teacher's view is drawn in the size of its own pictures.
        let drawn_px = self.shown.taught.map_or(size_px, |taught| taught.size_px);
        let (preprocessor, fresh) = (&self.preprocessor, self.tuning.views);
        photos::decode(&items, |at, photo| {
            let name = &items[at].name;
            let view = match draw {
                Draw::Plain => None,
                Draw::Fresh(salt) => {
                    let seed = key(&[b"tower view", &salt.to_le_bytes(), name.as_bytes()]);
                    fresh.draw(&photo, size_px, StdRng::from_seed(seed))
                }
                Draw::Known(views, numbers) => views.draw(&photo, drawn_px, name, numbers[at]),
            };
            Ok(preprocessor.prepare(view.as_ref().unwrap_or(&photo), &Shape::Full)?)
        })
    }

    /// Pictures of `items` and which of these they are; those that cannot be read are left out.
    /// `numbers` are those of known views.
    fn pictures(
        &mut self,
        items: &[usize],
        numbers: &[u8],
        salt: u64,
    ) -> Result<(Pictures, Vec<usize>)> {
        let positions = 0..items.len();
        if let (None, Some(seen)) = (&self.image, self.shown.seen) {
            let known: Vec<usize> = positions.filter(|at| seen.has(items[*at])).collect();
            let views: Vec<(usize, u8)> =
                known.iter().map(|at| (items[*at], numbers[*at])).collect();
            let rows = seen.select(&views)?;
            return Ok((Pictures::Known(rows), known));
        }
        let draw = match self.shown.views {
            Some(views) => Draw::Known(views, numbers),
            None => Draw::Fresh(salt),
        };
        let (inputs, skips) = self.inputs(items, &draw)?;
        self.skipped.merge(&skips);
        let read = inputs.into_iter().zip(positions);
        let (inputs, known) = read.filter_map(|(input, at)| Some((input?, at))).unzip();
        Ok((Pictures::Read(inputs), known))
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

    fn embed_images(&self, inputs: &[ModelInput], track: Track) -> Result<Tensor> {
        let tower = self.image.as_ref().context("the image tower is not read")?;
        tower.images(&inputs.iter().collect::<Vec<_>>(), track)
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

    /// Held-out photos and the texts they are measured with, embedded by the towers as they are; rows
    /// of other texts are 0.
    ///
    /// # Errors
    /// A photo that cannot be read any more, or candle's.
    pub fn held_out(&self) -> Result<(Photos, Texts)> {
        let known = self.shown.held_out;
        let photos = if self.image.is_some() {
            let mut rows = Vec::new();
            for part in known.items.chunks(self.tuning.chunk) {
                let (inputs, _) = self.inputs(part, &Draw::Plain)?;
                let inputs: Option<Vec<ModelInput>> = inputs.into_iter().collect();
                let inputs =
                    inputs.context("held-out photos changed while it was learnt; start again")?;
                rows.push(self.embed_images(&inputs, Track::Nothing)?.detach());
            }
            Photos {
                rows: Tensor::cat(&rows, 0)?,
                views: (0u32..)
                    .map(|row| (row, 1))
                    .take(known.items.len())
                    .collect(),
                said: known.photos.said.clone(),
            }
        } else {
            known.photos.clone()
        };
        let mut texts = self.shown.texts.clone();
        if self.text.is_some() {
            let rows = self.shown.measured_texts();
            let embedded = self.in_chunks(&rows, Self::embed_texts)?;
            let empty = texts.rows.zeros_like()?;
            let at = Tensor::new(&rows[..], &Device::Cpu)?;
            texts.rows = empty.index_add(&at, &embedded, 0)?;
        }
        Ok((photos, texts))
    }
}
