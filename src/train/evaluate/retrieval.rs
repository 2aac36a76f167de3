//! Image retrieval as CLIP-Italian was measured: each caption against all images.
//!
//! Bianchi et al., "Contrastive Language-Image Pre-training for the Italian Language" (2021),
//! section 4: MRR@1, @5, @10 on MSCOCO-IT's validation images.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::metrics::{Rank, accuracy_at, mrr_at};
use super::write::{key, rounded};
use crate::bundle::Bundle;
use crate::config::Shape;
use crate::encoder::{self, Embedding};
use crate::train::data::{Dataset, Item, Skips};
use crate::train::demo::progress;
use crate::train::embed;

/// Places that are counted.
pub const PLACES: [usize; 3] = [1, 5, 10];

/// MRR@1, @5, @10 as published, on MSCOCO-IT's validation images.
pub const PUBLISHED: [(&str, [f64; 3]); 2] = [
    ("CLIP-Italian", [0.3797, 0.5039, 0.5204]),
    ("mCLIP", [0.2874, 0.3957, 0.4129]),
];

/// Captions encoded at once.
const CHUNK: usize = 16;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Images that were searched.
    pub images: usize,
    /// Captions that were searched for.
    pub captions: usize,
    /// MRR at each of [`PLACES`].
    pub mrr: [f64; 3],
    /// Recall at each of [`PLACES`].
    pub recall: [f64; 3],
    /// What could not be used.
    pub skipped: Skips,
}

impl Report {
    /// Rows of the manifest's `[evaluation]`.
    pub fn table(&self, set: &str) -> BTreeMap<String, f64> {
        let set = key(set);
        #[expect(clippy::cast_precision_loss, reason = "a count of photos")]
        let mut table = BTreeMap::from([
            (format!("{set}_images"), self.images as f64),
            (format!("{set}_captions"), self.captions as f64),
        ]);
        for (n, place) in PLACES.iter().enumerate() {
            table.insert(format!("{set}_mrr{place}"), rounded(self.mrr[n]));
            table.insert(format!("{set}_recall{place}"), rounded(self.recall[n]));
        }
        table
    }
}

/// Looks every caption of `dataset` up among all its images.
///
/// # Errors
/// No captions, or a model that fails.
pub fn evaluate(bundle: &Bundle, dataset: &Dataset) -> Result<Report> {
    ensure!(
        dataset.items.iter().any(|item| !item.captions.is_empty()),
        "there is no caption: give a TSV, CSV or JSONL with the columns image and caption, or COCO's \
         JSON"
    );
    let items: Vec<&Item> = dataset.items.iter().collect();
    let (embeddings, unread) = embed::photos(bundle, &items, &Shape::Full)?;
    let mut skipped = dataset.skipped.clone();
    skipped.merge(&unread);
    let (mut images, mut captions) = (Vec::new(), Vec::new());
    for (item, embedding) in items.iter().zip(embeddings) {
        let Some(embedding) = embedding else { continue };
        captions.extend(
            item.captions
                .iter()
                .map(|text| (text.as_str(), images.len())),
        );
        images.push(embedding);
    }
    let texts: Vec<&str> = captions.iter().map(|(text, _)| *text).collect();
    let queries = embed_texts(bundle, &texts)?;
    let ranks: Vec<Rank> = queries
        .par_iter()
        .zip(&captions)
        .map(|(query, (_, right))| {
            let scores: Vec<f32> = images.iter().map(|image| query.dot(image)).collect();
            Rank::of(&scores, *right)
        })
        .collect();
    Ok(Report {
        images: images.len(),
        captions: captions.len(),
        mrr: PLACES.map(|k| mrr_at(&ranks, k)),
        recall: PLACES.map(|k| accuracy_at(&ranks, k)),
        skipped,
    })
}

fn embed_texts(bundle: &Bundle, texts: &[&str]) -> Result<Vec<Embedding>> {
    let mut encoder = encoder::load_text(bundle)?;
    let bar = progress("captions");
    bar.set_length(texts.len() as u64);
    let mut embeddings = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(CHUNK) {
        embeddings.extend(encoder.encode_texts(chunk)?);
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    Ok(embeddings)
}
