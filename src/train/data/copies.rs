//! Photos that are there twice.

use std::collections::{HashMap, HashSet};
use std::fs;

use sha2::{Digest, Sha256};

use super::{Item, Skips, Source, Split, photos};

/// Takes out of the held-out photos those whose bytes are also learnt from: they would measure
/// memory. Only photos of equal length are read.
pub fn drop_copies(items: &[Item], split: &mut Split, skipped: &mut Skips) {
    let mut lengths: HashMap<u64, Vec<usize>> = HashMap::new();
    for index in &split.train {
        if let Some(bytes) = length(&items[*index].source) {
            lengths.entry(bytes).or_default().push(*index);
        }
    }
    let mut hashes: HashMap<u64, HashSet<[u8; 32]>> = HashMap::new();
    split.held_out.retain(|index| {
        let item = &items[*index];
        let Some(bytes) = length(&item.source) else {
            return true;
        };
        let Some(candidates) = lengths.get(&bytes) else {
            return true;
        };
        let learnt = hashes.entry(bytes).or_insert_with(|| {
            let sources = candidates.iter().map(|index| &items[*index].source);
            sources.filter_map(hash).collect()
        });
        let copy = hash(&item.source).is_some_and(|hash| learnt.contains(&hash));
        if copy {
            skipped.add(&item.name, "held out, but the same photo is learnt from");
        }
        !copy
    });
}

fn length(source: &Source) -> Option<u64> {
    match source {
        Source::File(path) => fs::metadata(path).ok().map(|meta| meta.len()),
        Source::Part { bytes, .. } => Some(*bytes),
    }
}

fn hash(source: &Source) -> Option<[u8; 32]> {
    let bytes = photos::bytes(source).ok()?;
    Some(Sha256::digest(bytes).into())
}
