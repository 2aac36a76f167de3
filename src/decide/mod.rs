//! From scores to calm states and events, over time. Pure: no I/O, no clock, no global.
//!
//! A [`Board`] holds one [`Decider`] per zone and label. The caller tells it what each frame showed
//! ([`Look`]) or that nothing can be seen ([`Unseen`]), always with a
//! [`Moment`](crate::moment::Moment), and publishes the [`Effect`]s it gets back.
//!
//! One frame of a camera, as the pipeline treats it:
//!
//! ```text
//! sight = scene.look(uptime, rgb)                     gate::Scene, one per camera
//! sight.visibility.unseen() is a cause  → board.unseen(camera, cause, now); reset the camera's gates
//! sight.in_doubt                        → nothing: neither scored nor UNKNOWN yet
//! otherwise, per zone:
//!   board.needs_scores(zone)            → gate.reset()
//!   gate.look(…) = Skip                 → board.look(zone, Look::Unchanged, now)
//!   gate.look(…) = Encode               → encode, score, board.look(zone, Look::Scores(…), now)
//!   encoding failed                     → gate.reset(); board.unseen(camera, Failed, now)
//! ```
//!
//! # Rules
//! - A state changes only after the median of the window was on the other side of its threshold for
//!   the whole dwell time, at every frame in between.
//! - Before any decision the window has to hold at least half of its frames ([`Window::median`]).
//! - UNKNOWN is the state at the start and whenever nothing can be seen. It is left to ON as above,
//!   and to OFF once the zone was visible for the dwell time and is not over the enter threshold; so
//!   a visible zone is UNKNOWN for at most twice its dwell time after the window is filled.
//! - With a [`BaselineRule`](crate::config::BaselineRule) a label has to stand out from its usual
//!   score as well to turn ON, and turns OFF also when it fell back to it. Until what is usual was
//!   learned the state stays UNKNOWN.
//! - At most one label of a group is ON in a zone: the one with the greater median takes over.
//! - A frame that the change gate skipped counts as one more look at the last encoded one: a gated
//!   camera decides exactly as an ungated one that sees the same scene.

mod baseline;
mod board;
mod decider;
mod entry;
mod ids;
mod plan;
mod stamp;
mod window;
mod zone;

#[cfg(test)]
mod tests;

pub use board::{Board, Counters, LabelView};
pub use decider::{Decider, Usual};
pub use ids::{EventIds, RandomUlids};
pub use plan::{LabelPlan, OpenEvent, ZonePlan, plan, with_enter};
pub use window::Window;

use crate::config::Id;
use crate::event::{Attributes, CameraStatus, Event, ZoneState};

/// What one encoded frame says about one label in one zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Probability over the label's group and the negatives, 0–1.
    pub probability: f32,
    /// Probability minus the best competitor's, −1–1.
    pub margin: f32,
}

impl Observation {
    /// Whether both numbers are finite and in range; others are refused and counted.
    pub fn is_valid(&self) -> bool {
        (0.0..=1.0).contains(&self.probability) && (-1.0..=1.0).contains(&self.margin)
    }
}

/// What one frame showed in one zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look<'a> {
    /// The zone was encoded: one observation per label, in the zone's order.
    Scores(&'a [Observation]),
    /// The change gate found the zone unchanged: the last observations still hold.
    Unchanged,
}

/// Why nothing can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unseen {
    /// The device is gone or cannot be opened.
    Lost,
    /// No frames arrive, or the picture is frozen.
    Stalled,
    /// Too dark to tell.
    Dark,
    /// Something is in front of the lens.
    Covered,
    /// Deciding was paused by a command.
    Paused,
    /// Frames arrive but cannot be scored (the encoder fails, or its numbers are nonsense).
    Failed,
}

impl Unseen {
    /// The camera status that says the same; `None` when the camera itself is fine.
    pub fn camera_status(self) -> Option<CameraStatus> {
        match self {
            Self::Lost => Some(CameraStatus::Lost),
            Self::Stalled => Some(CameraStatus::Stalled),
            Self::Dark | Self::Covered => Some(CameraStatus::Covered),
            Self::Paused | Self::Failed => None,
        }
    }
}

/// What the caller has to publish, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The retained state of a zone and label, or new numbers beside the same state.
    State {
        /// Zone id.
        zone: Id,
        /// Label slug.
        label: Id,
        /// The state that holds now.
        state: ZoneState,
        /// Numbers beside it. While UNKNOWN: the last that were seen, 0 before the first.
        attributes: Attributes,
        /// False when only the numbers moved.
        changed: bool,
    },
    /// An event, complete but for its picture (`evidence` is `None`). A `confirmed` one has to be
    /// kept as an [`OpenEvent`] until its `ended` follows.
    Event(Box<Event>),
    /// A zone or label that no longer exists: its retained topics should be cleared.
    Removed {
        /// Zone id.
        zone: Id,
        /// Label slug.
        label: Id,
    },
}
