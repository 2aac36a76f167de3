//! What the executor asks of threads.

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

/// The share of `0..items` that falls to thread `index` of `count`.
pub fn share(items: usize, index: usize, count: usize) -> std::ops::Range<usize> {
    items * index / count..items * (index + 1) / count
}
