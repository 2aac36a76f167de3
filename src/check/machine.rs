//! The board itself: disk, clock, heat, memory, processor, service manager.

use std::fs;
use std::path::Path;

use rustix::fs::Access;

use super::Finding;
use crate::config::Environment;
use crate::heat::Board;
use crate::moment::Clock;
use crate::wall_clock;

/// Less free disk space than this is worth a warning.
const ENOUGH_DISK_BYTES: u64 = 256 << 20;
/// Less available memory than this is worth a warning: a small model and its work space.
const ENOUGH_MEMORY_BYTES: u64 = 256 << 20;
/// A board hotter than this, °C, will soon slow down.
const HOT_C: f32 = 80.0;

/// Everything that needs no configuration.
pub fn check(environment: &Environment) -> Vec<Finding> {
    let mut findings = vec![clock(), temperature(&mut Board::of_machine())];
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    findings.extend(memory(&meminfo));
    findings.push(processor(environment));
    findings.extend(service(environment));
    findings
}

/// Can state be kept in `folder`? The folder is not made: it would belong to the wrong user.
pub fn disk(folder: &Path) -> Finding {
    let shown = folder.display();
    let missing = !folder.exists();
    let there = folder.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("/"));
    let advice =
        "events would live in memory only: set state_dir, or run as the user it belongs to";
    if !there.is_dir() {
        return Finding::fail(
            "disk",
            format!("{} is not a folder", there.display()),
            advice,
        );
    }
    if let Err(error) = rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        return Finding::fail("disk", format!("{}: {error}", there.display()), advice);
    }
    let state = match missing {
        true => "will be made",
        false => "writable",
    };
    match rustix::fs::statvfs(there) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{shown}: {state}, {} MB free", free >> 20);
            match free >= ENOUGH_DISK_BYTES {
                true => Finding::ok("disk", found),
                false => Finding::warn("disk", found, "make room, or lower outbox.max_bytes"),
            }
        }
        Err(error) => Finding::warn("disk", format!("{shown}: {state}; {error}"), ""),
    }
}

fn clock() -> Finding {
    match wall_clock::trust() {
        Clock::Synced => Finding::ok("clock", "synchronised"),
        Clock::Unsynced => Finding::warn(
            "clock",
            "not known to be synchronised; events will say \"clock\":\"unsynced\"",
            "sudo timedatectl set-ntp true, or run chrony with rtcsync",
        ),
    }
}

fn temperature(board: &mut Board) -> Finding {
    let reading = board.read();
    let degrees = reading
        .temperature_c
        .map(|degrees| format!("{degrees:.0} °C"));
    let advice = "give it air or a heat sink, or lower camera.rate_fps";
    match (reading.temperature_c, reading.throttled) {
        (_, Some(true)) => {
            let at = degrees
                .map(|degrees| format!(" at {degrees}"))
                .unwrap_or_default();
            Finding::warn(
                "temperature",
                format!("the board slows itself down{at}"),
                advice,
            )
        }
        (Some(hot), _) if hot >= HOT_C => {
            Finding::warn("temperature", degrees.unwrap_or_default(), advice)
        }
        (Some(_), _) => Finding::ok("temperature", degrees.unwrap_or_default()),
        (None, _) => Finding::ok("temperature", "this machine has no sensor to read"),
    }
}

/// From `/proc/meminfo`; `None` where it says nothing.
fn memory(meminfo: &str) -> Option<Finding> {
    let bytes = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes.saturating_mul(1024))
    };
    let (total, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    let found = format!("{} MB of {} MB available", available >> 20, total >> 20);
    Some(match available >= ENOUGH_MEMORY_BYTES {
        true => Finding::ok("memory", found),
        false => Finding::warn(
            "memory",
            found,
            "stop other programs, or use a smaller model",
        ),
    })
}

fn processor(environment: &Environment) -> Finding {
    let features = features().join(" ");
    let arch = std::env::consts::ARCH;
    Finding::ok(
        "processor",
        format!("{} cores, {arch} {features}", environment.cores),
    )
}

/// Vector extensions that kernels choose by, those that are there.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        (
            "avx512vnni",
            std::arch::is_x86_feature_detected!("avx512vnni"),
        ),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        (
            "dotprod",
            std::arch::is_aarch64_feature_detected!("dotprod"),
        ),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&str, bool); 0] = [];
    let there = known.into_iter().filter(|(_, there)| *there);
    there.map(|(name, _)| name).collect()
}

fn service(environment: &Environment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let under_systemd = environment.variable("NOTIFY_SOCKET").is_some();
    match (under_systemd, environment.variable("WATCHDOG_USEC")) {
        (true, None) => findings.push(Finding::warn(
            "service",
            "the unit has no watchdog: nobody would notice a hang",
            "add WatchdogSec=30 to it",
        )),
        (true, Some(_)) => findings.push(Finding::ok("service", "systemd, with a watchdog")),
        (false, _) if environment.root => findings.push(Finding::warn(
            "service",
            "root may do everything: what the user of the service may do was not checked",
            "run the check as that user too",
        )),
        (false, _) => {}
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn little_memory_is_worth_a_warning() {
        let verdict = |kb: u64| {
            let meminfo = format!("MemTotal: 4000000 kB\nMemFree: 1 kB\nMemAvailable:  {kb} kB\n");
            memory(&meminfo).map(|finding| finding.verdict)
        };
        assert_eq!(verdict(2_000_000), Some(Verdict::Ok));
        assert_eq!(verdict(100_000), Some(Verdict::Warn));
        assert_eq!(memory("MemTotal: x kB"), None);
    }

    #[test]
    fn a_state_folder_is_not_made_by_looking_at_it() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a/b");
        let finding = disk(&missing);
        assert!(finding.found.contains("will be made"), "{finding:?}");
        assert!(!missing.exists());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(disk(&file.join("state")).verdict, Verdict::Fail);
        assert!(disk(folder.path()).found.contains("writable"));
    }

    #[test]
    fn a_unit_without_a_watchdog_is_worth_a_warning() {
        let mut environment = Environment::bare();
        assert_eq!(service(&environment), []);
        let set = |environment: &mut Environment, name: &str| {
            environment.variables.insert(name.into(), "1".into());
        };
        set(&mut environment, "NOTIFY_SOCKET");
        assert_eq!(service(&environment)[0].verdict, Verdict::Warn);
        set(&mut environment, "WATCHDOG_USEC");
        assert_eq!(service(&environment)[0].verdict, Verdict::Ok);
    }

    #[test]
    fn a_hot_board_is_worth_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let zone = folder.path().join("class/thermal/thermal_zone0");
        fs::create_dir_all(&zone).unwrap();
        let mut board = Board::at(folder.path());
        for (millidegrees, verdict) in [("45000\n", Verdict::Ok), ("95000\n", Verdict::Warn)] {
            fs::write(zone.join("temp"), millidegrees).unwrap();
            assert_eq!(temperature(&mut board).verdict, verdict);
        }
    }
}
