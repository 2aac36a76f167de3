//! Time as an argument: every pure part takes a [`Moment`] instead of reading a clock.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether the wall clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The kernel reports a synchronised clock.
    Synced,
    /// No time source has confirmed the clock since boot; `time` may be off by years.
    Unsynced,
}

/// One instant, as both clocks see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Time since the daemon started; never goes backwards. Every duration is computed from this.
    pub uptime: Duration,
    /// Wall-clock time, for people; may jump.
    pub wall: Timestamp,
    /// Whether `wall` can be trusted.
    pub clock: Clock,
}
