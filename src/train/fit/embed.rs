//! Photos and texts through the daemon's own preprocessing and engine, from the cache where they
//! were encoded before.

use std::collections::HashSet;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use image::RgbImage;
use indicatif::ProgressBar;
use rand::{SeedableRng, rngs::StdRng};

use super::cache::{Cache, Key, key};
use super::tuning::Views as Kind;
use crate::bundle::Bundle;
use crate::config::Shape;
use crate::encoder::{self, Embedding, ImageEncoder};
use crate::preprocess::Preprocessor;
use crate::train::augment::Strength;
use crate::train::data::{Item, Skips, Source, photos};

/// Photos between two writes to the cache.
const PHOTOS: usize = 64;

/// Texts between two writes to the cache.
const TEXTS: usize = 64;

/// Milder than for training a tower: a view must still show what the photo shows.
pub(super) const STRENGTH: Strength = Strength {
    smallest_area: 0.45,
    colour: 0.25,
    warp: 0.2,
    erase: 0.1,
    blur: 0.2,
};

/// Views of a photo that are drawn once, so that what is made of them can be kept: the photo itself,
/// which is view 0, and random ones. They depend on seed, kind, the photo's name and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// How random views are drawn.
    pub kind: Kind,
    /// How many of them.
    pub count: u8,
    /// Random seed.
    pub seed: u64,
}

impl Known {
    /// The photo alone.
    pub fn plain() -> Self {
        Self {
            kind: Kind::Plain,
            count: 0,
            seed: 0,
        }
    }

    /// `count` mild views beside the photo.
    pub fn mild(count: u8, seed: u64) -> Self {
        Self {
            kind: Kind::Mild,
            count,
            seed,
        }
    }

    /// View `number` of the photo called `name`, with edges of `size_px`; `None` for the photo itself.
    pub fn draw(&self, photo: &RgbImage, size_px: u32, name: &str, number: u8) -> Option<RgbImage> {
        if number == 0 {
            return None;
        }
        let seed = self.seed.to_le_bytes();
        let seed = key(&[self.drawing(), &seed, name.as_bytes(), &[number]]);
        self.kind.draw(photo, size_px, StdRng::from_seed(seed))
    }

    /// Changes when [`STRENGTH`] or the drawing of views does: what was cached is then made again.
    fn drawing(&self) -> &'static [u8] {
        match self.kind {
            Kind::Plain | Kind::Mild => b"views 1",
            Kind::ClipItalian => b"clip-italian 2",
        }
    }
}

/// A photo's embeddings: as the daemon sees it, then random views of it.
pub type Views = Vec<Embedding>;

/// Encodes photos and their views. `None` stands for photos that cannot be read.
///
/// # Errors
/// A bundle that cannot be run, or the cache's file system.
pub fn images(
    bundle: &Bundle,
    cache: &mut Cache,
    items: &[&Item],
    views: Known,
    bar: &ProgressBar,
) -> Result<(Vec<Option<Views>>, Skips)> {
    let keys: Vec<Option<Vec<Key>>> = items.iter().map(|i| keys(i, views)).collect();
    let complete = |keys: &[Key]| keys.iter().all(|key| cache.get(key).is_some());
    let missing: Vec<usize> = (0..items.len())
        .filter(|i| keys[*i].as_deref().is_none_or(|keys| !complete(keys)))
        .collect();
    let mut skips = Skips::default();
    if !missing.is_empty() {
        bar.set_length(missing.len() as u64);
        let encoders = Encoders::load(bundle)?;
        for chunk in missing.chunks(PHOTOS) {
            let photos: Vec<&Item> = chunk.iter().map(|i| items[*i]).collect();
            let encode = |at: usize, photo: RgbImage| {
                let (name, Some(keys)) = (&items[chunk[at]].name, &keys[chunk[at]]) else {
                    return Ok(Vec::new());
                };
                let embeddings = encoders.views(&photo, views, name)?;
                bar.inc(1);
                anyhow::Ok(keys.iter().copied().zip(embeddings).collect())
            };
            let (made, skipped) = photos::decode(&photos, encode)?;
            skips.merge(&skipped);
            cache.add(made.into_iter().flatten().flatten())?;
        }
    }
    let known = |keys: &Option<Vec<Key>>| {
        let keys = keys.as_ref()?;
        keys.iter().map(|key| cache.get(key).cloned()).collect()
    };
    Ok((keys.iter().map(known).collect(), skips))
}

/// Encodes texts.
///
/// # Errors
/// A bundle that cannot be run, a text that gives no token, or the cache's file system.
pub fn texts(
    bundle: &Bundle,
    cache: &mut Cache,
    texts: &[&str],
    bar: &ProgressBar,
) -> Result<Vec<Embedding>> {
    let key_of = |text: &str| key(&[b"text", text.as_bytes()]);
    let mut seen = HashSet::new();
    let missing: Vec<&str> = texts
        .iter()
        .copied()
        .filter(|text| cache.get(&key_of(text)).is_none() && seen.insert(*text))
        .collect();
    if !missing.is_empty() {
        bar.set_length(missing.len() as u64);
        let mut encoder = encoder::load_text(bundle)?;
        for chunk in missing.chunks(TEXTS) {
            let embeddings = encoder.encode_texts(chunk)?;
            cache.add(chunk.iter().map(|text| key_of(text)).zip(embeddings))?;
            bar.inc(chunk.len() as u64);
        }
    }
    let known = |text: &&str| cache.get(&key_of(text)).cloned();
    let known: Option<Vec<Embedding>> = texts.iter().map(known).collect();
    known.context("a text was not encoded")
}

/// A key for the photo and for each view of it. `None` where there is no such file.
fn keys(item: &Item, views: Known) -> Option<Vec<Key>> {
    let photo = stamp(item)?;
    let (seed, name) = (views.seed.to_le_bytes(), item.name.as_bytes());
    let view = |view: u8| key(&[&photo, views.drawing(), &seed, name, &[view]]);
    let random = (1..=views.count).map(view);
    Some(std::iter::once(photo).chain(random).collect())
}

/// Place, length and time of change of a photo's file, which stand for its content.
pub(super) fn stamp(item: &Item) -> Option<Key> {
    let (path, offset, bytes) = match &item.source {
        Source::File(path) => (path, 0, 0),
        Source::Part {
            shard,
            offset,
            bytes,
        } => (shard, *offset, *bytes),
    };
    let meta = fs::metadata(path).ok()?;
    let path = fs::canonicalize(path).ok()?;
    let mut numbers = Vec::new();
    for number in [meta.len(), offset, bytes] {
        numbers.extend(number.to_le_bytes());
    }
    for time in [meta.mtime(), meta.mtime_nsec()] {
        numbers.extend(time.to_le_bytes());
    }
    Some(key(&[b"image", path.as_os_str().as_bytes(), &numbers]))
}

/// One encoder per thread, all with the same weights.
struct Encoders {
    first: Mutex<Box<dyn ImageEncoder>>,
    idle: Mutex<Vec<Box<dyn ImageEncoder>>>,
    preprocessor: Preprocessor,
    size_px: u32,
}

impl Encoders {
    fn load(bundle: &Bundle) -> Result<Self> {
        let image = &bundle.manifest().image;
        Ok(Self {
            first: Mutex::new(encoder::load_image(bundle, NonZeroUsize::MIN)?),
            idle: Mutex::new(Vec::new()),
            preprocessor: Preprocessor::new(image),
            size_px: u32::try_from(image.size_px)?,
        })
    }

    /// Embeddings of all views of the photo called `name`.
    fn views(&self, photo: &RgbImage, views: Known, name: &str) -> Result<Views> {
        let mut inputs = Vec::new();
        for number in 0..=views.count {
            let view = views.draw(photo, self.size_px, name, number);
            let view = view.as_ref().unwrap_or(photo);
            inputs.push(self.preprocessor.prepare(view, &Shape::Full)?);
        }
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle().pop();
        let mut encoder = waiting.unwrap_or_else(|| {
            let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.fork()
        });
        let embeddings = encoder.encode_images(&inputs)?;
        idle().push(encoder);
        Ok(embeddings)
    }
}
