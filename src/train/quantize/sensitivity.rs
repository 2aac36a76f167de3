//! What the quantization of each sublayer costs: leave one out, measure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use tract_onnx::prelude::{TValue, TVec, Tensor, TractResult, tvec};

use super::Agreement;
use crate::bundle::Bundle;
use crate::encoder::int8::Int8ImageEncoder;
use crate::encoder::int8::kernels::Context;
use crate::encoder::int8::program::Program;
use crate::encoder::int8::recognise::Options;
use crate::encoder::int8::tower::{Kind, Tower};
use crate::encoder::{Embedding, ImageEncoder, ModelInput, Padded, TextInput};

/// One sublayer left float while all others are int8.
#[derive(Clone, Debug)]
pub struct Sensitivity {
    /// Its node and kind.
    pub name: String,
    /// Its position among the sublayers that were found.
    pub position: usize,
    /// Mean cosine to the float tower then.
    pub mean: f64,
}

/// What towers are measured with.
pub(super) struct Bench<'a> {
    /// The float bundle.
    pub bundle: &'a Bundle,
    pub context: &'a Arc<Context>,
    /// Photos, and what the float tower makes of them.
    pub photos: (&'a [ModelInput], &'a [Embedding]),
    /// Sentences, and what the float tower makes of them.
    pub sentences: (&'a [&'a str], &'a [Embedding]),
}

impl Bench<'_> {
    /// Leaves each sublayer of a tower float in turn; what helps most comes first.
    pub fn sensitivity(&self, kind: Kind, bar: &ProgressBar) -> Result<Vec<Sensitivity>> {
        let whole = Tower::quantize(self.bundle, kind, self.context, &Options::default())?;
        let found = whole.report().found.iter();
        let names: Vec<String> = found.map(|f| format!("{} ({})", f.name, f.kind)).collect();
        drop(whole);
        let (tower, of) = (kind.name(), names.len());
        let mut table = Vec::new();
        for (position, name) in names.into_iter().enumerate() {
            bar.set_message(format!("{tower} sensitivity {} of {of}", position + 1));
            let rules = Options {
                keep_float: BTreeSet::from([position]),
                ..Options::default()
            };
            let tower = Tower::quantize(self.bundle, kind, self.context, &rules)?;
            table.push(Sensitivity {
                name,
                position,
                mean: self.agreement(kind, &tower)?.mean,
            });
        }
        table.sort_by(|a, b| b.mean.total_cmp(&a.mean));
        Ok(table)
    }

    fn agreement(&self, kind: Kind, tower: &Tower) -> Result<Agreement> {
        match kind {
            Kind::Image => {
                let size_px = self.bundle.manifest().image.size_px;
                let mut encoder = Int8ImageEncoder::new(tower, self.context, size_px)?;
                let (photos, float) = self.photos;
                Ok(Agreement::of(float, &encoder.encode_images(photos)?))
            }
            Kind::Text => {
                let (sentences, float) = self.sentences;
                Ok(Agreement::of(float, &self.texts(tower, sentences)?))
            }
        }
    }

    /// Embeddings of `texts`, each by itself.
    fn texts(&self, tower: &Tower, texts: &[&str]) -> Result<Vec<Embedding>> {
        let input = TextInput::load(self.bundle)?;
        let least = tower.tokens().unwrap_or(0);
        let mut programs: BTreeMap<usize, Program> = BTreeMap::new();
        let mut embeddings = Vec::with_capacity(texts.len());
        for text in texts {
            let padded = input.padded_beside(&input.tokenize(text)?, least);
            let length = padded.length();
            let program = match programs.entry(length) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(tower.program(Some(length))?),
            };
            let outputs = program.run(vec![tensors(&padded)?])?;
            let output = outputs.first().context("the tower gives nothing")?;
            let values = output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            let embedding = Embedding::normalized(values);
            embeddings.push(embedding.context("an embedding is zero or not finite")?);
        }
        Ok(embeddings)
    }
}

/// `input_ids` and `attention_mask`, `[1, T] i64`.
fn tensors(text: &Padded) -> TractResult<TVec<TValue>> {
    let row = |values: &[i64]| Tensor::from_shape(&[1, text.length()], values);
    Ok(tvec!(row(&text.ids)?.into(), row(&text.mask)?.into()))
}
