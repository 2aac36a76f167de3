//! What a teacher makes of the photos and texts that are learnt from: computed once, by the daemon's
//! engine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::{D, DType, Tensor};
use rand::rngs::StdRng;
use rand::{SeedableRng, seq::SliceRandom};

use super::cache::Cache;
use super::distillation::Objective;
use super::embed::Known;
use super::examples::{Photos, Said, Texts};
use super::gather::{self, Needed, Side, Wanted};
use super::maps::Maps;
use super::outcome::Embedded;
use super::score::answers;
use super::shown::Shown;
use super::tuning::Tuning;
use crate::bundle::Bundle;
use crate::train::data::{Dataset, Skips};
use crate::train::demo::progress;
use crate::train::targets::select;

/// Longest list of general texts, bytes.
const MAX_TEXTS_BYTES: u64 = 256 << 20;

/// Most general texts.
const MAX_TEXTS: usize = 1_000_000;

/// Who teaches, and what.
#[derive(Clone, Debug, Default)]
pub struct Teaching {
    /// Weights of the losses.
    pub objective: Objective,
    /// The teacher; by default the bundle as it was.
    pub teacher: Option<PathBuf>,
    /// Texts, one a line, that are learnt from the teacher beside what is said of the photos.
    pub texts: Option<PathBuf>,
    /// See [`Taught::decides`].
    pub decides: bool,
}

impl Teaching {
    /// Refuses weights that cannot be, and what needs a teacher where there is none.
    ///
    /// # Errors
    /// The message says what is legal.
    pub fn check(&self) -> Result<()> {
        let Objective {
            contrast,
            mse,
            affinity,
        } = self.objective;
        for weight in [contrast, mse, affinity] {
            ensure!(
                (0.0..=1e6).contains(&weight),
                "a weight of --loss is {weight}; legal: 0 to 1000000"
            );
        }
        ensure!(
            contrast + mse + affinity > 0.0,
            "--loss gives no loss a weight"
        );
        ensure!(
            self.objective.is_taught() || (self.texts.is_none() && !self.decides),
            "there is nothing to learn from a teacher; give --loss mse or --loss affinity"
        );
        Ok(())
    }
}

/// A teacher's embeddings.
pub struct Taught {
    /// [`Bundle::id`] of the teacher.
    pub id: String,
    /// SHA-256 of its manifest.
    pub sha256: String,
    /// Every view of the photos to learn from.
    pub train: Side,
    /// Held-out photos.
    pub held_out: Side,
    /// All texts, in the rows of the learner's.
    pub texts: Texts,
    /// Its logit scale.
    pub scale: f64,
    /// Edge of its pictures, in which random views are drawn.
    pub size_px: u32,
    /// Whether agreement with it decides which epoch is kept, instead of the photos' classes and
    /// captions.
    pub decides: bool,
}

/// What [`Taught::gather`] is asked for.
pub struct Lesson<'a> {
    /// The photos.
    pub dataset: &'a Dataset,
    /// What is said of each item.
    pub said: &'a [Said],
    /// Items to learn from.
    pub train: &'a [usize],
    /// Items to measure with; all can be read.
    pub held_out: &'a [usize],
    /// Texts that nobody said of a photo.
    pub general: &'a [String],
    /// Views of the photos to learn from.
    pub views: Known,
    /// See [`Taught::decides`].
    pub decides: bool,
}

impl Taught {
    /// Runs the teacher on everything that it was not run on before.
    ///
    /// # Errors
    /// A bundle that cannot be run, photos that cannot be read, or the cache's file system.
    pub fn gather(
        bundle: &Bundle,
        cache: &mut Cache,
        lesson: &Lesson,
        skipped: &mut Skips,
    ) -> Result<Self> {
        let bar = progress("the teacher's texts");
        let (dataset, general) = (lesson.dataset, lesson.general);
        let texts = gather::texts(bundle, cache, dataset, general, Needed::All, &bar);
        bar.finish_and_clear();
        let (texts, _) = texts?;
        let mut photos = |items: &[usize], views: Known, what: &'static str| {
            let wanted = Wanted {
                dataset: lesson.dataset,
                said: lesson.said,
                items,
                views,
            };
            let bar = progress(what);
            let side = gather::photos(bundle, cache, &wanted, skipped, &bar);
            bar.finish_and_clear();
            side
        };
        let held_out = photos(
            lesson.held_out,
            Known::plain(),
            "the teacher's held-out photos",
        )?;
        ensure!(
            held_out.items == lesson.held_out,
            "held-out photos changed while they were looked at; start again"
        );
        let train = photos(lesson.train, lesson.views, "the teacher's photos")?;
        let manifest = bundle.manifest();
        Ok(Self {
            id: bundle.id(),
            sha256: bundle.sha256().to_owned(),
            train,
            held_out,
            texts,
            scale: f64::from(manifest.scoring.logit_scale),
            size_px: u32::try_from(manifest.image.size_px)?,
            decides: lesson.decides,
        })
    }

    /// Unit rows of views of photos: item, and number of the view.
    ///
    /// # Errors
    /// An item that is not among those to learn from, or candle's.
    pub fn photos(&self, views: &[(usize, u8)]) -> Result<Tensor> {
        self.train.select(views)
    }

    /// How close held-out photos and the texts in `rows`, embedded by the learner, are to the teacher's.
    /// `None` for a tower that is not learnt.
    ///
    /// # Errors
    /// candle's.
    pub fn closeness(&self, seen: &Seen) -> Result<Closeness> {
        let cosines = |ours: &Tensor, theirs: &Tensor| -> Result<Close> {
            let cosines = (ours * theirs)?.sum(D::Minus1)?;
            Ok(Close {
                mean: f64::from(cosines.mean_all()?.to_scalar::<f32>()?),
                worst: f64::from(cosines.min_all()?.to_scalar::<f32>()?),
            })
        };
        let photos = || {
            cosines(
                &seen.photos.themselves()?,
                &self.held_out.photos.themselves()?,
            )
        };
        let texts = || {
            cosines(
                &select(&seen.texts.rows, seen.rows)?,
                &self.texts(seen.rows)?,
            )
        };
        Ok(Closeness {
            photos: seen.image.then(photos).transpose()?,
            texts: seen.text.then(texts).transpose()?,
        })
    }

    /// The same, and which photos both take for the same class.
    ///
    /// # Errors
    /// candle's.
    pub fn agreement(&self, seen: &Seen) -> Result<Agreement> {
        let same = if self.texts.classes.is_empty() {
            None
        } else {
            let maps = Maps::identity(seen.photos.rows.dim(1)?, DType::F32)?;
            let own = answers(seen.photos, seen.texts, &maps, self.scale)?;
            let theirs = answers(&self.held_out.photos, &self.texts, &maps, self.scale)?;
            let same = own.iter().zip(&theirs).filter(|(a, b)| a.class == b.class);
            #[expect(clippy::cast_precision_loss, reason = "counts of photos")]
            Some(same.count() as f64 / own.len().max(1) as f64)
        };
        let close = self.closeness(seen)?;
        Ok(Agreement { close, same })
    }

    /// How close a bundle was, and how close it is.
    ///
    /// # Errors
    /// candle's.
    pub fn agreements(
        &self,
        shown: Shown,
        tuning: Tuning,
        [before, after]: [&Embedded; 2],
    ) -> Result<[Agreement; 2]> {
        let rows = shown.measured_texts();
        let of = |embedded: &Embedded| {
            self.agreement(&Seen {
                photos: &embedded.photos,
                texts: &embedded.texts,
                rows: &rows,
                image: tuning.image,
                text: tuning.text,
            })
        };
        Ok([of(before)?, of(after)?])
    }

    /// Unit rows of texts.
    ///
    /// # Errors
    /// candle's.
    pub fn texts(&self, rows: &[u32]) -> Result<Tensor> {
        Ok(select(&self.texts.rows, rows)?)
    }

    /// The teacher on the held-out photos.
    ///
    /// # Errors
    /// candle's.
    pub fn embedded(&self) -> Result<Embedded> {
        Embedded::plain(self.held_out.photos.clone(), self.texts.clone())
    }
}

/// Held-out photos and texts as the learner embeds them.
pub struct Seen<'a> {
    /// The held-out photos.
    pub photos: &'a Photos,
    /// Texts; `rows` of them are known.
    pub texts: &'a Texts,
    /// Rows that are compared.
    pub rows: &'a [u32],
    /// Whether the image tower is learnt.
    pub image: bool,
    /// Whether the text tower is.
    pub text: bool,
}

/// Cosines to the teacher's embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Close {
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub worst: f64,
}

/// How close a learner is to its teacher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// By their embeddings.
    pub close: Closeness,
    /// Share of held-out photos that both take for the same class, where there are classes.
    pub same: Option<f64>,
}

impl Agreement {
    /// As [`Closeness::cosine`].
    pub fn cosine(&self) -> f64 {
        self.close.cosine()
    }
}

/// How close a learner's embeddings are to its teacher's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closeness {
    /// Of held-out photos, where the image tower is learnt.
    pub photos: Option<Close>,
    /// Of texts, where the text tower is learnt.
    pub texts: Option<Close>,
}

impl Closeness {
    /// Mean of the learnt towers' mean cosines.
    pub fn cosine(&self) -> f64 {
        let towers = [self.photos, self.texts];
        let (mut sum, mut count) = (0.0, 0.0);
        for close in towers.into_iter().flatten() {
            sum += close.mean;
            count += 1.0;
        }
        sum / f64::max(count, 1.0)
    }
}

/// Whether two bundles have one image tower and prepare pictures for it alike.
pub fn same_images(a: &Bundle, b: &Bundle) -> bool {
    let (a, b) = (a.manifest(), b.manifest());
    let file = a.files.get("image.onnx");
    a.image == b.image && file.is_some() && file == b.files.get("image.onnx")
}

/// Texts of a list, one a line, without empty and repeated ones, shuffled.
///
/// # Errors
/// A file that cannot be read, or that is no text.
pub fn general(path: &Path, seed: u64) -> Result<Vec<String>> {
    let context = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(context)?.len();
    ensure!(
        bytes <= MAX_TEXTS_BYTES,
        "{} has {bytes} bytes; at most {MAX_TEXTS_BYTES} are read",
        path.display()
    );
    let list = std::fs::read_to_string(path).with_context(context)?;
    let mut texts: Vec<String> = list
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    texts.sort_unstable();
    texts.dedup();
    ensure!(!texts.is_empty(), "{} is empty", path.display());
    texts.shuffle(&mut StdRng::seed_from_u64(seed));
    if texts.len() > MAX_TEXTS {
        log::warn!("{MAX_TEXTS} of {} texts are used", texts.len());
        texts.truncate(MAX_TEXTS);
    }
    Ok(texts)
}
