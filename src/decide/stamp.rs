//! Times that survive a wall clock that is set.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::event::Event;
use crate::moment::Moment;

/// The wall clock jumped when it and the uptime disagree by more than this; a `since` is then
/// computed anew from the uptime.
const CLOCK_JUMP: SignedDuration = SignedDuration::from_secs(2);

/// A time on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    uptime: Duration,
    pub(super) wall: Timestamp,
}

impl Stamp {
    pub(super) fn at(now: &Moment) -> Self {
        Self {
            uptime: now.uptime,
            wall: now.wall,
        }
    }

    /// The earlier `uptime`, on the wall clock as it runs now.
    pub(super) fn before(now: &Moment, uptime: Duration) -> Self {
        let ago = SignedDuration::try_from(now.uptime.saturating_sub(uptime));
        let wall = ago.ok().and_then(|ago| now.wall.checked_sub(ago).ok());
        Self {
            uptime,
            wall: wall.unwrap_or(Timestamp::MIN),
        }
    }

    /// The wall time of this stamp, corrected when the wall clock jumped since, never after `now`.
    pub(super) fn wall_at(&self, now: &Moment) -> Timestamp {
        let as_of_now = Self::before(now, self.uptime).wall;
        let jump = as_of_now.duration_since(self.wall).abs();
        let wall = if jump > CLOCK_JUMP {
            as_of_now
        } else {
            self.wall
        };
        wall.min(now.wall)
    }
}

/// Payloads carry milliseconds, and `since` never comes after `time`.
pub(super) fn tidy(event: Event) -> Event {
    Event {
        time: to_milliseconds(event.time),
        since: to_milliseconds(event.since.min(event.time)),
        ..event
    }
}

pub(super) fn to_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}
