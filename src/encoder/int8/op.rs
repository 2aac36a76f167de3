//! Fused sublayers and patch embeddings as operators of tract.

mod patches;
mod sublayers;

use std::sync::{Arc, Mutex, TryLockError};

use tract_onnx::tract_core::internal::*;

pub use patches::Patches;
pub use sublayers::{Sublayers, Wanted};

/// Rows, which is tokens of all items together, that go through the sublayers at once. More of them
/// share each load of the weights, but no longer find each other in the second-level cache: 256 rows
/// of 3072 hidden values are 3 MB.
const MAX_ROWS: usize = 256;

/// Items of so many rows that go through together: one at least.
fn items_at_once(rows: usize) -> usize {
    (MAX_ROWS / rows.max(1)).max(1)
}

/// An operator that runs a batch in one pass.
pub trait Fused: Send + Sync {
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
