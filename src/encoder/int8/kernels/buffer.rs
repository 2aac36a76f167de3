//! Buffers aligned to cache lines, and bytes that are owned or shared with a mapped file.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, OnceLock, Weak};

const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A number that any bytes are a valid value of.
///
/// # Safety
/// Every bit pattern is valid, there is no padding, and the alignment divides 64.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: plain numbers.
unsafe impl Plain for u8 {}
// SAFETY: plain numbers.
unsafe impl Plain for i8 {}
// SAFETY: plain numbers.
unsafe impl Plain for u16 {}
// SAFETY: plain numbers.
unsafe impl Plain for i32 {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}

/// A growable buffer of numbers whose first lies on a 64-byte boundary.
#[derive(Clone)]
pub(super) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Aligned<T> {
    pub(super) const fn new() -> Self {
        Self {
            lines: Vec::new(),
            len: 0,
            element: PhantomData,
        }
    }

    /// `len` zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        let mut buffer = Self::new();
        buffer.resize(len);
        buffer
    }

    /// Changes the length; keeps memory that is there already. Old values stay, new memory is zero.
    pub(super) fn resize(&mut self, len: usize) {
        let lines = (len * size_of::<T>()).div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0; LINE]));
        }
        self.len = len;
    }

    /// The values of `source`, then zeros up to `len`.
    pub(super) fn padded(source: &[T], len: usize) -> Self {
        let mut buffer = Self::zeroed(len.max(source.len()));
        buffer[..source.len()].copy_from_slice(source);
        buffer
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lines hold at least `len` values (see `resize`), initialised and aligned to
        // 64 bytes, and `Plain` takes any bytes.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// What owns memory that is shared.
pub type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Read-only bytes: a buffer of their own, or part of something shared such as a mapped file.
#[derive(Clone)]
pub struct Bytes(Source);

#[derive(Clone)]
enum Source {
    Owned(Arc<Aligned<u8>>),
    Shared { owner: Owner, range: Range<usize> },
    Movable(Arc<Movable>),
}

/// Bytes that are read where they lie until a copy of them is ready.
pub struct Movable {
    origin: Bytes,
    copy: OnceLock<Bytes>,
}

impl Bytes {
    /// Copies `bytes` into an aligned buffer.
    pub fn copied(bytes: &[u8]) -> Self {
        Self::owned(Aligned::padded(bytes, bytes.len()))
    }

    pub(super) fn owned(buffer: Aligned<u8>) -> Self {
        Self(Source::Owned(Arc::new(buffer)))
    }

    /// A view into `owner`, which stays alive as long as the view. Kernels are fastest where the
    /// range starts on a 64-byte boundary of memory. `None` when the range lies outside.
    pub fn shared(owner: Owner, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self(Source::Shared { owner, range }))
    }

    /// These bytes, and a handle to move them by. All views made from the result move together; the
    /// handle keeps none of them alive.
    pub fn movable(self) -> (Self, Weak<Movable>) {
        let movable = Arc::new(Movable {
            origin: self,
            copy: OnceLock::new(),
        });
        let handle = Arc::downgrade(&movable);
        (Self(Source::Movable(movable)), handle)
    }
}

impl Movable {
    /// Where the bytes lie that were there first.
    pub fn origin(&self) -> &[u8] {
        &self.origin
    }

    /// Whether there is a copy.
    pub fn has_moved(&self) -> bool {
        self.copy.get().is_some()
    }

    /// Lets every read from now on find `copy`, which must hold the same bytes; reads that are under
    /// way go on with the old ones. `false` where it has another length, or they were moved before.
    pub fn move_to(&self, copy: Bytes) -> bool {
        copy.len() == self.origin.len() && self.copy.set(copy).is_ok()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Source::Owned(buffer) => buffer,
            Source::Shared { owner, range } => &(**owner).as_ref()[range.clone()],
            Source::Movable(movable) => movable.copy.get().unwrap_or(&movable.origin),
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Source::Owned(_) => "owned",
            Source::Shared { .. } => "shared",
            Source::Movable(movable) if movable.has_moved() => "moved",
            Source::Movable(_) => "movable",
        };
        write!(f, "Bytes({kind}, {} bytes)", self.len())
    }
}

/// A slice that the threads of one stage write disjoint parts of.
#[derive(Clone, Copy)]
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out parts of an exclusive slice of `T: Send`; that the parts are disjoint is the
// promise of those who call `part`.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// The part that starts at `at`.
    ///
    /// # Safety
    /// No other thread touches the `len` values from `at` while the pointer is used for them.
    ///
    /// # Panics
    /// When the part lies outside the slice.
    pub(super) unsafe fn part(self, at: usize, len: usize) -> *mut T {
        assert!(
            at <= self.len && len <= self.len - at,
            "part {at}+{len} of a slice of {}",
            self.len
        );
        // SAFETY: `at` is within the slice.
        unsafe { self.start.add(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_on_cache_lines_and_grow_with_zeros() {
        let mut buffer = Aligned::<f32>::zeroed(3);
        buffer.copy_from_slice(&[1.0, 2.0, 3.0]);
        buffer.resize(40);
        assert_eq!(buffer.as_ptr().align_offset(64), 0);
        assert_eq!(&buffer[..4], &[1.0, 2.0, 3.0, 0.0]);
        assert_eq!(buffer.len(), 40);
    }

    #[test]
    fn a_view_outside_its_owner_is_refused() {
        let owner: Owner = Arc::new(vec![1u8, 2, 3]);
        assert!(Bytes::shared(owner.clone(), 1..4).is_none());
        let view = Bytes::shared(owner, 1..3).unwrap();
        assert_eq!(&view[..], &[2, 3]);
    }
    #[test]
    fn moved_bytes_are_read_from_the_copy_and_views_of_before_stay_whole() {
        let owner: Owner = Arc::new(vec![1u8, 2, 3, 4]);
        let (bytes, handle) = Bytes::shared(owner, 1..3).unwrap().movable();
        let other_view = bytes.clone();
        let before = &other_view[..];
        let handle = handle.upgrade().unwrap();
        assert!(!handle.move_to(Bytes::copied(&[2, 3, 4])), "another length");
        assert!(!handle.has_moved());
        assert!(handle.move_to(Bytes::copied(&[2, 3])));
        assert!(!handle.move_to(Bytes::copied(&[2, 3])), "a second time");
        assert_eq!((before, &bytes[..]), (&[2, 3][..], &[2, 3][..]));
        assert_ne!(bytes.as_ptr(), before.as_ptr());
        assert_eq!(other_view.as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn a_handle_keeps_nothing_alive() {
        let (bytes, handle) = Bytes::copied(&[1]).movable();
        drop(bytes);
        assert!(handle.upgrade().is_none());
    }
}
