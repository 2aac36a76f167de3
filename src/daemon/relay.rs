//! Threads that count their progress, passed on to the watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::watchdog::{Pulse, Watchdog};

/// The counters that are followed.
#[derive(Debug, Default)]
pub struct Relays(Vec<Relay>);

#[derive(Debug)]
struct Relay {
    name: String,
    counter: Arc<AtomicU64>,
    last: u64,
    pulse: Pulse,
}

impl Relays {
    /// Follows `counter`: whenever it grew, the stage `name` advanced.
    pub fn add(
        &mut self,
        watchdog: &mut Watchdog,
        name: &str,
        counter: Arc<AtomicU64>,
        max_silence: Duration,
        now: Duration,
    ) {
        let pulse = watchdog.register(name, max_silence, now);
        self.0.push(Relay {
            name: name.to_owned(),
            counter,
            last: 0,
            pulse,
        });
    }

    /// Stops following the stage `name`.
    pub fn remove(&mut self, name: &str) {
        if let Some(n) = self.0.iter().position(|relay| relay.name == name) {
            self.0.swap_remove(n).pulse.finish();
        }
    }

    /// Looks at every counter.
    pub fn pass_on(&mut self, now: Duration) {
        for relay in &mut self.0 {
            let count = relay.counter.load(Ordering::Relaxed);
            if count != relay.last {
                relay.last = count;
                relay.pulse.advance(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchdog::Verdict;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_counter_that_stands_still_starves_the_watchdog_until_it_is_removed() {
        let (mut watchdog, mut relays) = (Watchdog::default(), Relays::default());
        let counter = Arc::new(AtomicU64::new(0));
        relays.add(
            &mut watchdog,
            "mqtt",
            Arc::clone(&counter),
            5 * SECOND,
            Duration::ZERO,
        );
        counter.store(1, Ordering::Relaxed);
        relays.pass_on(4 * SECOND);
        assert_eq!(watchdog.verdict(8 * SECOND), Verdict::Feed);
        relays.pass_on(10 * SECOND);
        let verdict = watchdog.verdict(10 * SECOND);
        assert!(matches!(verdict, Verdict::Starve { ref stage, .. } if stage == "mqtt"));
        relays.remove("mqtt");
        assert_eq!(watchdog.verdict(60 * SECOND), Verdict::Feed);
    }
}
