//! Decoding photos on all cores.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use image::RgbImage;
use rayon::prelude::*;

use super::{Item, Skips, Source};
use crate::photo::{self, PhotoError};

/// Reads one photo, upright.
///
/// # Errors
/// See [`PhotoError`].
pub fn read(source: &Source) -> Result<RgbImage, PhotoError> {
    photo::decode(&bytes(source)?)
}

/// A photo's file, of at most [`photo::MAX_FILE_BYTES`].
///
/// # Errors
/// It cannot be read or is too long.
pub fn bytes(source: &Source) -> Result<Vec<u8>, PhotoError> {
    let (mut file, length) = match source {
        Source::File(path) => (File::open(path)?, u64::MAX),
        Source::Part {
            shard,
            offset,
            bytes,
        } => {
            let mut file = File::open(shard)?;
            file.seek(SeekFrom::Start(*offset))?;
            (file, *bytes)
        }
    };
    let mut content = Vec::new();
    let most = length.min(photo::MAX_FILE_BYTES + 1);
    file.by_ref().take(most).read_to_end(&mut content)?;
    if content.len() as u64 > photo::MAX_FILE_BYTES {
        return Err(PhotoError::TooLong);
    }
    Ok(content)
}

/// Decodes `items` on rayon's threads, one photo per thread in memory, and gives each to `work`
/// with its position. Returns what `work` made, in the order of `items`, `None` for photos that
/// cannot be read, which are listed.
///
/// # Errors
/// The first error of `work`.
pub fn decode<T: Send, E: Send>(
    items: &[&Item],
    work: impl Fn(usize, RgbImage) -> Result<T, E> + Sync,
) -> Result<(Vec<Option<T>>, Skips), E> {
    let made: Vec<Result<T, PhotoError>> = items
        .par_iter()
        .enumerate()
        .map(|(index, item)| match read(&item.source) {
            Ok(photo) => work(index, photo).map(Ok),
            Err(error) => Ok(Err(error)),
        })
        .collect::<Result<_, E>>()?;
    let mut skips = Skips::default();
    let made = made
        .into_iter()
        .zip(items)
        .map(|(made, item)| made.map_err(|error| skips.add(&item.name, error)).ok())
        .collect();
    Ok((made, skips))
}
