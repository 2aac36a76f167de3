//! Whether the wall clock can be trusted: the kernel's word and timesyncd's file.

use std::mem::MaybeUninit;
use std::path::Path;

use crate::moment::Clock;

/// systemd-timesyncd leaves this file once it has set the clock.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// Cheap enough to ask for every frame: a system call and a look for a file.
pub(crate) fn trust() -> Clock {
    judge(kernel_says_synchronised(), Path::new(SYNCHRONISED))
}

/// The kernel forgets after hours without a network that the clock was right once; the file stays. It
/// also answers where the kernel may not be asked.
fn judge(kernel: Option<bool>, file: &Path) -> Clock {
    if kernel == Some(true) || file.exists() {
        Clock::Synced
    } else {
        Clock::Unsynced
    }
}

/// Whether some daemon (timesyncd, chrony, ntpd) keeps the clock right: `STA_UNSYNC` of adjtimex(2)
/// is not set. `None` where the question is not allowed.
fn kernel_says_synchronised() -> Option<bool> {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: `timex` is a valid, writable `struct timex`; with `modes` = 0 the call only reads the
    // clock's state and needs no privilege.
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    if state < 0 {
        return None;
    }
    // SAFETY: every field is an integer or an array of integers, for which zeros are a value, and the
    // call filled them in.
    let timex = unsafe { timex.assume_init() };
    Some(timex.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_or_the_file_of_timesyncd_vouches_for_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("synchronized");
        let judged = |kernel| judge(kernel, &file);
        assert_eq!(judged(Some(true)), Clock::Synced, "chrony, ntpd");
        assert_eq!(judged(Some(false)), Clock::Unsynced);
        assert_eq!(judged(None), Clock::Unsynced);
        std::fs::write(&file, "").unwrap();
        for kernel in [Some(true), Some(false), None] {
            assert_eq!(judge(kernel, &file), Clock::Synced);
        }
    }
}
