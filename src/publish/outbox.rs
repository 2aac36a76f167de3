//! The disk outbox: events wait here until the broker acknowledged them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config;
use crate::event::{Event, QueueHealth};

mod disk;
mod entry;
#[cfg(test)]
mod failing;
mod overlay;
#[cfg(test)]
mod platter;
#[cfg(test)]
mod power_tests;
mod queue;
mod store;
#[cfg(test)]
mod tests;

use queue::Queue;

/// Pictures older than this are not worth sending; the contract lets a broker drop them too.
pub(super) const EVIDENCE_EXPIRY: Duration = Duration::from_secs(3600);

/// One event on its way into the outbox.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event; its `sequence` is assigned by the outbox.
    pub event: Box<Event>,
    /// JPEG published before it.
    pub evidence: Option<Vec<u8>>,
    /// Kept until the event's `ended` is stored; see [`Outbox::open_events`].
    pub open: Option<serde_json::Value>,
}

/// One event on its way out.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub sequence: u64,
    pub event: Event,
    pub evidence: Option<Vec<u8>>,
    /// Time until the event expires.
    pub remaining: Duration,
}

/// Bounded store-and-forward queue of events; clones share it.
///
/// Sequence numbers grow by one per event, also across restarts. Where the disk cannot tell the
/// last one (damaged, or refused at the start), they go on from the wall clock in milliseconds.
#[derive(Clone)]
pub struct Outbox {
    queue: Arc<Mutex<Queue>>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// Opens (or makes) `outbox.redb` in `state_dir`. Never fails: where the disk refuses, events
    /// live in memory and [`QueueHealth::durable`] is false; the disk is tried again from time to
    /// time. What is on a disk that can be read and not written is sent first, in order. A damaged file is renamed to `outbox.redb.corrupt-N` and a new one started.
    pub fn open(state_dir: &Path, limits: config::Outbox) -> Self {
        Self::with(Queue::open(state_dir, limits, Box::new(store::open_file)))
    }

    fn with(queue: Queue) -> Self {
        Self {
            queue: Arc::new(Mutex::new(queue)),
        }
    }

    /// Events that were confirmed and never ended, with what was stored as `open`: after a
    /// restart each has to be ended.
    pub fn open_events(&self) -> Vec<(String, serde_json::Value)> {
        self.lock().open_events()
    }

    /// Stores events in one transaction and gives the sequence numbers they got. Blocks until
    /// they are on disk.
    pub fn append(&self, batch: Vec<NewEvent>) -> Vec<u64> {
        self.lock().append(batch)
    }

    /// Length, bytes and drops.
    pub fn health(&self) -> QueueHealth {
        self.lock().health()
    }

    /// The sequence number the next event will get.
    pub(super) fn next_sequence(&self) -> u64 {
        self.lock().next_sequence()
    }

    /// The oldest event that is not in `busy`; what expired is dropped on the way.
    pub(super) fn next_ready(&self, busy: &BTreeSet<u64>) -> Option<Ready> {
        self.lock().next_ready(busy)
    }

    /// Forgets events that the broker acknowledged. They leave the disk with the next
    /// transaction, at the latest with the next [`Outbox::tend`] that is due: a crash before that
    /// sends them once more.
    pub(super) fn acknowledge(&self, sequence: u64) {
        self.lock().remove(sequence);
    }

    /// Gives up on an event that no broker will ever take.
    pub(super) fn reject(&self, sequence: u64) {
        self.lock().reject(sequence);
    }

    /// Gives up on the picture of an event, which then goes without.
    pub(super) fn drop_picture(&self, sequence: u64) {
        self.lock().drop_picture(sequence);
    }

    /// Drops what expired, tries a disk that refused again, and writes deletions that waited.
    pub(super) fn tend(&self) {
        self.lock().tend();
    }

    /// Writes deletions that waited, now.
    pub(super) fn flush(&self) {
        self.lock().flush();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere does not make the queue wrong: it changes only after the disk did.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
