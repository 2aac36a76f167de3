//! How long to wait before a failed source is opened again.

use std::time::Duration;

/// A fixed doubling schedule: 0.5 s, 1 s, … 30 s. There is nobody to be polite to on a local bus, so
/// it has no jitter. Pure: the caller waits.
#[derive(Clone, Debug)]
pub struct ReopenSchedule {
    next: Duration,
}

impl ReopenSchedule {
    /// The first pause.
    pub const FIRST: Duration = Duration::from_millis(500);
    /// The longest pause.
    pub const LONGEST: Duration = Duration::from_secs(30);
    /// A source has recovered once it delivered frames for this long; a shorter success does not
    /// reset the schedule, or a source that fails right after opening would be opened forever
    /// without a pause worth the name.
    pub const RECOVERED_AFTER: Duration = Duration::from_secs(10);

    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Self::LONGEST);
        pause
    }

    /// Notes how long the source that failed had been delivering frames.
    pub fn delivered_for(&mut self, time: Duration) {
        if time >= Self::RECOVERED_AFTER {
            self.next = Self::FIRST;
        }
    }

    /// Waits the longest from here on: nothing will change by itself.
    pub fn expect_long(&mut self) {
        self.next = Self::LONGEST;
    }
}

impl Default for ReopenSchedule {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut schedule = ReopenSchedule::default();
        let pauses = std::array::from_fn(|_| schedule.pause().as_millis());
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn only_a_lasting_success_starts_the_schedule_again() {
        let mut schedule = ReopenSchedule::default();
        schedule.pause();
        schedule.delivered_for(Duration::from_secs(1));
        assert_eq!(schedule.pause(), Duration::from_secs(1));
        schedule.delivered_for(Duration::from_secs(10));
        assert_eq!(schedule.pause(), ReopenSchedule::FIRST);
    }
}
