//! Cheap numbers about the running daemon: latencies, rates, the process.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shortest latency that is told apart.
const FIRST_BUCKET_US: f64 = 10.0;
/// Buckets per doubling: a bucket is 2^(1/8) wide, its geometric middle at most 4.4 % off.
const PER_OCTAVE: f64 = 8.0;
/// 10 µs · 2^(192/8) = 168 s.
const BUCKETS: usize = 192;

/// A fixed-size logarithmic histogram of durations from 10 µs to 168 s. What is outside counts as
/// the nearest end. Recording is a logarithm and an increment.
#[derive(Clone, Debug)]
pub struct Latency {
    buckets: [u32; BUCKETS],
    count: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            count: 0,
        }
    }
}

impl Latency {
    /// Adds one measurement.
    pub fn record(&mut self, latency: Duration) {
        let octaves = (latency.as_secs_f64() * 1e6 / FIRST_BUCKET_US).log2();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates, −∞ of a zero latency included"
        )]
        let bucket = (octaves * PER_OCTAVE) as usize;
        let slot = &mut self.buckets[bucket.min(BUCKETS - 1)];
        *slot = slot.saturating_add(1);
        self.count += 1;
    }

    /// How many measurements there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The `q`-quantile (0–1), at most 4.4 % off; `None` without measurements.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total: u64 = self.buckets.iter().copied().map(u64::from).sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a rank within the count"
        )]
        let rank = ((total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut below = 0;
        for (octave, count) in (0_u32..).zip(self.buckets) {
            below += u64::from(count);
            if below >= rank {
                let middle = (f64::from(octave) + 0.5) / PER_OCTAVE;
                let micros = FIRST_BUCKET_US * middle.exp2();
                return Some(Duration::from_secs_f64(micros / 1e6));
            }
        }
        None
    }

    /// The same in milliseconds, as [`crate::event::Health`] has it.
    pub fn quantile_ms(&self, q: f64) -> Option<f32> {
        Some(self.quantile(q)?.as_secs_f32() * 1e3)
    }

    /// Starts a new period.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Events per second between two readings of a counter that only grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateMeter {
    last: Option<(Duration, u64)>,
}

impl RateMeter {
    /// The rate since the last reading; since `now` = 0 and `total` = 0 at the first. A counter that
    /// started again counts from zero.
    pub fn read(&mut self, now: Duration, total: u64) -> f32 {
        let (then, before) = self.last.unwrap_or_default();
        self.last = Some((now, total));
        let elapsed_s = now.saturating_sub(then).as_secs_f32();
        #[expect(clippy::cast_precision_loss, reason = "frames of one period")]
        let events = total.checked_sub(before).unwrap_or(total) as f32;
        if elapsed_s > 0.0 {
            events / elapsed_s
        } else {
            0.0
        }
    }
}

/// Where the kernel says how the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// `/proc/self`.
    pub process: PathBuf,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            process: "/proc/self".into(),
        }
    }
}

/// One reading of [`Probes`]. What cannot be read is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Processor time of all threads since the start, user and system, seconds.
    pub cpu_s: f64,
    /// Open file descriptors.
    pub descriptors: u64,
}

impl Probes {
    /// Reads everything; three small files.
    pub fn read(&self) -> Vitals {
        Vitals {
            resident_bytes: self.resident_bytes().unwrap_or(0),
            cpu_s: self.cpu_s().unwrap_or(0.0),
            descriptors: self.descriptors().unwrap_or(0),
        }
    }

    /// `VmRSS` of `status`, which is in kB whatever the page size.
    fn resident_bytes(&self) -> Option<u64> {
        let status = text(&self.process.join("status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        kilobytes.checked_mul(1024)
    }

    /// Fields 14 and 15 of `stat`, proc(5), in units of `USER_HZ`, which is 100 on every
    /// architecture we run on.
    fn cpu_s(&self) -> Option<f64> {
        const USER_HZ: f64 = 100.0;
        let stat = text(&self.process.join("stat"))?;
        // The name in field 2 may hold anything; the last parenthesis ends it.
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace().skip(11);
        let ticks = |field: Option<&str>| field?.parse::<u32>().ok();
        let user = ticks(fields.next())?;
        let system = ticks(fields.next())?;
        Some((f64::from(user) + f64::from(system)) / USER_HZ)
    }

    fn descriptors(&self) -> Option<u64> {
        let entries = fs::read_dir(self.process.join("fd")).ok()?;
        // One of them is this directory itself, open for the listing.
        u64::try_from(entries.count().saturating_sub(1)).ok()
    }
}

/// A small kernel file as text.
fn text(path: &Path) -> Option<String> {
    const LIMIT: u64 = 16 * 1024;
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(LIMIT).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn probes(root: &Path) -> Probes {
        Probes {
            process: root.join("self"),
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_documented_error(
            mut micros in prop::collection::vec(10_u64..100_000_000, 1..300),
            q in 0.0_f64..=1.0,
        ) {
            let mut latency = Latency::default();
            for &m in &micros {
                latency.record(Duration::from_micros(m));
            }
            micros.sort_unstable();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a rank within a short list"
            )]
            let rank = ((micros.len() as f64 * q).ceil() as usize).max(1);
            let exact = Duration::from_micros(micros[rank - 1]).as_secs_f64();
            let told = latency.quantile(q).unwrap().as_secs_f64();
            prop_assert!((told / exact - 1.0).abs() < 0.045, "{told} for {exact}");
        }
    }

    #[test]
    fn latencies_out_of_range_count_as_the_ends() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        latency.record(Duration::ZERO);
        latency.record(Duration::MAX);
        assert_eq!(latency.count(), 2);
        assert!(latency.quantile(0.0).unwrap() < Duration::from_micros(12));
        assert!(latency.quantile(1.0).unwrap() > Duration::from_secs(150));
        latency.reset();
        assert_eq!((latency.count(), latency.quantile(0.5)), (0, None));
    }

    #[test]
    fn a_rate_is_counted_between_readings() {
        let mut rate = RateMeter::default();
        let at = |s| Duration::from_secs(s);
        assert!((rate.read(at(2), 10) - 5.0).abs() < 1e-6);
        assert!((rate.read(at(4), 70) - 30.0).abs() < 1e-6);
        assert!(rate.read(at(4), 80).abs() < 1e-6, "no time passed");
        assert!((rate.read(at(6), 4) - 2.0).abs() < 1e-6, "started again");
    }

    #[test]
    fn this_process_has_memory_processor_time_and_descriptors() {
        let vitals = Probes::default().read();
        assert!(vitals.resident_bytes > 100_000);
        assert!(vitals.descriptors >= 3);
        let before = vitals.descriptors;
        let _open = File::open("/proc/self/status").unwrap();
        assert!(Probes::default().read().descriptors >= before);
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let root = tempfile::tempdir().unwrap();
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 4 0";
        write(root.path(), &[("self/stat", stat)]);
        assert!((probes(root.path()).read().cpu_s - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_machine_that_tells_nothing_gives_zeros() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(probes(root.path()).read(), Vitals::default());
    }
}
