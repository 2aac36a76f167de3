//! The daemon's clock: one origin for every duration.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::moment::Moment;
use crate::wall_clock;

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
        Moment {
            uptime: self.uptime(),
            wall: Timestamp::now(),
            clock: wall_clock::trust(),
        }
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
