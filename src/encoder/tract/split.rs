//! One image on several threads.

use std::num::NonZeroUsize;
use std::sync::Arc;

#[cfg(feature = "float-threads")]
use tract_linalg::multithread::{Executor, multithread_tract_scope};

use crate::encoder::conv::threads;
use crate::encoder::int8::kernels::{Context, Isa};

/// Threads that a plan's operators are split over: our own, and tract's matrix products where the
/// feature `float-threads` is there.
///
/// tract compiles its dispatch to threads once for each of its kernels, several megabytes in all, which
/// only a float transformer needs. So what ships on a board is built without that feature.
pub(super) struct Split {
    own: Arc<Context>,
    #[cfg(feature = "float-threads")]
    products: Executor,
}

impl Split {
    /// Whether this build splits tract's products.
    pub const PRODUCTS: bool = cfg!(feature = "float-threads");

    /// Starts `threads` threads of either kind.
    pub fn new(threads: NonZeroUsize) -> Self {
        Self {
            own: Arc::new(Context::new(Isa::detect(), threads)),
            #[cfg(feature = "float-threads")]
            products: Executor::multithread(threads.get()),
        }
    }

    /// Runs `work`, whose operators use these threads.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let work = || threads::scope(Arc::clone(&self.own) as Arc<_>, work);
        #[cfg(feature = "float-threads")]
        let work = || multithread_tract_scope(self.products.clone(), work);
        work()
    }
}
