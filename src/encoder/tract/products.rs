//! tract's matrix products, split over threads.

use std::num::NonZeroUsize;

#[cfg(feature = "float-threads")]
use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// Threads for the products of a plan.
///
/// tract compiles its dispatch to threads once for each of its kernels, several megabytes in all, which
/// only a float transformer needs: our own operators bring their own threads. So the feature
/// `float-threads` is left out of what ships on a board, and everything here does nothing there.
pub(super) struct Products {
    #[cfg(feature = "float-threads")]
    executor: Executor,
}

impl Products {
    /// Whether this build splits products.
    pub const ON_THREADS: bool = cfg!(feature = "float-threads");

    /// Starts that many threads.
    #[cfg_attr(
        not(feature = "float-threads"),
        expect(unused_variables, reason = "nothing is split")
    )]
    pub fn new(threads: NonZeroUsize) -> Self {
        Self {
            #[cfg(feature = "float-threads")]
            executor: Executor::multithread(threads.get()),
        }
    }

    /// Runs `work`, whose products use these threads.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        #[cfg(feature = "float-threads")]
        return multithread_tract_scope(self.executor.clone(), work);
        #[cfg(not(feature = "float-threads"))]
        work()
    }
}
