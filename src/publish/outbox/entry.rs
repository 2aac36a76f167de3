//! The index entry of one event, and how old it is.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::store::{Payload, Stored};

/// One event that waits.
pub(super) struct Entry {
    pub sequence: u64,
    /// Wall clock when it was stored.
    pub unix_ms: i64,
    /// Whether that clock was synchronised.
    pub synced: bool,
    /// When this run stored or found it.
    pub seen: Instant,
    /// Stored by an earlier run.
    pub earlier: bool,
    pub event_bytes: u64,
    pub evidence_bytes: u64,
    /// `None` once it is on disk. Unsaved entries are always the newest ones.
    pub unsaved: Option<Payload>,
}

impl Entry {
    /// The entry of an event that an earlier run stored.
    pub fn found(stored: &Stored, seen: Instant) -> Self {
        Self {
            sequence: stored.sequence,
            unix_ms: stored.unix_ms,
            synced: stored.synced,
            seen,
            earlier: true,
            event_bytes: stored.event_bytes,
            evidence_bytes: stored.evidence_bytes,
            unsaved: None,
        }
    }

    /// What counts against the limit.
    pub fn bytes(&self) -> u64 {
        self.event_bytes + self.evidence_bytes
    }

    /// Within a run by the steady clock; across runs by the wall clock where it could be trusted,
    /// else only since this run began.
    pub fn age(&self, now: Instant, wall: Timestamp) -> Duration {
        let steady = now.saturating_duration_since(self.seen);
        if !self.earlier || !self.synced {
            return steady;
        }
        let ms = wall.as_millisecond().saturating_sub(self.unix_ms);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0)).max(steady)
    }
}
