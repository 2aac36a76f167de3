//! Loading another model takes long. It is done on a thread of its own, and the watchdog is fed meanwhile
//! as long as every stage, and the loading itself, goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{Builder, scope};
use std::time::Duration;

use super::TICK;
use crate::daemon::clock::Clock;
use crate::daemon::relay::Relays;
use crate::watchdog::{Systemd, Watchdog};

/// The watchdog's name for it.
const STAGE: &str = "loading";
/// One step may take so long, as at a start.
const STEP: Duration = Duration::from_secs(120);
/// As the main thread has, on which a start loads.
const STACK_BYTES: usize = 8 << 20;

/// What the supervisor looks after all the time.
pub(super) struct Vigil<'a> {
    pub clock: Clock,
    pub relays: &'a mut Relays,
    pub watchdog: &'a mut Watchdog,
    pub systemd: &'a mut Systemd,
}

impl Vigil<'_> {
    /// Has `work` done, which calls what it is given after each of its steps.
    ///
    /// # Errors
    /// It panicked, or there is no thread.
    pub fn over<T: Send>(
        self,
        work: impl FnOnce(&mut dyn FnMut()) -> T + Send,
    ) -> Result<T, String> {
        let steps = Arc::new(AtomicU64::new(0));
        let (now, counter) = (self.clock.uptime(), Arc::clone(&steps));
        self.relays.add(self.watchdog, STAGE, counter, STEP, now);
        let (sender, done) = mpsc::sync_channel(1);
        let outcome = scope(|scope| {
            let work = move || {
                let outcome = work(&mut || {
                    steps.fetch_add(1, Ordering::Relaxed);
                });
                // The other side waits until the end.
                let _ = sender.send(outcome);
            };
            let builder = Builder::new()
                .name(STAGE.to_owned())
                .stack_size(STACK_BYTES);
            let thread = builder
                .spawn_scoped(scope, work)
                .map_err(|error| format!("the system refused a thread: {error}"))?;
            loop {
                match done.recv_timeout(TICK) {
                    Ok(outcome) => return Ok(outcome),
                    Err(RecvTimeoutError::Timeout) => {
                        let now = self.clock.uptime();
                        self.relays.pass_on(now);
                        self.systemd.tick(now, &self.watchdog.verdict(now));
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        // Or the scope would pass the panic on.
                        let _ = thread.join();
                        return Err("it makes the engine panic; see the log".to_owned());
                    }
                }
            }
        });
        self.relays.remove(STAGE);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchdog::Verdict;

    #[test]
    fn a_panic_is_an_error_and_the_stage_ends_with_the_work() {
        let (mut relays, mut watchdog) = (Relays::default(), Watchdog::default());
        let mut systemd = Systemd::from_env();
        let mut over = |work: fn(&mut dyn FnMut()) -> u32| {
            let vigil = Vigil {
                clock: Clock::start(),
                relays: &mut relays,
                watchdog: &mut watchdog,
                systemd: &mut systemd,
            };
            vigil.over(work)
        };
        let steps = |step: &mut dyn FnMut()| {
            (0..3).for_each(|_| step());
            7
        };
        assert_eq!(over(steps), Ok(7));
        let outcome = over(|_| panic!("as an engine may"));
        assert!(outcome.is_err_and(|error| error.contains("panic")));
        assert_eq!(watchdog.verdict(STEP * 100), Verdict::Feed);
    }
}
