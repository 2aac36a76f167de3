//! Which photos are learnt from and which are held out.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::Item;

/// Positions in [`super::Dataset::items`], each exactly once.
///
/// A photo's place is decided by a hash of the seed and its name alone: the same on every machine,
/// and photos that are added later hardly move the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// To learn from, shuffled.
    pub train: Vec<usize>,
    /// Never learnt from, shuffled.
    pub held_out: Vec<usize>,
}

impl Split {
    /// Holds out `share` (0–1) of every class, rounded; of a class with two photos or more at least
    /// one is held out and at least one is not. Photos without a class count as one of their own.
    /// With a share of 0 nothing is held out.
    pub fn new(items: &[Item], share: f64, seed: u64) -> Self {
        let share = share.clamp(0.0, 1.0);
        let mut classes: BTreeMap<Option<usize>, Vec<([u8; 32], usize)>> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let mut hash = Sha256::new();
            hash.update(seed.to_le_bytes());
            hash.update(&item.name);
            let entry = (hash.finalize().into(), index);
            classes.entry(item.class).or_default().push(entry);
        }
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for mut photos in classes.into_values() {
            photos.sort_unstable();
            let count = photos.len();
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a few million"
            )]
            let wanted = (count as f64 * share).round() as usize;
            let held = match count {
                _ if share == 0.0 => 0,
                0 | 1 => 0,
                _ => wanted.clamp(1, count - 1),
            };
            held_out.extend_from_slice(&photos[..held]);
            train.extend_from_slice(&photos[held..]);
        }
        let order = |mut photos: Vec<([u8; 32], usize)>| {
            photos.sort_unstable();
            photos.into_iter().map(|(_, index)| index).collect()
        };
        Self {
            train: order(train),
            held_out: order(held_out),
        }
    }

    /// Holds out `most` photos at most, of those that were: a random part. The others are learnt from.
    pub fn cap_held_out(&mut self, most: usize) {
        let rest = self.held_out.split_off(most.min(self.held_out.len()));
        self.train.extend(rest);
    }
}
