//! What decides a run, so that what an interrupted one left is taken up by the same one only.

use sha2::{Digest, Sha256};

use super::embed;
use super::session::Settings;
use super::taught::Taught;
use super::tuning::Tuning;
use crate::bundle::{Bundle, hex};
use crate::train::data::{Dataset, Split};

/// Hex digits that name the run of exactly these settings on exactly these photos.
pub fn of(
    bundle: &Bundle,
    dataset: &Dataset,
    split: &Split,
    views: u8,
    settings: &Settings,
    tuning: Option<&Tuning>,
    taught: Option<&Taught>,
) -> String {
    let mut hash = Sha256::new();
    hash.update(bundle.sha256());
    hash.update(format!(
        "{views} {settings:?} {tuning:?} {:?}",
        dataset.classes
    ));
    if let Some(taught) = taught {
        hash.update(&taught.sha256);
        hash.update([u8::from(taught.decides)]);
        hash.update(format!("{:?}", taught.texts.strings));
    }
    for (held_out, side) in [(0, &split.train), (1, &split.held_out)] {
        for index in side {
            let item = &dataset.items[*index];
            hash.update([held_out]);
            hash.update(embed::stamp(item).unwrap_or_default());
            hash.update(format!("{item:?}"));
        }
    }
    hex(&hash.finalize()[..8])
}
