//! Memory that loading took and that nothing holds any more.

/// Returns it to the system. A graph that is parsed and optimised leaves holes in the heap that glibc
/// would keep for good: 2 of the 5 MB that loading ViT-B/32 takes, more for a tokenizer. Does nothing
/// with another C library.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: looks at free memory only, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
