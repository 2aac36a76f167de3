//! Is every stage of the daemon alive? The watchdog is fed only while each one advances or is
//! legitimately waiting; otherwise systemd restarts the daemon.
//!
//! A stage marks its progress through its [`Pulse`], from its own thread; [`Watchdog::verdict`] is
//! pure over the time it is given.

mod systemd;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use systemd::Systemd;

/// All stages that have to be alive.
#[derive(Debug, Default)]
pub struct Watchdog {
    stages: Vec<Stage>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    max_silence: Duration,
    mark: Arc<AtomicU64>,
}

/// Whether the watchdog may be fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every stage is alive.
    Feed,
    /// One is not.
    Starve {
        /// The stage that is silent for the longest time, relative to what it may.
        stage: String,
        /// Since its last mark.
        silent_for: Duration,
        /// Its thread ended without [`Pulse::finish`]: it panicked or returned early.
        died: bool,
    },
}

/// What a stage last said. The low two bits of a mark; the rest is the uptime in milliseconds.
const RUNNING: u64 = 0;
const WAITING: u64 = 1;
const FINISHED: u64 = 2;
const DEAD: u64 = 3;

/// A stage's end of the watchdog: `Send`, costs one atomic store per mark. Dropped without
/// [`Pulse::finish`], as when its thread panics, it starves the watchdog.
#[derive(Debug)]
pub struct Pulse {
    mark: Arc<AtomicU64>,
}

impl Watchdog {
    /// Adds a stage that may be silent for `max_silence` while it works. `now` is its first mark.
    pub fn register(&mut self, name: &str, max_silence: Duration, now: Duration) -> Pulse {
        let mark = Arc::new(AtomicU64::new(encode(now, RUNNING)));
        self.stages.push(Stage {
            name: name.to_owned(),
            max_silence,
            mark: Arc::clone(&mark),
        });
        Pulse { mark }
    }

    /// Whether all stages are alive at `now` (uptime). Forgets those that finished.
    pub fn verdict(&mut self, now: Duration) -> Verdict {
        self.stages.retain(|stage| stage.state().1 != FINISHED);
        let overdue = |stage: &Stage| {
            let (marked_at, state) = stage.state();
            let silent_for = now.saturating_sub(marked_at);
            let late = silent_for.saturating_sub(stage.max_silence);
            let died = state == DEAD;
            let starves = died || (state == RUNNING && !late.is_zero());
            starves.then_some((died, late, silent_for))
        };
        self.stages
            .iter()
            .filter_map(|stage| Some((overdue(stage)?, stage)))
            .max_by_key(|((died, late, _), _)| (*died, *late))
            .map_or(Verdict::Feed, |((died, _, silent_for), stage)| {
                Verdict::Starve {
                    stage: stage.name.clone(),
                    silent_for,
                    died,
                }
            })
    }
}

impl Stage {
    fn state(&self) -> (Duration, u64) {
        let mark = self.mark.load(Ordering::Relaxed);
        (Duration::from_millis(mark >> 2), mark & 3)
    }
}

impl Pulse {
    /// The stage got something done, or its loop came round.
    pub fn advance(&self, now: Duration) {
        self.mark.store(encode(now, RUNNING), Ordering::Relaxed);
    }

    /// The stage is about to block for something that may rightly take any time, until its next
    /// mark.
    pub fn wait(&self, now: Duration) {
        self.mark.store(encode(now, WAITING), Ordering::Relaxed);
    }

    /// The stage ends in good order.
    pub fn finish(self) {
        self.mark.store(FINISHED, Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // Also runs at the end of `finish`, and keeps its mark.
        let die = |mark: u64| (mark & 3 != FINISHED).then_some(mark | DEAD);
        // An error means that it finished.
        let _ = self
            .mark
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, die);
    }
}

fn encode(now: Duration, state: u64) -> u64 {
    let milliseconds = u64::try_from(now.as_millis()).unwrap_or(u64::MAX >> 2);
    (milliseconds << 2) | state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn starving(verdict: &Verdict) -> Option<(&str, u64, bool)> {
        match verdict {
            Verdict::Feed => None,
            Verdict::Starve {
                stage,
                silent_for,
                died,
            } => Some((stage, silent_for.as_secs(), *died)),
        }
    }

    #[test]
    fn a_stage_that_hangs_starves_the_watchdog_until_it_moves_again() {
        let mut watchdog = Watchdog::default();
        let capture = watchdog.register("capture corsia4", at(5), at(0));
        let inference = watchdog.register("inference", at(30), at(0));
        assert_eq!(watchdog.verdict(at(5)), Verdict::Feed);
        inference.advance(at(6));
        let verdict = watchdog.verdict(at(7));
        assert_eq!(starving(&verdict), Some(("capture corsia4", 7, false)));
        capture.advance(at(8));
        assert_eq!(watchdog.verdict(at(9)), Verdict::Feed);
    }

    #[test]
    fn the_stage_that_is_most_overdue_is_named() {
        let mut watchdog = Watchdog::default();
        let _slow = watchdog.register("slow", at(30), at(0));
        let _fast = watchdog.register("fast", at(1), at(0));
        let verdict = watchdog.verdict(at(31));
        assert_eq!(starving(&verdict), Some(("fast", 31, false)));
    }

    #[test]
    fn waiting_may_take_any_time_and_ends_with_the_next_mark() {
        let mut watchdog = Watchdog::default();
        let pulse = watchdog.register("capture", at(5), at(0));
        pulse.wait(at(1));
        assert_eq!(watchdog.verdict(at(100_000)), Verdict::Feed);
        pulse.advance(at(100_000));
        assert_ne!(watchdog.verdict(at(100_006)), Verdict::Feed);
    }

    #[test]
    fn a_thread_that_panics_starves_the_watchdog_even_if_it_was_waiting() {
        let mut watchdog = Watchdog::default();
        let pulse = watchdog.register("inference", at(60), at(0));
        let thread = std::thread::spawn(move || {
            pulse.wait(at(1));
            // No panic message in the test's output.
            std::panic::resume_unwind(Box::new("dead"));
        });
        assert!(thread.join().is_err());
        let verdict = watchdog.verdict(at(2));
        assert_eq!(starving(&verdict), Some(("inference", 1, true)));
    }

    #[test]
    fn a_stage_that_finished_is_not_missed() {
        let mut watchdog = Watchdog::default();
        let pulse = watchdog.register("capture", at(5), at(0));
        pulse.finish();
        assert_eq!(watchdog.verdict(at(1000)), Verdict::Feed);
        assert!(watchdog.stages.is_empty());
    }
}
