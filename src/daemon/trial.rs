//! Whether a bundle that was just installed proves itself. Pure: the caller brings time and numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Frames that have to be scored.
const PROOF_FRAMES: u64 = 10;
/// Failures that are too many, if they are more than one frame in [`PROOF_FRAMES`].
const FAILURES: u64 = 3;
/// A daemon in which something hangs for so many times the trial is not healthy.
const PATIENCE: u32 = 5;

/// What the present model did, counted on the inference thread.
#[derive(Debug, Default)]
pub struct Record {
    scored: AtomicU64,
    failed: AtomicU64,
}

impl Record {
    /// A frame was scored.
    pub fn scored(&self) {
        self.scored.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame could not be scored.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Another model.
    pub fn start_anew(&self) {
        self.scored.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
    }
}

/// What is known at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Too early, or the cameras see nothing.
    Open,
    /// It works.
    Proved,
    /// It does not, for people.
    Failed(String),
}

/// A trial that is going on.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    since: Duration,
    lasts: Duration,
    alive_at: Duration,
}

impl Trial {
    /// Begins at the uptime `now` and lasts this long.
    pub fn begin(now: Duration, lasts: Duration) -> Self {
        Self {
            since: now,
            lasts,
            alive_at: now,
        }
    }

    /// Looks at the record; `alive` says whether every stage of the daemon advances.
    pub fn judge(&mut self, now: Duration, record: &Record, alive: bool) -> Judgement {
        let scored = record.scored.load(Ordering::Relaxed);
        let failed = record.failed.load(Ordering::Relaxed);
        if failed >= FAILURES && failed.saturating_mul(PROOF_FRAMES) > scored {
            return Judgement::Failed(format!(
                "{failed} frames could not be scored, {scored} could"
            ));
        }
        if alive {
            self.alive_at = now;
        }
        let silent = now.saturating_sub(self.alive_at);
        if silent > self.lasts.saturating_mul(PATIENCE) {
            let seconds = silent.as_secs();
            return Judgement::Failed(format!("a stage of the daemon hung for {seconds} s"));
        }
        let long_enough = now.saturating_sub(self.since) >= self.lasts;
        if long_enough && alive && scored >= PROOF_FRAMES {
            return Judgement::Proved;
        }
        Judgement::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(scored: u64, failed: u64) -> Record {
        let record = Record::default();
        (0..scored).for_each(|_| record.scored());
        (0..failed).for_each(|_| record.failed());
        record
    }

    #[test]
    fn ten_frames_and_the_time_prove_it() {
        let mut trial = Trial::begin(100 * SECOND, 60 * SECOND);
        let good = after(10, 0);
        assert_eq!(trial.judge(159 * SECOND, &good, true), Judgement::Open);
        assert_eq!(
            trial.judge(160 * SECOND, &after(9, 0), true),
            Judgement::Open
        );
        assert_eq!(trial.judge(160 * SECOND, &good, false), Judgement::Open);
        assert_eq!(trial.judge(160 * SECOND, &good, true), Judgement::Proved);
        good.start_anew();
        assert_eq!(trial.judge(160 * SECOND, &good, true), Judgement::Open);
    }

    #[test]
    fn a_night_in_which_nothing_is_seen_proves_nothing() {
        let mut trial = Trial::begin(Duration::ZERO, SECOND);
        for hour in 0..12 {
            let now = 3600 * hour * SECOND;
            assert_eq!(trial.judge(now, &after(0, 0), true), Judgement::Open);
        }
    }

    #[test]
    fn failures_end_it_at_once_and_one_in_a_hundred_does_not() {
        let mut trial = Trial::begin(Duration::ZERO, 60 * SECOND);
        assert_eq!(trial.judge(SECOND, &after(0, 2), true), Judgement::Open);
        let failed = trial.judge(SECOND, &after(5, 3), true);
        assert!(matches!(failed, Judgement::Failed(_)));
        let now = 60 * SECOND;
        assert_eq!(trial.judge(now, &after(300, 3), true), Judgement::Proved);
    }

    #[test]
    fn a_daemon_that_hangs_is_not_healthy() {
        let mut trial = Trial::begin(Duration::ZERO, 10 * SECOND);
        let good = after(100, 0);
        assert_eq!(trial.judge(50 * SECOND, &good, false), Judgement::Open);
        let failed = trial.judge(51 * SECOND, &good, false);
        assert!(matches!(failed, Judgement::Failed(_)));
    }
}
