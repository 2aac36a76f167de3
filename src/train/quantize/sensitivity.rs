//! What the quantization of each sublayer costs: leave one out, measure.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use indicatif::ProgressBar;

use super::Agreement;
use crate::bundle::Bundle;
use crate::encoder::int8::kernels::Context;
use crate::encoder::int8::recognise::Options;
use crate::encoder::int8::tower::{Kind, Tower};
use crate::encoder::int8::{Int8ImageEncoder, Int8TextEncoder};
use crate::encoder::{Embedding, ImageEncoder, ModelInput, TextEncoder};

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
                mean: self.agreement(kind, tower)?.mean,
            });
        }
        table.sort_by(|a, b| b.mean.total_cmp(&a.mean));
        Ok(table)
    }

    fn agreement(&self, kind: Kind, tower: Tower) -> Result<Agreement> {
        match kind {
            Kind::Image => {
                let size_px = self.bundle.manifest().image.size_px;
                let mut encoder = Int8ImageEncoder::new(&tower, self.context, size_px)?;
                let (photos, float) = self.photos;
                Ok(Agreement::of(float, &encoder.encode_images(photos)?))
            }
            Kind::Text => {
                let mut encoder = Int8TextEncoder::new(tower, self.bundle)?;
                let (sentences, float) = self.sentences;
                Ok(Agreement::of(float, &encoder.encode_texts(sentences)?))
            }
        }
    }
}
