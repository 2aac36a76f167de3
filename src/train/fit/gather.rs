//! From a dataset to embedded examples.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use indicatif::ProgressBar;

use super::cache::Cache;
use super::embed::{self, Known};
use super::examples::{Photos, Said, Texts};
use crate::bundle::Bundle;
use crate::config::{Negatives, PromptSource};
use crate::prompts;
use crate::train::data::{Dataset, Item, Skips};
use crate::train::targets::select;

/// General texts that are measured with at most.
const MAX_GENERAL_HELD_OUT: usize = 500;

/// Photos of one side of the split, and the items they are.
pub struct Side {
    /// Embedded.
    pub photos: Photos,
    /// Positions in [`Dataset::items`], in the order of the photos.
    pub items: Vec<usize>,
    /// Position among the photos of each item.
    positions: HashMap<usize, usize>,
}

impl Side {
    /// `photos` of `items`, in the same order.
    pub fn new(photos: Photos, items: Vec<usize>) -> Self {
        Self {
            photos,
            positions: items.iter().copied().zip(0..).collect(),
            items,
        }
    }

    /// Whether there is a photo of `item`.
    pub fn has(&self, item: usize) -> bool {
        self.positions.contains_key(&item)
    }

    /// Unit rows of views: item, and number of the view.
    ///
    /// # Errors
    /// A view that is not there, or candle's.
    pub fn select(&self, views: &[(usize, u8)]) -> Result<Tensor> {
        let row = |(item, number): &(usize, u8)| {
            let (first, count) = self.photos.views[*self.positions.get(item)?];
            let number = u32::from(*number);
            (number < count).then_some(first + number)
        };
        let rows: Option<Vec<u32>> = views.iter().map(row).collect();
        let rows = rows.context("a photo changed while it was learnt from; start again")?;
        Ok(select(&self.photos.rows, &rows)?)
    }
}

/// All texts once, by row.
#[derive(Default)]
struct Rows {
    texts: Vec<String>,
    by_text: HashMap<String, u32>,
}

impl Rows {
    fn row(&mut self, text: String) -> Result<u32> {
        if let Some(row) = self.by_text.get(&text) {
            return Ok(*row);
        }
        let row = u32::try_from(self.texts.len())?;
        self.by_text.insert(text.clone(), row);
        self.texts.push(text);
        Ok(row)
    }
}

/// Which texts are embedded; the rows of others are 0.
#[derive(Clone, Copy)]
pub enum Needed<'a> {
    /// Every one.
    All,
    /// Those that these held-out items are measured with, where a text tower that is learnt reads the
    /// others itself.
    Measured(&'a [usize]),
}

/// Embeds the prompts of every class, captions, the daemon's negatives and `general` texts; returns
/// them and what is said of each item. Rows depend on the dataset and `general` alone.
///
/// # Errors
/// A noun that cannot be a prompt, or those of [`embed::texts`].
pub fn texts(
    bundle: &Bundle,
    cache: &mut Cache,
    dataset: &Dataset,
    general: &[String],
    needed: Needed,
    bar: &ProgressBar,
) -> Result<(Texts, Vec<Said>)> {
    let mut rows = Rows::default();
    let mut classes = Vec::new();
    for class in &dataset.classes {
        let source = PromptSource::Noun(class.noun.clone());
        let prompts = prompts::for_label(&source).with_context(|| class.key.clone())?;
        let prompts = prompts.into_iter().map(|prompt| rows.row(prompt));
        classes.push(prompts.collect::<Result<Vec<u32>>>()?);
    }
    let wanted: HashSet<String> = rows.texts.iter().map(|text| text.to_lowercase()).collect();
    let mut negatives = Vec::new();
    if !classes.is_empty() {
        let builtin = Negatives {
            builtin: true,
            extra: Vec::new(),
        };
        for text in prompts::negatives(&builtin) {
            if !wanted.contains(&text.to_lowercase()) {
                negatives.push(rows.row(text)?);
            }
        }
    }
    let mut said = Vec::new();
    for item in &dataset.items {
        let captions = item
            .captions
            .iter()
            .map(|caption| rows.row(caption.clone()));
        said.push(Said {
            class: item.class,
            captions: captions.collect::<Result<_>>()?,
        });
    }
    let first = u32::try_from(rows.texts.len())?;
    for text in general {
        rows.row(text.clone())?;
    }
    let mut general: Vec<u32> = (first..u32::try_from(rows.texts.len())?).collect();
    let held_out = general.len() / 10;
    let general_held_out = general.split_off(general.len() - held_out.min(MAX_GENERAL_HELD_OUT));
    let shape = (rows.texts.len(), bundle.manifest().embedding_dim);
    let mut texts = Texts {
        rows: Tensor::zeros(shape, DType::F32, &Device::Cpu)?,
        strings: rows.texts,
        classes,
        negatives,
        general,
        general_held_out,
    };
    let wanted: Vec<u32> = match needed {
        Needed::All => (0..u32::try_from(texts.strings.len())?).collect(),
        Needed::Measured(items) => texts.measured(items.iter().map(|item| &said[*item])),
    };
    texts.rows = embedded(bundle, cache, &texts, &wanted, bar)?;
    Ok((texts, said))
}

/// Rows of all texts, `[T, D]`: those `wanted` embedded, the others 0.
fn embedded(
    bundle: &Bundle,
    cache: &mut Cache,
    texts: &Texts,
    wanted: &[u32],
    bar: &ProgressBar,
) -> Result<Tensor> {
    let (count, dim) = texts.rows.dims2()?;
    let at = wanted.iter().map(|row| usize::try_from(*row));
    let at: Vec<usize> = at.collect::<Result<_, _>>()?;
    let strings: Vec<&str> = at.iter().map(|row| texts.strings[*row].as_str()).collect();
    let mut values = vec![0.0; count * dim];
    for (row, embedding) in at.iter().zip(embed::texts(bundle, cache, &strings, bar)?) {
        values[row * dim..][..dim].copy_from_slice(embedding.as_slice());
    }
    Ok(Tensor::from_vec(values, (count, dim), &Device::Cpu)?)
}

/// What [`photos`] needs to know.
pub struct Wanted<'a> {
    /// The dataset.
    pub dataset: &'a Dataset,
    /// What is said of each item.
    pub said: &'a [Said],
    /// Positions of the items.
    pub items: &'a [usize],
    /// What is embedded of each.
    pub views: Known,
}

/// Embeds photos; those that cannot be read are listed in `skipped`.
///
/// # Errors
/// No photo can be read, or those of [`embed::images`].
pub fn photos(
    bundle: &Bundle,
    cache: &mut Cache,
    wanted: &Wanted,
    skipped: &mut Skips,
    bar: &ProgressBar,
) -> Result<Side> {
    let of: Vec<&Item> = wanted
        .items
        .iter()
        .map(|i| &wanted.dataset.items[*i])
        .collect();
    let (views, skips) = embed::images(bundle, cache, &of, wanted.views, bar)?;
    skipped.merge(&skips);
    let (mut photos, mut items) = (Vec::new(), Vec::new());
    for (views, item) in views.into_iter().zip(wanted.items) {
        if let Some(views) = views {
            photos.push((views, wanted.said[*item].clone()));
            items.push(*item);
        }
    }
    ensure!(!items.is_empty(), "none of {} photos can be read", of.len());
    let dim = bundle.manifest().embedding_dim;
    Ok(Side::new(Photos::new(photos, dim)?, items))
}
