//! Whether two models fit at once: the present one works on while the next one is tried.

use std::path::{Path, PathBuf};

use crate::bundle::Manifest;

/// Bytes that both towers of a bundle take while they are tried, roughly: f16 is computed in f32, and
/// an engine keeps a little more than the weights.
pub fn needed(manifest: &Manifest) -> u64 {
    let tower = |name: &str, precision: &str| {
        let files = manifest.files.iter();
        let bytes: u64 = files
            .filter(|(file, _)| file.split('.').next() == Some(name))
            .map(|(_, file)| file.bytes)
            .fold(0, u64::saturating_add);
        match precision {
            "f16" => bytes.saturating_mul(2),
            _ => bytes.saturating_add(bytes / 4),
        }
    };
    let image = tower("image", &manifest.precision.image);
    image.saturating_add(tower("text", &manifest.precision.text))
}

/// Bytes that this process may still take; `None` where that cannot be known.
pub fn available() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| of_machine(&text));
    let group = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.and_then(|text| of_group(&group_folder(&text)?));
    match (machine, group) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// `MemAvailable:   12345 kB`.
fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The folder of a process's control group, version 2: `0::/system.slice/vedetta.service`.
fn group_folder(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// What is left of `memory.max`; files that can be read again do not count.
fn of_group(folder: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let most = number("memory.max")?;
    let used = number("memory.current")?;
    let stat = read("memory.stat").unwrap_or_default();
    let files = stat.lines().find_map(|l| l.strip_prefix("inactive_file "));
    let files: u64 = files.and_then(|n| n.parse().ok()).unwrap_or(0);
    Some(most.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let meminfo = "MemTotal:  4000 kB\nMemFree: 1 kB\nMemAvailable:    2000 kB\n";
        assert_eq!(of_machine(meminfo), Some(2_048_000));
        assert_eq!(of_machine("MemTotal: 4000 kB\n"), None);
        assert_eq!(
            group_folder("1:name=systemd:/x\n0::/system.slice/vedetta.service\n"),
            Some("/sys/fs/cgroup/system.slice/vedetta.service".into())
        );
        assert_eq!(group_folder("7:memory:/x\n"), None);
    }

    #[test]
    fn a_group_without_a_limit_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(of_group(folder.path()), None);
        write("memory.max", "1500\n");
        assert_eq!(of_group(folder.path()), Some(800));
        write("memory.stat", "anon 1\ninactive_file 200\n");
        assert_eq!(of_group(folder.path()), Some(1000));
    }
}
