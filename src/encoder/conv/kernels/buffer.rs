//! Memory aligned to a cache line, so that a pixel of a block never straddles two.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of a cache line, which is one pixel of a block.
const ALIGNMENT: usize = 64;

/// Zero-initialised f32, 64-byte aligned, of fixed length.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a buffer owns its memory, as a boxed slice does.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer is only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    ///
    /// # Panics
    /// When `len` floats do not fit the address space. Aborts when memory is exhausted.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            let start = NonNull::dangling();
            return Self { start, len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start.cast::<f32>()) else {
            handle_alloc_error(layout);
        };
        Self { start, len }
    }

    /// The first value, for access that goes around the borrow.
    pub fn start(&mut self) -> *mut f32 {
        self.start.as_ptr()
    }

    fn layout(len: usize) -> Layout {
        let layout = Layout::array::<f32>(len).and_then(|layout| layout.align_to(ALIGNMENT));
        layout.expect("a buffer fits the address space")
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `start` is valid for `len` initialised values, or dangling and aligned with none.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeros` with the same layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.len)
    }
}
