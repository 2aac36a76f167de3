//! The refreshed bundle is written, run by the daemon's engine, and compared with what was learnt.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;

use super::cache::Cache;
use super::embed::Known;
use super::gather::{self, Needed, Side, Wanted};
use super::outcome::{Embedded, Outcome};
use super::write::Change;
use super::{Options, write};
use crate::bundle::{Bundle, Limits, Manifest};
use crate::train::data;
use crate::train::demo::progress;
use crate::train::import::write::Staging;
use crate::train::onnx::edit::Placed;
use crate::train::targets::select;

/// What is put where.
pub struct Refreshed<'a> {
    /// The bundle as it was.
    pub bundle: &'a Bundle,
    /// Photos it was not refreshed with.
    pub held_out: &'a Side,
    /// What the written bundle has to make of them.
    pub after: &'a Embedded,
    /// What becomes of its graphs.
    pub change: Change,
}

/// A bundle that lies in its staging folder: its manifest, what was measured, where the change is.
pub type Put = (Manifest, BTreeMap<String, f64>, [Placed; 2]);

/// Writes the refreshed bundle into `staging` and runs it on the held-out photos.
///
/// # Errors
/// A written tower that differs from what was learnt, or a folder that cannot be written.
pub fn put(
    refreshed: Refreshed,
    staging: &Staging,
    outcome: &Outcome,
    options: &Options,
) -> Result<Put> {
    let Refreshed {
        bundle,
        held_out,
        after,
        change,
    } = refreshed;
    let tolerance = change.tolerance();
    let (photos, classes) = (outcome.train.len(), outcome.dataset.classes.len());
    let from = match outcome.distilled_from() {
        Some(teacher) => format!(
            "distilled from {} (SHA-256 of its manifest {})",
            teacher.id, teacher.sha256
        ),
        None => format!(
            "refreshed from {} (SHA-256 of its manifest {})",
            bundle.id(),
            bundle.sha256()
        ),
    };
    let (what, command) = match outcome.distilled_from() {
        Some(_) => ("Distilled", "distill"),
        None => ("Refreshed", "fit"),
    };
    let notes = write::Notes {
        command: options.command.clone(),
        source: format!("{from} with {photos} photos, {classes} classes"),
        licence: format!(
            "{what} with `vedetta-train {command}` on {photos} photos of whoever ran it; no photo is in \
             the bundle."
        ),
    };
    let bar = progress("writing");
    let (manifest, placed) = write::write(bundle, change, staging, notes, &bar)?;
    bar.finish_and_clear();

    let written = Bundle::open(staging.path(), &Limits::default())?;
    let mut forgotten = Cache::in_memory(manifest.embedding_dim);
    let mut part = outcome.dataset.clone();
    part.items = held_out
        .items
        .iter()
        .map(|item| outcome.dataset.items[*item].clone())
        .collect();
    let hidden = ProgressBar::hidden();
    let (texts, said) = gather::texts(&written, &mut forgotten, &part, &[], Needed::All, &hidden)?;
    let wanted = Wanted {
        dataset: &part,
        said: &said,
        items: &(0..part.items.len()).collect::<Vec<_>>(),
        views: Known::plain(),
    };
    let bar = progress("measuring the written bundle");
    let mut unread = data::Skips::default();
    let side = gather::photos(&written, &mut forgotten, &wanted, &mut unread, &bar)?;
    bar.finish_and_clear();
    ensure!(
        unread.count() == 0,
        "photos changed while they were learnt from; start again"
    );
    let images = after.maps.images(&after.photos.themselves()?)?;
    let image = write::agreement(&images, &side.photos.themselves()?, tolerance)?;
    let known: HashMap<&String, u32> = after.texts.strings.iter().zip(0..).collect();
    let rows = texts.strings.iter().map(|text| known.get(text).copied());
    let rows: Vec<u32> = rows.collect::<Option<_>>().context("a text is new")?;
    let wanted = after.maps.texts(&select(&after.texts.rows, &rows)?)?;
    let text = write::agreement(&wanted, &texts.rows, tolerance)?;
    log::info!(
        "the written towers differ from what was learnt by at most {:.1e}",
        image.max(text)
    );
    let written = Embedded::plain(side.photos, texts)?;
    let after = written.score(outcome.settings.logit_scale)?;
    Ok((manifest, outcome.table(after), placed))
}
