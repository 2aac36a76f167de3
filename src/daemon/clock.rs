//! The daemon's clock: one origin for every duration.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::moment::{Clock as Trust, Moment};

/// systemd-timesyncd and chrony's helper leave this file once the clock was set.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// Gives [`Moment`]s, all from one start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Now, on both clocks.
    pub fn now(&self) -> Moment {
        let trust = if Path::new(SYNCHRONISED).exists() {
            Trust::Synced
        } else {
            Trust::Unsynced
        };
        Moment {
            uptime: self.uptime(),
            wall: Timestamp::now(),
            clock: trust,
        }
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
