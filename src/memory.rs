//! What this process keeps of its memory, and what it gives back.

/// Lets freed memory stay with the process, to be used again by the next frame; best called before there
/// are threads. Does nothing with another C library than glibc.
///
/// A 1080p frame is 3 MB in buffers of some hundred kilobytes each. Until it has seen a much larger one,
/// glibc returns such buffers as soon as they are freed, and takes them again zeroed and page by page.
/// Decoding frame after frame takes 0.8 of the time without that on a Zen 4; little is left of the gain
/// where an encoder has emptied the caches between two frames. A thread now keeps what its largest frame
/// took, up to 32 MiB; what loading leaves goes back all the same, by [`give_back`].
pub fn keep_for_the_next_frame() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The most that glibc takes for a threshold.
        const THRESHOLD: libc::c_int = 32 << 20;
        // SAFETY: sets two numbers of the allocator under its own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
            libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD);
        }
    }
}

/// Returns to the system what loading took and nothing needs any more: holes in the heap, and the
/// program's code, of which what still runs comes back by itself.
pub fn give_back() {
    trim_heap();
    #[cfg(target_os = "linux")]
    forget_code();
}

/// A graph that is parsed and optimised leaves holes in the heap that glibc would keep for good: 2 of the
/// 5 MB that loading ViT-B/32 takes, more for a tokenizer. Does nothing with another C library.
fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: looks at free memory only, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes the program's code out of this process's pages. Reading and optimising a graph runs through 12
/// MB of it, encoding through one or two. The pages stay in the page cache, from where those that are
/// run next are mapped again, sixteen at a time and without reading the file; what is not run again the
/// kernel may reuse first. What a debugger or a tracer has written into the code is gone, too.
#[cfg(target_os = "linux")]
fn forget_code() {
    let (Ok(program), Ok(maps)) = (
        std::fs::read_link("/proc/self/exe"),
        std::fs::read_to_string("/proc/self/maps"),
    ) else {
        return;
    };
    for (start, end) in code_of(&maps, &program.to_string_lossy()) {
        // SAFETY: the program does not write to its code, and is position-independent, so that no
        // relocation did; the pages are what the file holds, and are mapped again when they are touched.
        unsafe {
            libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED);
        }
    }
}

/// Where `program` is mapped to be run and not to be written, by a table as in `/proc/self/maps`.
#[cfg(target_os = "linux")]
fn code_of(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let place = |line: &str| {
        let (place, rest) = line.split_once(' ')?;
        let path = rest.find('/').map(|at| &rest[at..])?;
        (rest.starts_with("r-xp ") && path == program).then_some(())?;
        let (start, end) = place.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(start)?, number(end)?)).filter(|(start, end)| start < end)
    };
    maps.lines().filter_map(place).collect()
}

/// Resident kilobytes of the mapping that begins at this address.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn resident_kb(address: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{address:x}-");
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
    let line = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Runs the test of this name in a process of its own, where no other has touched the allocator.
    /// Returns whether this is that process.
    fn is_alone(name: &str) -> bool {
        const ALONE: &str = "VEDETTA_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{name}");
        false
    }

    #[test]
    fn only_the_programs_own_code_is_forgotten() {
        let maps = "\
            55d0a000-55d0f000 r--p 00000000 fe:00 131 /usr/bin/vedetta\n\
            55d0f000-55e00000 r-xp 00005000 fe:00 131 /usr/bin/vedetta\n\
            55e00000-55e01000 rw-p 000f5000 fe:00 131 /usr/bin/vedetta\n\
            55f00000-55f01000 rw-p 00000000 00:00 0 [heap]\n\
            7f000000-7f001000 r-xp 00000000 fe:00 7 /usr/lib/libc.so.6\n\
            7f100000-7f101000 r-xp 00000000 fe:00 9 /usr/bin/vedetta (deleted)\n\
            7f200000-7f201000 rwxp 00000000 fe:00 131 /usr/bin/vedetta\n\
            7ffc0000-7ffc1000 r-xp 00000000 00:00 0 [vdso]\n\
            zz-7f r-xp 0 0 0 /usr/bin/vedetta\n\
            nonsense\n";
        let code = [(0x55d0_f000, 0x55e0_0000)];
        assert_eq!(code_of(maps, "/usr/bin/vedetta"), code);
        assert_eq!(code_of(maps, "/opt/vedetta"), []);
    }

    /// Resident kilobytes of this program's code.
    fn resident() -> usize {
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let code = code_of(&maps, &program.to_string_lossy());
        code.iter().map(|(start, _)| resident_kb(*start)).sum()
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn buffers_of_a_frame_are_used_again() {
        if !is_alone("memory::tests::buffers_of_a_frame_are_used_again") {
            return;
        }
        let faults = || {
            let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
            // SAFETY: the call fills what it is given.
            unsafe {
                libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
                usage.assume_init().ru_minflt
            }
        };
        let frames = || {
            let before = faults();
            for frame in 0..100 {
                let sizes = [466_000, 130_000, 260_000, 65_000, 290_000, 600_000];
                let buffers = sizes.map(|size| vec![1_u8; size + frame]);
                std::hint::black_box(buffers);
            }
            faults() - before
        };
        keep_for_the_next_frame();
        frames();
        // A hundred times 1.8 MB are 44 000 pages.
        let taken = frames();
        assert!(taken < 2_000, "{taken} pages were taken again");
    }

    #[test]
    fn code_leaves_and_comes_back_as_it_is_run() {
        if !is_alone("memory::tests::code_leaves_and_comes_back_as_it_is_run") {
            return;
        }
        let before = resident();
        forget_code();
        let left = resident();
        assert!(left < before, "{left} of {before} kB");
    }
}
