//! Whether requests are listened to. A broker that cannot be told our packet limit (MQTT 3.1.1) sends
//! a retained packet over it to every connection that subscribes, and so ends each of them: after a
//! few in a row nothing is subscribed to for a while. Pure: time is an argument.

use std::time::{Duration, Instant};

use super::backoff::HEALTHY;

/// After so many subscriptions in a row that a packet over the limit ended, listening rests.
const IN_A_ROW: u32 = 2;
/// How long it rests; then one more such packet is enough for the next rest.
pub(super) const REST: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Listening {
    oversized_in_a_row: u32,
    /// When this connection subscribed.
    since: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Listening {
    /// Whether a connection that is up should subscribe now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.since.is_none() && self.rests_until.is_none_or(|until| now >= until)
    }

    /// The connection subscribes. True after a rest.
    pub fn begin(&mut self, now: Instant) -> bool {
        self.since = Some(now);
        self.rests_until.take().is_some()
    }

    /// The connection ended, `oversized` when a packet over the limit did it. True when listening
    /// rests from now on.
    pub fn end(&mut self, oversized: bool, now: Instant) -> bool {
        let listened = self.since.take().map(|since| now - since);
        if listened.is_some_and(|time| time >= HEALTHY) {
            self.oversized_in_a_row = 0;
        }
        if !oversized {
            return false;
        }
        self.oversized_in_a_row += 1;
        if self.oversized_in_a_row < IN_A_ROW {
            return false;
        }
        self.oversized_in_a_row = IN_A_ROW - 1;
        self.rests_until = Some(now + REST);
        true
    }

    /// Rests that are over after `time`.
    #[cfg(test)]
    pub fn resting(time: Duration) -> Self {
        Self {
            oversized_in_a_row: IN_A_ROW - 1,
            since: None,
            rests_until: Some(Instant::now() + time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_secs(1);

    /// One connection that subscribes and is ended by a giant after `lived`.
    fn giant(listening: &mut Listening, now: &mut Instant, lived: Duration) -> bool {
        listening.begin(*now);
        *now += lived;
        listening.end(true, *now)
    }

    #[test]
    fn two_giants_in_a_row_let_listening_rest_for_ten_minutes() {
        let (mut listening, mut now) = (Listening::default(), Instant::now());
        assert!(!giant(&mut listening, &mut now, MOMENT));
        assert!(listening.is_due(now));
        assert!(giant(&mut listening, &mut now, MOMENT));
        assert!(!listening.is_due(now));
        assert!(!listening.end(false, now + MOMENT), "a lost connection");
        assert!(!listening.is_due(now + REST - MOMENT));
        assert!(listening.is_due(now + REST));
    }

    #[test]
    fn a_retained_giant_that_is_still_there_after_the_rest_costs_one_connection() {
        let (mut listening, mut now) = (Listening::default(), Instant::now());
        giant(&mut listening, &mut now, MOMENT);
        giant(&mut listening, &mut now, MOMENT);
        now += REST;
        assert!(giant(&mut listening, &mut now, MOMENT));
        assert!(!listening.is_due(now));
    }

    #[test]
    fn giants_that_come_now_and_then_are_not_added_up() {
        let (mut listening, mut now) = (Listening::default(), Instant::now());
        for _ in 0..5 {
            assert!(!giant(&mut listening, &mut now, HEALTHY));
            assert!(listening.is_due(now));
        }
        assert!(
            giant(&mut listening, &mut now, MOMENT),
            "this one is at once"
        );
    }

    #[test]
    fn a_connection_listens_once() {
        let (mut listening, now) = (Listening::default(), Instant::now());
        listening.begin(now);
        assert!(!listening.is_due(now + REST));
    }
}
