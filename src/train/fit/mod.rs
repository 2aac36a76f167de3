//! A refresh: what one's own photos show is taken into a bundle that exists.
//!
//! ```text
//! photos ─► views ─► image tower ─┐                     ┌─► A_image ─┐
//!                       (frozen)  ├─► cache ─► session ─┤            ├─► graphs ─► bundle, report
//! prompts, captions ─► text tower ┘                     └─► A_text ──┘
//! ```
//!
//! In the stage [`projection`] the towers stay as they are and are run once, by the daemon's own
//! engine; what is learnt is one linear map per tower, held at the identity as strongly as
//! cross-validation says ([`strength`]). In the others ([`towers`]) it is the towers themselves, all of
//! their weights or adapters beside them, from fresh views of the photos in every epoch. A teacher, or a
//! tower that is not learnt, is run once on views that are then known ([`taught`]). Held-out
//! photos decide which epoch is kept, epoch 0 being the bundle as it was: what does not beat it is not
//! written.

pub mod cache;
pub mod distillation;
pub mod embed;
pub mod examples;
pub mod gather;
pub mod identity;
mod learning;
pub mod loss;
pub mod maps;
mod options;
pub mod outcome;
pub mod projection;
pub mod put;
pub mod report;
pub mod score;
pub mod session;
pub mod shown;
pub mod strength;
pub mod taught;
#[cfg(test)]
mod tests;
pub mod towers;
pub mod tuning;
pub mod write;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use cache::Cache;
use embed::Known;
use gather::{Needed, Side, Wanted};
use learning::learn;
use maps::Maps;
pub use options::Options;
pub use outcome::{Embedded, Outcome, TaughtBy};
use projection::{Examples, Projection};
use session::{Session, Settings};
use taught::{Lesson, Taught};
use towers::{Shown, Towers};
use write::Change;

use super::data::{self, Dataset};
use super::demo::progress;
use super::import::write::Staging;
use crate::bundle::{Bundle, Limits};

/// Held-out photos at most: more hardly measure better, and every epoch looks at all of them.
const MAX_HELD_OUT: usize = 2000;

/// Refreshes the bundle at `path` into `out`. The outcome says whether it was written; what is no
/// better than before is not, unless forced.
///
/// # Errors
/// A bundle, a dataset or a folder that cannot be used; the message says what to do.
pub fn fit(path: &Path, out: &Path, options: &Options) -> Result<Outcome> {
    options.check()?;
    let teaching = &options.teaching;
    let bundle = Bundle::open(path, &Limits::default())?;
    write::check(&bundle)?;
    let teacher = teaching.teacher.as_deref();
    let teacher = teacher.map(|path| Bundle::open(path, &Limits::default()));
    let teacher = teacher.transpose()?;
    let general = match &teaching.texts {
        Some(path) => taught::general(path, options.seed)?,
        None => Vec::new(),
    };
    let staging = Staging::new(out, options.force)?;
    let mut dataset = Dataset::open(&options.data, &options.dataset)?;
    if !teaching.decides {
        enough(&dataset)?;
    }
    log::info!("{}", summary(&dataset));
    let mut skipped = std::mem::take(&mut dataset.skipped);
    let mut split = dataset.split(options.held_out, options.seed);
    if split.held_out.len() > MAX_HELD_OUT {
        log::info!("{MAX_HELD_OUT} photos are held out; the others are learnt from too");
        split.cap_held_out(MAX_HELD_OUT);
    }
    dataset.drop_copies(&mut split, &mut skipped);
    ensure!(
        !split.held_out.is_empty(),
        "no photo can be held out to measure with; give at least two photos of everything, better \
         twenty"
    );
    let cache = Cache::open(&options.cache, &bundle);
    let mut cache = cache.context("name another folder with --cache")?;
    let needed = match &options.tuning {
        Some(tuning) if tuning.text => Needed::Measured(&split.held_out),
        _ => Needed::All,
    };
    let bar = progress("texts");
    let (texts, said) = gather::texts(&bundle, &mut cache, &dataset, &general, needed, &bar)?;
    bar.finish_and_clear();
    let mut embed = |items: &[usize], views: Known, what: &'static str| {
        let wanted = Wanted {
            dataset: &dataset,
            said: &said,
            items,
            views,
        };
        let bar = progress(what);
        let side = gather::photos(&bundle, &mut cache, &wanted, &mut skipped, &bar);
        bar.finish_and_clear();
        side
    };
    let held_out = embed(&split.held_out, Known::plain(), "held-out photos")?;
    let views = match &options.tuning {
        None => Some(Known::mild(options.views, options.seed)),
        Some(tuning) => {
            let taught = teaching.objective.is_taught();
            tuning.known(taught, options.views, options.seed)
        }
    };
    let same_images = teacher
        .as_ref()
        .is_none_or(|t| taught::same_images(t, &bundle));
    let train = match (views, options.tuning) {
        (Some(views), None) => Some(embed(&split.train, views, "photos")?),
        (Some(views), Some(tuning)) if !tuning.image => {
            let known = teaching.objective.is_taught() && same_images;
            let embedded = (!known).then(|| embed(&split.train, views, "photos"));
            embedded.transpose()?
        }
        _ => None,
    };
    drop(cache);
    let taught = match views.filter(|_| teaching.objective.is_taught()) {
        None => None,
        Some(views) => {
            let teacher = teacher.as_ref().unwrap_or(&bundle);
            let lesson = Lesson {
                dataset: &dataset,
                said: &said,
                train: &split.train,
                held_out: &held_out.items,
                general: &general,
                views,
                decides: teaching.decides,
            };
            let mut cache = Cache::open(&options.cache, teacher)?;
            let mut unread = data::Skips::default();
            let taught = Taught::gather(teacher, &mut cache, &lesson, &mut unread)?;
            skipped.merge(&unread);
            Some(taught)
        }
    };
    let classified = |side: &Side| side.photos.said.iter().any(|said| said.class.is_some());
    ensure!(
        texts.classes.is_empty() || classified(&held_out),
        "no held-out photo has a class; give at least two photos of every class"
    );

    let rows = match &train {
        Some(train) if options.tuning.is_none() => {
            let views = train.photos.views.iter();
            views.map(|(_, n)| usize::try_from(*n).unwrap_or(0)).sum()
        }
        _ => split.train.len(),
    };
    let mut settings = options.settings(&bundle, rows);
    let mut trials = Vec::new();
    let name = |settings: &Settings| {
        let tuning = options.tuning.as_ref();
        let (views, taught) = (options.views, taught.as_ref());
        identity::of(&bundle, &dataset, &split, views, settings, tuning, taught)
    };
    let before = Embedded::plain(held_out.photos.clone(), texts)?;
    let texts = &before.texts;
    let mut agreement = None;
    let (learnt, checkpoint, items, change, after) = if let Some(tuning) = options.tuning {
        let shown = Shown {
            bundle: &bundle,
            dataset: &dataset,
            said: &said,
            train: &split.train,
            held_out: &held_out,
            texts,
            views,
            seen: train.as_ref().or(taught.as_ref().map(|t| &t.train)),
            taught: taught.as_ref(),
        };
        let checkpoint = options.checkpoint(&name(&settings));
        let session = Session::new(
            Towers::new(shown, settings, tuning)?,
            settings,
            Some(&checkpoint),
        )?;
        let measured = if teaching.decides {
            "cosine to the teacher"
        } else {
            "held-out"
        };
        let (learnt, towers) = learn(session, settings, options.resume, measured)?;
        skipped.merge(&towers.skipped);
        drop(towers);
        let whole = learnt.kept > settings.frozen_epochs;
        let (towers, after) = Towers::tuned(shown, settings, tuning, &learnt.values, whole)?;
        if let Some(taught) = &taught {
            agreement = Some(taught.agreements(shown, tuning, [&before, &after])?);
        }
        let items = split.train.clone();
        (learnt, checkpoint, items, Change::Towers(towers), after)
    } else {
        let train = train.context("no photo was embedded")?;
        match options.strength {
            Some(strength) => settings.strength = strength,
            None => {
                let kept = options
                    .cache
                    .join(format!("strength-{}.json", name(&settings)));
                let bar = progress("strength");
                (settings.strength, trials) =
                    strength::choose_once(&train.photos, texts, settings, &kept, &bar)?;
                bar.finish_and_clear();
            }
        }
        let examples = Examples {
            train: &train.photos,
            held_out: Some(&held_out.photos),
            texts,
        };
        let checkpoint = options.checkpoint(&name(&settings));
        let session = Projection::session(examples, settings, Some(&checkpoint))?;
        let (learnt, _) = learn(session, settings, options.resume, "held-out")?;
        let after = Embedded {
            maps: Maps::learnt(&learnt.values)?,
            ..before.clone()
        };
        let change = Change::Maps(after.maps.clone());
        (learnt, checkpoint, train.items, change, after)
    };
    // A student is set beside its teacher, not beside what it began with.
    let before = match &taught {
        Some(taught) if taught.decides => taught.embedded()?,
        _ => before,
    };
    let scale = settings.logit_scale;
    let mut outcome = Outcome {
        bundle: bundle.id(),
        before: before.score(scale)?,
        after: after.score(scale)?,
        answers: before
            .answers(scale)?
            .zip(after.answers(scale)?)
            .map(Into::into),
        drift: after.drift(&before)?,
        train: items,
        held_out: held_out.items.clone(),
        settings,
        tuning: options.tuning,
        trials,
        taught: taught.zip(agreement).map(|(taught, agreement)| TaughtBy {
            id: taught.id,
            sha256: taught.sha256,
            decides: taught.decides,
            agreement,
        }),
        learnt,
        skipped,
        dataset,
        written: None,
    };
    if outcome.learnt.best > 0 || options.force {
        outcome.check()?;
        let refreshed = put::Refreshed {
            bundle: &bundle,
            held_out: &held_out,
            after: &after,
            change,
        };
        let (manifest, table, placed) = put::put(refreshed, &staging, &outcome, options)?;
        write::finish(staging, manifest, table)?;
        outcome.written = Some(placed);
    }
    if let Err(error) = std::fs::remove_file(&checkpoint) {
        log::warn!("{} is left over: {error}", checkpoint.display());
    }
    Ok(outcome)
}

fn enough(dataset: &Dataset) -> Result<()> {
    ensure!(
        dataset.classes.len() != 1,
        "all photos are of one class, {:?}: there is nothing to tell it from. Add a folder of what \
         it is not (beside scaffale-vuoto one called scaffale-pieno)",
        dataset.classes[0].noun
    );
    for (class, count) in dataset.classes.iter().zip(dataset.per_class()) {
        if count < 10 {
            log::warn!("{}: {count} photos; twenty are better", class.noun);
        }
    }
    Ok(())
}

fn summary(dataset: &Dataset) -> String {
    let skipped = match dataset.skipped.count() {
        0 => String::new(),
        n => format!(", {n} entries skipped"),
    };
    let captions: usize = dataset.items.iter().map(|item| item.captions.len()).sum();
    format!(
        "{} photos ({}), {} classes, {captions} captions{skipped}",
        dataset.items.len(),
        dataset.format,
        dataset.classes.len(),
    )
}
