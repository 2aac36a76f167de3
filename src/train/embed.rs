//! Many photos through the daemon's own preprocessing and engine, on all cores.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::data::{Item, Skips, photos};
use super::demo::progress;
use crate::bundle::Bundle;
use crate::config::Shape;
use crate::encoder::{self, Embedding};
use crate::preprocess::Preprocessor;

/// Embeds `shape` of every photo, in the order of `items`; `None` for photos that cannot be read,
/// which are listed.
///
/// # Errors
/// An image tower that cannot be loaded or fails.
pub fn photos(
    bundle: &Bundle,
    items: &[&Item],
    shape: &Shape,
) -> Result<(Vec<Option<Embedding>>, Skips)> {
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let first = encoder::load_image(bundle, NonZeroUsize::MIN)?;
    let idle = Mutex::new(Vec::new());
    let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
    let bar = progress("photos");
    bar.set_length(items.len() as u64);
    let outcome = photos::decode(items, |_, rgb| -> Result<Option<Embedding>> {
        let spare = lock().pop();
        let mut encoder = spare.unwrap_or_else(|| first.fork());
        let embedding = preprocessor
            .prepare(&rgb, shape)
            .map_err(anyhow::Error::from)
            .and_then(|input| Ok(encoder.encode_images(&[input])?.pop()));
        lock().push(encoder);
        bar.inc(1);
        embedding
    });
    bar.finish_and_clear();
    let (embeddings, skipped) = outcome?;
    Ok((
        embeddings.into_iter().map(Option::flatten).collect(),
        skipped,
    ))
}
