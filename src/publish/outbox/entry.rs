//! The index entry of one event, and how old it is.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::store::{Payload, Stored};
use crate::moment::Clock;
use crate::wall_clock;

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

    /// Within a run by the steady clock; across runs by the wall clock where it could be trusted then
    /// and can be now, else only since this run began.
    pub fn age(&self, now: &Now) -> Duration {
        let steady = now.steady.saturating_duration_since(self.seen);
        if !self.earlier || !self.synced || now.clock == Clock::Unsynced {
            return steady;
        }
        let ms = now.wall.as_millisecond().saturating_sub(self.unix_ms);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0)).max(steady)
    }
}

/// The present on both clocks, and whether the wall clock can be trusted.
pub(super) struct Now {
    pub steady: Instant,
    pub wall: Timestamp,
    pub clock: Clock,
}

impl Now {
    /// Reads the clocks; the wall clock is trusted only where `asks` has its state looked up.
    pub fn read(asks: bool) -> Self {
        Self {
            steady: Instant::now(),
            wall: Timestamp::now(),
            clock: if asks {
                wall_clock::trust()
            } else {
                Clock::Unsynced
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

    fn found(synced: bool, wall: Timestamp, steady: Instant) -> Entry {
        let stored = Stored {
            sequence: 1,
            unix_ms: wall.as_millisecond(),
            synced,
            event_bytes: 1,
            evidence_bytes: 0,
        };
        Entry::found(&stored, steady)
    }

    #[test]
    fn only_a_clock_that_was_and_is_trusted_ages_events_of_an_earlier_run() {
        let (steady, wall) = (Instant::now(), Timestamp::now());
        let in_years = |clock| Now {
            steady: steady + Duration::from_secs(3),
            wall: wall + YEARS,
            clock,
        };
        for (was, is, age) in [
            (true, Clock::Synced, YEARS),
            (true, Clock::Unsynced, Duration::from_secs(3)),
            (false, Clock::Synced, Duration::from_secs(3)),
            (false, Clock::Unsynced, Duration::from_secs(3)),
        ] {
            let entry = found(was, wall, steady);
            assert_eq!(entry.age(&in_years(is)), age, "{was} {is:?}");
        }
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_older() {
        let (steady, wall) = (Instant::now(), Timestamp::now());
        let before = Now {
            steady,
            wall: wall - YEARS,
            clock: Clock::Synced,
        };
        assert_eq!(found(true, wall, steady).age(&before), Duration::ZERO);
    }
}
