//! A small thread pool for lock-step stages of some ten microseconds.
//!
//! A call gives every participant (the caller and each worker) a contiguous range of tasks. A
//! participant takes tasks from the front of its own range, so that what a task prefetches for the
//! next is used by the same core; whoever is done takes from the back of the others'. A task writes
//! its own part of the output, so the result does not depend on who ran it.
//!
//! Workers wait for the next stage by spinning for at most [`SPIN`], then sleep: between two forward
//! passes nothing runs. A caller does not wait for a worker that is still asleep: it closes the
//! stage, and who has not joined by then stays out.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Longest busy wait, of a worker for the next stage and of the caller for a worker's last task.
pub(super) const SPIN: Duration = Duration::from_micros(50);

/// State word of the pool: stage number (high 32 bits), open flag, count of workers inside.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const STAGE: u64 = 1 << 32;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// One stage, valid while a worker is inside it.
struct Stage {
    task: *const Task<'static>,
    caller: Thread,
}

// SAFETY: the task is `Sync`, and `Pool::run` keeps it alive until every worker has left.
unsafe impl Send for Stage {}

/// Tasks `start..end` of a participant, packed as `start << 32 | end`; a line of its own.
#[repr(align(64))]
struct Share(AtomicU64);

impl Share {
    fn set(&self, start: usize, end: usize) {
        self.0
            .store((start as u64) << 32 | end as u64, Ordering::Relaxed);
    }

    fn update(&self, f: impl Fn(u64, u64) -> (u64, u64, u64)) -> Option<usize> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (start, end) = (word >> 32, word & 0xffff_ffff);
            if start >= end {
                return None;
            }
            let (start, end, task) = f(start, end);
            match self.0.compare_exchange_weak(
                word,
                start << 32 | end,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return usize::try_from(task).ok(),
                Err(now) => word = now,
            }
        }
    }

    fn take_first(&self) -> Option<usize> {
        self.update(|start, end| (start + 1, end, start))
    }

    fn take_last(&self) -> Option<usize> {
        self.update(|start, end| (start, end - 1, end - 1))
    }
}

struct Shared {
    state: AtomicU64,
    stage: Mutex<Option<Stage>>,
    shares: Box<[Share]>,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The workers. Dropping it ends them.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the thread whose stage runs.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool in which `threads` take part, the caller among them; fewer where the system does not
    /// give that many.
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        let threads = threads.get().min(1024);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            stage: Mutex::new(None),
            shares: (0..threads).map(|_| Share(AtomicU64::new(0))).collect(),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let workers = (1..threads)
            .map_while(|participant| {
                let shared = shared.clone();
                thread::Builder::new()
                    .name(format!("int8-{participant}"))
                    .spawn(move || shared.work(participant))
                    .ok()
            })
            .collect();
        Self {
            shared,
            workers,
            turn: Mutex::new(()),
        }
    }

    /// Threads that take part, the caller included.
    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` … `task(tasks − 1)`, each once, in any order and on any of the threads, and
    /// returns when all are done. Where another thread's stage is running, or this is called from
    /// within a task, the calling thread does it all alone.
    ///
    /// # Panics
    /// With the panic of a task, after all threads have left the stage; which of the other tasks ran
    /// is then open.
    pub(super) fn run(&self, tasks: usize, task: &Task<'_>) {
        let alone = self.workers.is_empty() || tasks < 2 || u32::try_from(tasks).is_err();
        let turn = match self.turn.try_lock() {
            Ok(turn) if !alone => turn,
            _ => return (0..tasks).for_each(task),
        };
        let shared = &*self.shared;
        let threads = self.threads();
        for (participant, share) in shared.shares[..threads].iter().enumerate() {
            share.set(
                participant * tasks / threads,
                (participant + 1) * tasks / threads,
            );
        }
        let stage = Stage {
            // SAFETY: only the lifetime is forgotten. `task` outlives this call, and workers use it
            // only between joining and leaving the stage; `Closing` waits until all have left, also
            // when the caller's own tasks panic.
            task: unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) },
            caller: thread::current(),
        };
        *lock(&shared.stage) = Some(stage);
        shared.open();
        let closing = Closing(shared);
        shared.take_part(0, task);
        drop(closing);
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.bed));
        self.shared.bell.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of tasks, so there is nothing to learn from its result.
            let _ = worker.join();
        }
    }
}

/// Ends the stage when dropped: closes it and waits until every worker inside has left.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let state = &self.0.state;
        state.fetch_and(!OPEN, Ordering::AcqRel);
        let empty = || state.load(Ordering::Acquire) & INSIDE == 0;
        if !spin_until(empty) {
            while !empty() {
                thread::park();
            }
        }
    }
}

impl Shared {
    fn open(&self) {
        let stage = self.state.load(Ordering::Relaxed) & !(STAGE - 1);
        self.state
            .store(stage.wrapping_add(STAGE) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.bed));
            self.bell.notify_all();
        }
    }

    fn take_part(&self, participant: usize, task: &Task<'_>) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            while let Some(index) = self.shares[participant].take_first() {
                task(index);
            }
            let count = self.shares.len();
            for other in 1..count {
                let share = &self.shares[(participant + other) % count];
                while let Some(index) = share.take_last() {
                    task(index);
                }
            }
        }));
        if let Err(panic) = result {
            lock(&self.panic).get_or_insert(panic);
        }
    }

    fn work(&self, participant: usize) {
        let mut seen = 0;
        while let Some(stage) = self.wait_for_other_than(seen) {
            seen = stage;
            if !self.join(stage) {
                continue;
            }
            let (task, caller) = match &*lock(&self.stage) {
                Some(stage) => (stage.task, stage.caller.clone()),
                None => unreachable!("an open stage has a task"),
            };
            // SAFETY: this worker is inside the stage, so its task is alive.
            self.take_part(participant, unsafe { &*task });
            let left = self.state.fetch_sub(1, Ordering::AcqRel);
            if left & (OPEN | INSIDE) == 1 {
                caller.unpark();
            }
        }
    }

    /// Counts this worker into the stage, unless it is closed by now.
    fn join(&self, stage: u64) -> bool {
        let mut word = self.state.load(Ordering::Relaxed);
        while word & !(STAGE - 1) == stage && word & OPEN != 0 {
            match self.state.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// The number of an open stage that is not `seen`; `None` when the pool ends.
    fn wait_for_other_than(&self, seen: u64) -> Option<u64> {
        let ready = || {
            let word = self.state.load(Ordering::SeqCst);
            (word & OPEN != 0 && word & !(STAGE - 1) != seen) || self.stop.load(Ordering::SeqCst)
        };
        if !spin_until(ready) {
            let mut bed = lock(&self.bed);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while !ready() {
                bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        let stopped = self.stop.load(Ordering::SeqCst);
        (!stopped).then(|| self.state.load(Ordering::SeqCst) & !(STAGE - 1))
    }
}

/// Waits busily until `done`, [`SPIN`] at most. Returns whether it is done.
fn spin_until(done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= SPIN {
            return false;
        }
    }
}

/// Locks; a panic elsewhere leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap())
    }

    #[test]
    fn every_task_runs_exactly_once() {
        for threads in [1, 2, 3, 7] {
            let pool = pool(threads);
            for tasks in [0, 1, 2, 5, 64, 1000] {
                let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn sleeping_workers_are_woken_or_left_out() {
        let pool = pool(3);
        for pause_us in [0, 200, 0, 2000, 0] {
            thread::sleep(Duration::from_micros(pause_us));
            let sum = AtomicUsize::new(0);
            pool.run(100, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_in_any_task_reaches_the_caller_and_the_pool_lives_on() {
        let pool = pool(2);
        for bad in 0..8 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(8, &|i| {
                    assert_ne!(i, bad, "task {bad}");
                });
            }));
            assert!(result.is_err(), "task {bad} of 8");
        }
        let sum = AtomicUsize::new(0);
        pool.run(8, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 28);
    }

    #[test]
    fn a_stage_within_a_task_runs_on_that_thread() {
        let pool = pool(2);
        let sum = AtomicUsize::new(0);
        pool.run(4, &|_| {
            pool.run(4, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 24);
    }

    #[test]
    fn two_callers_do_not_wait_for_each_other() {
        let pool = pool(2);
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(10, &|i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 200 * 45);
    }
}
