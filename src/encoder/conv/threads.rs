//! What the executor asks of threads.

use std::cell::RefCell;
use std::sync::Arc;

use crate::encoder::int8::kernels::Context;

/// Runs a piece of work on several threads at once.
pub trait Threads: Sync {
    /// Threads, the calling one included; at least 1.
    fn count(&self) -> usize;

    /// Calls `work(i)` once for every `i` below [`Threads::count`], at the same time if it can, and
    /// returns when all calls have.
    fn run(&self, work: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug)]
pub struct Single;

impl Threads for Single {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        work(0);
    }
}

impl Threads for Context {
    fn count(&self) -> usize {
        self.threads()
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        self.parallel(self.threads(), work);
    }
}

/// The share of `0..items` that falls to thread `index` of `count`.
pub fn share(items: usize, index: usize, count: usize) -> std::ops::Range<usize> {
    items * index / count..items * (index + 1) / count
}

thread_local! {
    /// What operators on this thread use.
    static CURRENT: RefCell<Option<Arc<dyn Threads + Send>>> = const { RefCell::new(None) };
}

/// Runs `work`, whose operators use `threads`; without this they use the calling thread alone.
pub fn scope<T>(threads: Arc<dyn Threads + Send>, work: impl FnOnce() -> T) -> T {
    /// Restores what was there before, also when `work` panics.
    struct Restore(Option<Arc<dyn Threads + Send>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(threads)));
    work()
}

/// Calls `work` with the threads of the innermost [`scope`].
pub fn with_current<T>(work: impl FnOnce(&dyn Threads) -> T) -> T {
    let current = CURRENT.with_borrow(Clone::clone);
    match current {
        Some(threads) => work(&*threads),
        None => work(&Single),
    }
}
