//! What this process has used: memory and processor time.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Resident memory, in 10⁶ bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Now.
    pub resident_mb: f64,
    /// Most since the process started.
    pub peak_mb: f64,
}

/// Reads `/proc/self/status`; `None` where there is none.
pub fn memory() -> Option<Memory> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<Memory> {
    let mb = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(f64::from(kib) * 1024.0 / 1e6)
    };
    Some(Memory {
        resident_mb: mb("VmRSS:")?,
        peak_mb: mb("VmHWM:")?,
    })
}

/// Processor time of all threads of this process so far.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_decimal_megabytes() {
        let status = "Name:\tvedetta\nVmHWM:\t  250000 kB\nVmRSS:\t  125000 kB\n";
        let memory = parse(status).unwrap();
        assert_eq!((memory.resident_mb, memory.peak_mb), (128.0, 256.0));
        assert_eq!(parse("VmRSS: many kB\nVmHWM: 1 kB"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn processor_time_grows_with_work() {
        let before = cpu_time();
        let mut x = 1_u64;
        while cpu_time() == before {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(cpu_time() > before);
    }
}
