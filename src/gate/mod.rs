//! Work that cannot matter is skipped: a change gate per zone, and whether a scene can be seen at
//! all. Pure: frames and time are arguments.
//!
//! Both look at a few thousand sampled pixels only, so that a 1080p frame costs well under a
//! millisecond.

mod grid;
mod scene;
#[cfg(test)]
mod tests;

use std::time::Duration;

use image::RgbImage;

use crate::config::{self, Shape};
pub use scene::{Scene, SceneRules, Sight, Visibility};

use grid::Grid;

/// A global step of brightness or tint this many times the threshold counts as a change, although
/// smaller ones are taken for exposure and white balance.
const GLOBAL_STEP: f32 = 4.0;

/// Whether a zone has to be encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Encode it.
    Encode(Why),
    /// It looks like the last encoded frame.
    Skip,
}

/// Why a zone is encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// The gate is off.
    Ungated,
    /// Nothing was encoded before, or [`Gate::reset`] was called.
    First,
    /// The most changed cell moved by this much, 0–1.
    Changed(f32),
    /// Nothing changed for `force_every`.
    Forced,
}

/// The change gate of one zone. It compares with the last frame it let through, not with the last
/// one it saw, so that a slow drift adds up until it counts.
#[derive(Clone, Debug)]
pub struct Gate {
    rules: config::Gate,
    encoded: Option<(Duration, Grid)>,
}

impl Gate {
    /// A gate that lets the first frame through.
    pub fn new(rules: config::Gate) -> Self {
        Self {
            rules,
            encoded: None,
        }
    }

    /// Whether `shape` of `rgb` has to be encoded at `now` (uptime). When it says so, the caller is
    /// expected to do it; if that fails, [`Gate::reset`].
    pub fn look(&mut self, now: Duration, rgb: &RgbImage, shape: &Shape) -> Verdict {
        if !self.rules.enabled {
            return Verdict::Encode(Why::Ungated);
        }
        let grid = Grid::of(rgb, shape);
        let why = match &self.encoded {
            None => Some(Why::First),
            Some((at, reference)) => {
                let change = grid.change_from(reference);
                let amount = change.cell.max(change.global / GLOBAL_STEP);
                if amount >= self.rules.threshold {
                    Some(Why::Changed(amount))
                } else {
                    let age = now.saturating_sub(*at);
                    (age >= self.rules.force_every).then_some(Why::Forced)
                }
            }
        };
        match why {
            Some(why) => {
                self.encoded = Some((now, grid));
                Verdict::Encode(why)
            }
            None => Verdict::Skip,
        }
    }

    /// Lets the next frame through: after a failed encode, after the zone could not be seen, and
    /// when its shape or labels changed.
    pub fn reset(&mut self) {
        self.encoded = None;
    }
}
