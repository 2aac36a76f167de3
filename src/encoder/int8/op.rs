//! Fused sublayers and patch embeddings as operators of tract.

mod patches;
mod sublayers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use tract_onnx::tract_core::internal::*;

pub use patches::Patches;
pub use sublayers::{Sublayers, Wanted};

use super::sublayer::Batch;

/// Rows, which is tokens of all items together, that go through the sublayers at once. More of them
/// share each load of the weights, but no longer find each other in the second-level cache: 256 rows
/// of 3072 hidden values are 3 MB.
const MAX_ROWS: usize = 256;

/// Items of so many rows that go through together where `most` rows do: one at least.
fn items_at_once(rows: usize, most: usize) -> usize {
    (most / rows.max(1)).max(1)
}

/// An operator that runs a batch in one pass.
pub trait Fused: Send + Sync {
    /// Whether the accelerator that it was brought to works; `None` where it was brought to none.
    fn accelerated(&self) -> Option<bool>;

    /// Each entry of `inputs` holds the operator's inputs for one item. The results come in the same
    /// order and do not depend on what else is in the batch.
    ///
    /// # Errors
    /// Inputs that are not as the operator's documentation says.
    fn run(&self, inputs: Vec<TVec<TValue>>) -> TractResult<Vec<Tensor>>;
}

/// The fused operator of a node, if it is one.
pub fn fused(node: &TypedNode) -> Option<Arc<dyn Fused>> {
    if let Some(op) = node.op_as::<Sublayers>() {
        return Some(Arc::new(op.clone()));
    }
    let op = node.op_as::<Patches>()?;
    Some(Arc::new(op.clone()))
}

/// A processor of another kind, that takes sublayers.
pub trait Accelerator {
    /// Brings sublayers there, for sequences of `tokens`.
    ///
    /// # Errors
    /// Why they cannot be.
    fn place(&self, sublayers: &Sublayers, tokens: usize) -> Result<Arc<dyn Device>, String>;

    /// Brings a patch embedding there.
    ///
    /// # Errors
    /// Why it cannot be.
    fn place_patches(&self, patches: &Patches) -> Result<Arc<dyn PatchDevice>, String>;

    /// Its name, and the precision it computes in.
    fn describe(&self) -> String;
}

/// Sublayers on an accelerator.
pub trait Device: Send + Sync {
    /// Replaces `x`, `[batch · tokens, width]`, by the result of all sublayers, or by that of the token
    /// that is wanted, `[batch, width]`. Where it fails `x` is as it was.
    ///
    /// # Errors
    /// What went wrong there.
    fn run(&self, x: &mut Vec<f32>, batch: Batch) -> Result<(), String>;

    /// Rows, which is tokens of all items together, that it takes at most.
    fn most_rows(&self) -> usize;
}

/// A patch embedding on an accelerator.
pub trait PatchDevice: Send + Sync {
    /// `[pictures · patches, n]` of pictures of the embedding's length.
    ///
    /// # Errors
    /// What went wrong there.
    fn run(&self, pictures: &[&[f32]]) -> Result<Vec<f32>, String>;

    /// Rows, which is patches of all pictures together, that it takes at most.
    fn most_rows(&self) -> usize;
}

/// Where else an operator runs, until that fails.
struct Placed<D: ?Sized> {
    device: Arc<D>,
    failed: AtomicBool,
}

impl<D: ?Sized> Placed<D> {
    fn new(device: Arc<D>) -> Self {
        Self {
            device,
            failed: AtomicBool::new(false),
        }
    }

    fn works(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    /// The device, if it has not failed.
    fn working(&self) -> Option<&D> {
        self.works().then_some(&*self.device)
    }

    /// What `work` makes of the device; `None` where that fails, now or before.
    fn attempt<T>(&self, work: impl FnOnce(&D) -> Result<T, String>) -> Option<T> {
        match work(self.working()?) {
            Ok(result) => Some(result),
            Err(problem) => {
                self.failed.store(true, Ordering::Relaxed);
                log::error!("{problem}; from now on the CPU does it");
                None
            }
        }
    }
}

/// What the clones of an operator have together: one that is busy is not waited for. What a caught panic
/// left in it does not matter: every call begins with its own lengths and values.
struct Shared<T>(Arc<Mutex<T>>);

impl<T: Default> Shared<T> {
    /// Calls `f` with it, or with a new one where it is busy.
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        match self.0.try_lock() {
            Ok(mut shared) => f(&mut shared),
            Err(TryLockError::Poisoned(shared)) => f(&mut shared.into_inner()),
            Err(TryLockError::WouldBlock) => f(&mut T::default()),
        }
    }
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
