//! The refreshed bundle is written, run by the daemon's engine, and compared with what was learnt.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use indicatif::ProgressBar;

use super::cache::Cache;
use super::examples::Texts;
use super::gather::{self, Side, Wanted};
use super::maps::Maps;
use super::outcome::Outcome;
use super::score::score;
use super::{Options, write};
use crate::bundle::{Bundle, Limits, Manifest};
use crate::train::data;
use crate::train::demo::progress;
use crate::train::import::write::Staging;
use crate::train::onnx::edit::Placed;
use crate::train::targets::select;

/// Held-out photos that the written bundle is run on at most.
const MAX_MEASURED: usize = 2000;

/// The bundle as it was.
pub struct Old<'a> {
    /// It.
    pub bundle: &'a Bundle,
    /// Photos it was not refreshed with, embedded by it.
    pub held_out: &'a Side,
    /// Texts, embedded by it.
    pub texts: &'a Texts,
}

/// A bundle that lies in its staging folder: its manifest, what was measured, where the maps are.
pub type Put = (Manifest, BTreeMap<String, f64>, [Placed; 2]);

/// Writes the refreshed bundle into `staging` and runs it on the held-out photos.
///
/// # Errors
/// A written tower that differs from its map, or a folder that cannot be written.
pub fn put(old: &Old, staging: &Staging, outcome: &Outcome, options: &Options) -> Result<Put> {
    let Old {
        bundle,
        held_out,
        texts: old_texts,
    } = *old;
    let maps = &outcome.learnt.maps;
    let notes = write::Notes {
        command: options.command.clone(),
        source: format!(
            "refreshed from {} (SHA-256 of its manifest {}) with {} photos, {} classes",
            bundle.id(),
            bundle.sha256(),
            outcome.train.len(),
            outcome.dataset.classes.len()
        ),
        licence: format!(
            "Refreshed with `vedetta-train fit` on {} photos of whoever ran it; no photo is in the \
             bundle.",
            outcome.train.len()
        ),
    };
    let bar = progress("writing");
    let (manifest, placed) = write::write(bundle, maps, staging, notes, &bar)?;
    bar.finish_and_clear();

    let written = Bundle::open(staging.path(), &Limits::default())?;
    let mut forgotten = Cache::in_memory(manifest.embedding_dim);
    let measured = held_out.items.len().min(MAX_MEASURED);
    let mut part = outcome.dataset.clone();
    part.items = held_out.items[..measured]
        .iter()
        .map(|item| outcome.dataset.items[*item].clone())
        .collect();
    let hidden = ProgressBar::hidden();
    let (texts, said) = gather::texts(&written, &mut forgotten, &part, &hidden)?;
    let wanted = Wanted {
        dataset: &part,
        said: &said,
        items: &(0..measured).collect::<Vec<_>>(),
        views: 0,
        seed: options.seed,
    };
    let bar = progress("measuring the written bundle");
    let mut unread = data::Skips::default();
    let side = gather::photos(&written, &mut forgotten, &wanted, &mut unread, &bar)?;
    bar.finish_and_clear();
    ensure!(
        unread.count() == 0,
        "photos changed while they were learnt from; start again"
    );
    let images = held_out.photos.subset(&(0..measured).collect::<Vec<_>>());
    let map = write::linear(&maps.image)?;
    let image = write::agreement(&images.themselves()?, &side.photos.themselves()?, &map)?;
    let known: HashMap<&String, u32> = old_texts.strings.iter().zip(0..).collect();
    let rows = texts.strings.iter().map(|text| known.get(text).copied());
    let rows: Vec<u32> = rows.collect::<Option<_>>().context("a text is new")?;
    let map = write::linear(&maps.text)?;
    let text = write::agreement(&select(&old_texts.rows, &rows)?, &texts.rows, &map)?;
    log::info!(
        "the written towers differ from their maps by at most {:.1e}",
        image.max(text)
    );
    let unchanged = Maps::identity(manifest.embedding_dim, DType::F32)?;
    let scale = outcome.settings.logit_scale;
    let after = score(&side.photos, &texts, &unchanged, scale)?;
    Ok((manifest, outcome.table(after, measured), placed))
}
