//! Weights on their way from a mapped file into huge pages.
//!
//! A tower reads all its weights for every image. In pages of 4 KB that is one address translation
//! for each 64 lines, and together more translations than any processor keeps: ViT-B/32 takes 7 %
//! longer, BERT on 16 tokens 20 %, measured on a Zen 4. Mapped files have small pages nearly
//! everywhere, so the weights are copied once: matrix by matrix, by a thread of its own, while the
//! mapping serves. A matrix that is copied leaves the file's pages, so both together never take more
//! than one matrix too much.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use memmap2::{Advice, Mmap, MmapOptions, MmapRaw, UncheckedAdvice};

use crate::bundle::Shared;
use crate::encoder::int8::kernels::{Bytes, Movable, Owner};

/// Size and alignment of a huge page where small ones have 4 KB.
const HUGE_PAGE: usize = 2 << 20;

/// What the kernel's administrator allows: one of three words is in brackets.
const SWITCH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Weights that lie in a mapped file and are better off in huge pages.
#[derive(Clone)]
pub struct Relocation {
    file: Shared,
    /// Where in the file they lie, in the order in which they are used.
    weights: Arc<[(Range<usize>, Weak<Movable>)]>,
}

impl Relocation {
    /// `None` where there is nothing to gain: the weights are in memory already, there are no huge
    /// pages or not enough weights for one.
    pub(super) fn new(file: &Shared, weights: Vec<(Range<usize>, Weak<Movable>)>) -> Option<Self> {
        let len: usize = weights.iter().map(|(place, _)| place.len()).sum();
        // Matrices that overlap could come to more than the file; nobody writes such a file.
        let whole = file.mapping()?.len();
        let allowed = fs::read_to_string(SWITCH).is_ok_and(|switch| !switch.contains("[never]"));
        (allowed && (HUGE_PAGE..=whole).contains(&len)).then(|| Self {
            file: Arc::clone(file),
            weights: weights.into(),
        })
    }

    /// Copies in the background what is still in use, in the order of use. Results do not change,
    /// neither do references that are held. Where no thread or no memory is to be had, the weights
    /// stay where they are.
    pub fn start(&self) -> Option<JoinHandle<()>> {
        let relocation = self.clone();
        let thread = thread::Builder::new().name("weights".to_owned());
        thread.spawn(move || relocation.run()).ok()
    }

    fn run(&self) {
        let len = self.weights.iter().map(|(place, _)| place.len()).sum();
        let (Some(file), Some(mut writer)) = (self.file.mapping(), Writer::new(len)) else {
            return;
        };
        // Copying brings back what it reads, and so does an embedding under way; what lies beside the
        // weights was read when the tower was made.
        forget(file, 0..file.len());
        for (place, weights) in &*self.weights {
            let Some(weights) = weights.upgrade().filter(|weights| !weights.has_moved()) else {
                continue;
            };
            let Some(copy) = writer.copy(weights.origin()) else {
                return;
            };
            if weights.move_to(copy) {
                forget(file, place.clone());
            }
        }
        // Where the file has huge pages itself, reading a matrix brought back a part of the one before.
        forget(file, 0..file.len());
    }
}

impl fmt::Debug for Relocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relocation({} matrices)", self.weights.len())
    }
}

/// Anonymous memory in huge pages.
struct HugePages {
    memory: MmapRaw,
    /// Where the first huge page lies in `memory`.
    start: usize,
}

/// Writes huge pages once, from front to back.
struct Writer {
    pages: Arc<HugePages>,
    /// Bytes written.
    end: usize,
    /// Room for so many.
    len: usize,
}

impl Writer {
    fn new(len: usize) -> Option<Self> {
        let room = len.checked_add(HUGE_PAGE)?;
        let memory = MmapRaw::from(MmapOptions::new().len(room).map_anon().ok()?);
        let start = memory.as_mut_ptr().align_offset(HUGE_PAGE);
        // What does not fill a huge page lies in small ones.
        let whole = len / HUGE_PAGE * HUGE_PAGE;
        memory.advise_range(Advice::HugePage, start, whole).ok()?;
        let pages = Arc::new(HugePages { memory, start });
        let end = 0;
        Some(Self { pages, end, len })
    }

    /// A copy behind the one before. `None` where it does not fit.
    fn copy(&mut self, bytes: &[u8]) -> Option<Bytes> {
        let start = self.end;
        let end = start.checked_add(bytes.len())?;
        if end > self.len {
            return None;
        }
        self.end = end;
        // SAFETY: the mapping has `len` bytes from the start of its first huge page. Nobody else
        // writes to it, and nobody reads behind `end` as it was.
        unsafe {
            let pages = &self.pages;
            let to = pages.memory.as_mut_ptr().add(pages.start + start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        let owner: Owner = Arc::new(Written {
            pages: Arc::clone(&self.pages),
            place: start..end,
        });
        Bytes::shared(owner, 0..bytes.len())
    }
}

/// A part of the pages that was written and never will be again.
struct Written {
    pages: Arc<HugePages>,
    place: Range<usize>,
}

impl AsRef<[u8]> for Written {
    fn as_ref(&self) -> &[u8] {
        let (start, len) = (self.pages.start + self.place.start, self.place.len());
        // SAFETY: the place lies within the mapping (see `Writer::copy`), which lives as long as
        // `self`; it was written before `self` was made, and is not written any more.
        unsafe { std::slice::from_raw_parts(self.pages.memory.as_mut_ptr().add(start), len) }
    }
}

/// Takes pages of the file out of this process. That they stay is no harm.
fn forget(file: &Mmap, part: Range<usize>) {
    // SAFETY: a mapping of a file that was never written to: whoever looks at these bytes again
    // finds the file's.
    let _ =
        unsafe { file.unchecked_advise_range(UncheckedAdvice::DontNeed, part.start, part.len()) };
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::encoder::int8::kernels::{
        Activation, Context, Isa, PackedMatrix, QuantizedRows, linear,
    };
    use crate::memory::resident_kb;

    fn mapped(len: usize) -> Shared {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..len)
            .map(|i| u8::try_from(i * 31 % 251).unwrap())
            .collect();
        file.write_all(&bytes).unwrap();
        // SAFETY: nobody else has this file.
        Arc::new(unsafe { Mmap::map(&file) }.unwrap())
    }

    /// Views of these places, and what moves them.
    fn views(file: &Shared, places: &[Range<usize>]) -> (Vec<Bytes>, Option<Relocation>) {
        let view = |place: &Range<usize>| {
            let view = Bytes::shared(Arc::clone(file) as _, place.clone()).unwrap();
            let (view, handle) = view.movable();
            (view, (place.clone(), handle))
        };
        let (views, weights) = places.iter().map(view).unzip();
        (views, Relocation::new(file, weights))
    }

    #[test]
    fn weights_move_while_they_are_read_and_leave_the_files_pages() {
        let file = mapped(4 * HUGE_PAGE);
        let places = [
            0..HUGE_PAGE + 4096,
            HUGE_PAGE + 4096..3 * HUGE_PAGE,
            3 * HUGE_PAGE..4 * HUGE_PAGE,
        ];
        let (views, relocation) = views(&file, &places);
        let Some(relocation) = relocation else {
            eprintln!("skipped: {SWITCH} says that there are no huge pages");
            return;
        };
        let before: Vec<&[u8]> = views.iter().map(|view| &view[..]).collect();
        let expected: Vec<u8> = (*file).as_ref().to_vec();
        let address = (*file).as_ref().as_ptr();
        assert!(resident_kb(address.addr()) >= 4 * HUGE_PAGE / 1024);
        relocation.start().unwrap().join().unwrap();
        assert_eq!(resident_kb(address.addr()), 0, "the file's pages");
        for ((view, before), place) in views.iter().zip(before).zip(places) {
            assert!(view[..] == expected[place.clone()], "{place:?}");
            assert_ne!(view.as_ptr(), before.as_ptr(), "{place:?}");
            assert!(*before == expected[place.clone()], "{place:?} as it was");
        }
        assert_eq!(views[0].as_ptr().align_offset(HUGE_PAGE), 0);
        // In the order of use, with nothing between.
        assert_eq!(views[0].as_ptr_range().end, views[1].as_ptr());
    }

    #[test]
    fn what_nobody_uses_any_more_is_not_copied_and_nothing_is_copied_twice() {
        let file = mapped(4 * HUGE_PAGE);
        let half = 2 * HUGE_PAGE;
        let (mut views, relocation) = views(&file, &[0..half, half..2 * half]);
        let Some(relocation) = relocation else {
            eprintln!("skipped: {SWITCH} says that there are no huge pages");
            return;
        };
        views.remove(0);
        relocation.start().unwrap().join().unwrap();
        let moved = views[0].as_ptr();
        assert_eq!(moved.align_offset(HUGE_PAGE), 0, "the first that is left");
        relocation.start().unwrap().join().unwrap();
        assert_eq!(views[0].as_ptr(), moved);
    }

    #[test]
    fn what_is_short_overlaps_or_is_in_memory_stays() {
        let file = mapped(2 * HUGE_PAGE);
        let (short, whole) = (0..HUGE_PAGE - 1, 0..2 * HUGE_PAGE);
        assert!(views(&file, std::slice::from_ref(&short)).1.is_none());
        let overlapping = [whole.clone(), 4096..HUGE_PAGE];
        assert!(views(&file, &overlapping).1.is_none());
        let memory: Shared = Arc::new(vec![0_u8; 2 * HUGE_PAGE]);
        assert!(views(&memory, std::slice::from_ref(&whole)).1.is_none());
    }

    #[test]
    fn products_are_the_same_while_their_weights_move() {
        const N: usize = 1024;
        const K: usize = HUGE_PAGE / N;
        let file = mapped(4 * HUGE_PAGE);
        let places: Vec<_> = (0..4).map(|i| i * HUGE_PAGE..(i + 1) * HUGE_PAGE).collect();
        let (views, relocation) = views(&file, &places);
        let Some(relocation) = relocation else {
            eprintln!("skipped: {SWITCH} says that there are no huge pages");
            return;
        };
        let matrix = |view: &Bytes| {
            PackedMatrix::from_trusted_parts(N, K, view.clone(), vec![0.01; N], vec![0; N]).unwrap()
        };
        let matrices: Vec<PackedMatrix> = views.iter().map(matrix).collect();
        let context = Context::new(Isa::detect(), NonZeroUsize::new(2).unwrap());
        let mut rows = QuantizedRows::new();
        let x: Vec<f32> = (0..7 * K).map(|i| (i as f32 * 0.37).sin()).collect();
        rows.quantize(&context, &x, 7, K);
        let products = || {
            let mut out = vec![0.0; 4 * 7 * N];
            for (matrix, out) in matrices.iter().zip(out.chunks_exact_mut(7 * N)) {
                linear(&context, &rows, matrix, &[0.5; N], Activation::Relu, out);
            }
            out
        };
        let before = products();
        let moving = relocation.start().unwrap();
        while !moving.is_finished() {
            assert!(products() == before);
        }
        moving.join().unwrap();
        assert!(products() == before);
        assert!(format!("{:?}", views[3]).contains("moved"));
    }
}
