//! Everything that leaves the board: the mqtt thread, its outbox, and the commands that come in.

pub mod backoff;
mod compose;
mod conversation;
mod counters;
pub mod discovery;
mod inbox;
mod limiter;
mod link;
mod listening;
mod mailbox;
pub mod outbox;
pub mod probe;
mod publisher;
pub mod request;
mod session;
#[cfg(test)]
mod session_tests;
mod suspect;
pub(crate) mod tls;

pub use outbox::Outbox;
pub use publisher::{PublishError, Publisher, check, spawn};

use std::time::Duration;

use crate::config::{CommandName, Id};
use crate::event::{Attributes, CameraStatus, Event, Health, Info, ZoneState};
use crate::topics::Setting;
use crate::update::Remote;

/// Most bytes of an evidence or snapshot JPEG; larger ones are dropped and counted.
pub const MAX_PICTURE_BYTES: usize = 96 * 1024;

/// What the other threads hand to [`Publisher::send`].
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// At least once, through the disk outbox, in order.
    Event {
        /// The event; `evidence` names the picture when there is one.
        event: Box<Event>,
        /// JPEG of at most 96 KiB, published before the event.
        evidence: Option<Vec<u8>>,
        /// What is needed to end this event after a restart: kept from `confirmed` (or `updated`)
        /// until `ended` is stored. Opaque here; [`Outbox::open_events`] gives it back.
        open: Option<serde_json::Value>,
    },
    /// Retained state of a zone and label.
    Zone {
        /// Zone id.
        zone: Id,
        /// Label slug.
        label: Id,
        /// New state.
        state: ZoneState,
        /// Numbers beside it.
        attributes: Attributes,
    },
    /// A zone and label that no longer exist: their retained topics are cleared.
    RemovedZone {
        /// Zone id.
        zone: Id,
        /// Label slug.
        label: Id,
    },
    /// Retained camera status.
    Camera {
        /// Camera id.
        camera: Id,
        /// New status.
        status: CameraStatus,
    },
    /// A picture of a camera, retained for Home Assistant's image entity.
    Snapshot {
        /// Camera id.
        camera: Id,
        /// JPEG of at most 96 KiB.
        jpeg: Vec<u8>,
    },
    /// Periodic health; the mqtt thread fills in the queue.
    Health(Box<Health>),
    /// Retained facts about this run.
    Info(Box<Info>),
    /// Answer to a [`Command`].
    Reply {
        /// Which command.
        command: CommandName,
        /// JSON, with the command's `id`.
        body: serde_json::Value,
    },
    /// Reported value of `B/config/<label>/<setting>`, retained.
    ConfigValue {
        /// Label slug.
        label: Id,
        /// Which of its settings.
        setting: Setting,
        /// Value as text.
        value: String,
    },
}

/// A request from the broker, parsed and size-capped; refused ones were already answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `B/command/snapshot`: `{"id": …, "camera": …}`.
    Snapshot {
        /// Echoed in the reply.
        id: serde_json::Value,
        /// Which camera; `None` is the first.
        camera: Option<Id>,
    },
    /// `B/command/reload`.
    Reload {
        /// Echoed in the reply.
        id: serde_json::Value,
    },
    /// `B/command/pause`: `{"id": …, "seconds": n}`, 0 resumes.
    Pause {
        /// Echoed in the reply.
        id: serde_json::Value,
        /// How long; zero resumes at once.
        time: Duration,
    },
    /// `B/command/install-bundle`: `{"id": …, "url": …, "sha256": …}`.
    InstallBundle {
        /// Echoed in every reply.
        id: serde_json::Value,
        /// Where it is downloaded from.
        remote: Remote,
    },
    /// `B/command/rollback-bundle`.
    RollbackBundle {
        /// Echoed in the reply.
        id: serde_json::Value,
    },
    /// `B/command/set` or `B/config/<key>/set`: run-time change of labels and thresholds.
    Set {
        /// Echoed in the reply; null for `B/config/<key>/set`.
        id: serde_json::Value,
        /// What to change.
        change: Change,
    },
}

/// A run-time change; persisted, survives a restart.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// New enter threshold of a label (key `<label>/threshold`).
    Threshold {
        /// Label slug.
        label: Id,
        /// 0–1.
        value: f32,
    },
    /// New prompt of a label (key `<label>/prompt`).
    Prompt {
        /// Label slug.
        label: Id,
        /// Italian noun or prompt, 1–256 characters.
        text: String,
    },
    /// Replaces the whole label list: slug and Italian noun.
    Labels(Vec<(Id, String)>),
}
