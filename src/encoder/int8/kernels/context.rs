//! What every kernel call needs: the instruction set and the threads.

use std::fmt;
use std::num::NonZeroUsize;

use super::isa::Isa;
use super::lanes::{self, Stage};
use super::pool::Pool;

/// An instruction set that this CPU has, and a pool of threads.
///
/// Cheap to use from many threads at once, though one stage at a time gets the workers. Make one and
/// keep it: making it starts threads.
pub struct Context {
    isa: Isa,
    pool: Pool,
}

impl Context {
    /// A context with `threads` threads, the calling one included (fewer where the system does not
    /// give that many: see [`Context::threads`]).
    ///
    /// # Panics
    /// When this CPU does not support `isa`: choose from [`Isa::supported`].
    pub fn new(isa: Isa, threads: NonZeroUsize) -> Self {
        assert!(isa.is_supported(), "this CPU has no {isa}");
        Self {
            isa,
            pool: Pool::new(threads),
        }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that take part in a stage, the calling one included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `task(0)` … `task(tasks − 1)`, each once, in any order and on any of the threads, and
    /// returns when all are done. While another thread's tasks run, the calling thread does it alone.
    pub fn parallel(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        self.pool.run(tasks, &task);
    }

    /// Splits `count` items into at most one run per thread, none shorter than `least` (but the
    /// only one), and gives `task` the number of the run and its items.
    pub(super) fn parallel_runs(
        &self,
        count: usize,
        least: usize,
        task: impl Fn(usize, std::ops::Range<usize>) + Sync,
    ) {
        let runs = (count / least.max(1)).clamp(1, self.threads());
        self.parallel(runs, |run| {
            task(run, run * count / runs..(run + 1) * count / runs);
        });
    }

    pub(super) fn run_stage(&self, stage: impl Stage) {
        // SAFETY: `new` saw that the CPU supports the instruction set.
        unsafe { lanes::run_stage(self.isa, stage) };
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("isa", &self.isa)
            .field("threads", &self.threads())
            .finish()
    }
}
