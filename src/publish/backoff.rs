//! Reconnect delays: exponential back-off with full jitter, so that a hundred devices do not come
//! back in the same second after a broker restart. Pure: time and chance are arguments.
//!
//! Full jitter draws uniformly between zero and the exponential ceiling (Marc Brooker,
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

/// Ceiling of the first delay.
pub const FIRST: Duration = Duration::from_secs(1);
/// Largest ceiling.
pub const MOST: Duration = Duration::from_secs(60);
/// A connection that lived at least this long ends a row of failures. A shorter one counts as a
/// failure, or a broker that accepts and drops would be asked without pause.
pub const HEALTHY: Duration = Duration::from_secs(30);
/// No delay is shorter, whatever was drawn.
pub const LEAST: Duration = Duration::from_millis(100);

/// Counts failures in a row and turns them into delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait before the next attempt. `lived` is how long the connection that just
    /// ended had been up, `None` when it never came up; `random` is uniform in 0–1.
    pub fn delay(&mut self, lived: Option<Duration>, random: f64) -> Duration {
        if lived.is_some_and(|lived| lived >= HEALTHY) {
            self.failures = 0;
        }
        let ceiling = Self::ceiling(self.failures);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0)).max(LEAST)
    }

    /// `min(60 s, 1 s · 2^failures)`.
    fn ceiling(failures: u32) -> Duration {
        FIRST
            .saturating_mul(2_u32.saturating_pow(failures.min(16)))
            .min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ceilings(backoff: &mut Backoff, lived: Option<Duration>, n: usize) -> Vec<u64> {
        (0..n)
            .map(|_| backoff.delay(lived, 1.0).as_secs())
            .collect()
    }

    #[test]
    fn the_ceiling_doubles_from_one_second_to_a_minute() {
        let mut backoff = Backoff::default();
        let seen = ceilings(&mut backoff, None, 9);
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_short_lived_connection_does_not_reset_the_row() {
        let mut backoff = Backoff::default();
        ceilings(&mut backoff, None, 4);
        let lived = Some(HEALTHY - Duration::from_millis(1));
        assert_eq!(backoff.delay(lived, 1.0), Duration::from_secs(16));
    }

    #[test]
    fn a_long_lived_connection_resets_the_row() {
        let mut backoff = Backoff::default();
        ceilings(&mut backoff, None, 9);
        assert_eq!(backoff.delay(Some(HEALTHY), 1.0), FIRST);
    }

    #[test]
    fn the_delay_is_drawn_from_the_whole_range() {
        let mut backoff = Backoff { failures: 4 };
        assert_eq!(backoff.delay(None, 0.5), Duration::from_secs(8));
        let mut backoff = Backoff { failures: 4 };
        assert_eq!(backoff.delay(None, 0.0), LEAST);
    }

    proptest! {
        #[test]
        fn no_row_of_failures_leaves_the_bounds(
            steps in prop::collection::vec((prop::option::of(0_u64..100), -0.5_f64..1.5), 0..100),
        ) {
            let mut backoff = Backoff::default();
            for (lived, random) in steps {
                let delay = backoff.delay(lived.map(Duration::from_secs), random);
                prop_assert!((LEAST..=MOST).contains(&delay));
            }
        }
    }
}
