//! What the kernel says about the heat and the power of a board, from sysfs.
//!
//! Sources: `Documentation/driver-api/thermal/sysfs-api.rst` and `Documentation/hwmon/ina3221.rst` of
//! Linux; for `soctherm_oc` (over-current events of a Jetson Orin) and nvpmodel the Jetson Linux
//! Developer Guide, "Platform Power and Performance".

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest file that is read, bytes.
const MAX_BYTES: u64 = 16 * 1024;
/// What a sensor may say, °C; one that is switched off says −256.
const CREDIBLE_C: std::ops::RangeInclusive<f32> = -40.0..=150.0;

/// A reading of the board. `None` is what it does not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Hottest thermal zone, °C.
    pub temperature_c: Option<f32>,
    /// Degrees left until the kernel slows a processor down, in the thermal zone that is nearest to that:
    /// its lowest passive trip point less its temperature, °C.
    pub headroom_c: Option<f32>,
    /// Whether the board holds its clocks down because of heat or power.
    pub throttled: Option<bool>,
    /// What the whole board draws, watts.
    pub power_w: Option<f32>,
    /// Number of the power mode that is set (`nvpmodel` of a Jetson).
    pub power_mode: Option<u32>,
}

/// Where to read. Keeps what has to be compared with the next reading.
#[derive(Clone, Debug)]
pub struct Board {
    sysfs: PathBuf,
    power_mode: PathBuf,
    /// Over-current events so far.
    events: Option<u64>,
}

/// The variable that names another folder than `/sys`: for tests with a daemon, which has no heat of
/// its own.
const SYSFS_VARIABLE: &str = "VEDETTA_SYSFS";

impl Board {
    /// Reads this machine, or what the variable `VEDETTA_SYSFS` names.
    pub fn of_machine() -> Self {
        match std::env::var_os(SYSFS_VARIABLE) {
            Some(sysfs) => Self::at(Path::new(&sysfs)),
            None => Self {
                power_mode: "/var/lib/nvpmodel/status".into(),
                ..Self::at(Path::new("/sys"))
            },
        }
    }

    /// Reads another board than this machine: a folder that looks like `/sys`, with nvpmodel's status
    /// in it as the file `nvpmodel`.
    pub fn at(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
            power_mode: sysfs.join("nvpmodel"),
            events: None,
        }
    }

    /// Reads everything; a few dozen small files, well under a millisecond.
    pub fn read(&mut self) -> Reading {
        let zones: Vec<PathBuf> = entries(&self.class("thermal"), "thermal_zone")
            // PMIC-Die of a Jetson always reads 100 °C (or 50).
            .filter(|zone| line(&zone.join("type")).as_deref() != Some("PMIC-Die"))
            .collect();
        let zones: Vec<(f32, Option<f32>)> = zones
            .iter()
            .filter_map(|zone| Some((celsius(&zone.join("temp"))?, trip(zone))))
            .collect();
        let temperatures = zones.iter().map(|(temperature, _)| *temperature);
        let headroom = zones
            .iter()
            .filter_map(|(temperature, trip)| Some((*trip)? - temperature));
        Reading {
            temperature_c: temperatures.max_by(f32::total_cmp),
            headroom_c: headroom.min_by(f32::total_cmp),
            throttled: self.throttled(),
            power_w: self.power_w(),
            power_mode: self.power_mode(),
        }
    }

    fn class(&self, name: &str) -> PathBuf {
        self.sysfs.join("class").join(name)
    }

    /// Whether a cooling device that slows a processor is at work, a Jetson had over-current events
    /// since the last reading, or the Raspberry Pi's firmware says so. `None` where there is none of
    /// them.
    fn throttled(&mut self) -> Option<bool> {
        let cooling = entries(&self.class("thermal"), "cooling_device").filter_map(|device| {
            let name = line(&device.join("type"))?;
            let state: u64 = line(&device.join("cur_state"))?.parse().ok()?;
            slows(&name).then_some(state > 0)
        });
        // Bits 0–3: under-voltage, frequency capped, throttled, soft temperature limit, all "now".
        let firmware = line(
            &self
                .sysfs
                .join("devices/platform/soc/soc:firmware/get_throttled"),
        )
        .and_then(|bits| u32::from_str_radix(bits.trim_start_matches("0x"), 16).ok())
        .map(|bits| bits & 0xf != 0);
        let events = self.over_current_events();
        let before = std::mem::replace(&mut self.events, events);
        let over_current = events.map(|now| before.is_some_and(|then| now > then));
        cooling
            .chain(firmware)
            .chain(over_current)
            .reduce(|a, b| a || b)
    }

    fn over_current_events(&self) -> Option<u64> {
        let monitor = self.monitors().find(|(_, name)| name == "soctherm_oc")?.0;
        let counts = entries(&monitor, "oc")
            .filter(|path| path.to_string_lossy().ends_with("_event_cnt"))
            .filter_map(|path| line(&path)?.parse::<u64>().ok());
        Some(counts.fold(0, u64::saturating_add))
    }

    /// Voltage times current of the channel that feeds the board.
    fn power_w(&self) -> Option<f32> {
        let total = |label: &str| ["VDD_IN", "POM_5V_IN", "VIN_SYS_5V0"].contains(&label);
        self.monitors()
            .filter(|(_, name)| name.starts_with("ina3221"))
            .find_map(|(monitor, _)| {
                (1..=3).find_map(|n| {
                    let file = |name: String| line(&monitor.join(name));
                    let label = file(format!("in{n}_label"))?;
                    let millivolts: f32 = file(format!("in{n}_input"))?.parse().ok()?;
                    let milliamperes: f32 = file(format!("curr{n}_input"))?.parse().ok()?;
                    let watts = millivolts * milliamperes / 1e6;
                    (total(&label) && (0.0..1000.0).contains(&watts)).then_some(watts)
                })
            })
    }

    /// `pmode:0002 …` of nvpmodel.
    fn power_mode(&self) -> Option<u32> {
        let status = line(&self.power_mode)?;
        let mode = status.split_whitespace().next()?.strip_prefix("pmode:")?;
        mode.parse().ok()
    }

    fn monitors(&self) -> impl Iterator<Item = (PathBuf, String)> {
        entries(&self.class("hwmon"), "hwmon").filter_map(|monitor| {
            let name = line(&monitor.join("name"))?;
            Some((monitor, name))
        })
    }
}

/// Cooling devices that work by slowing a processor; fans do not count.
fn slows(name: &str) -> bool {
    let of_linux = ["throttle", "cpufreq", "devfreq", "cpu-alert", "gpu-alert"];
    name == "Processor" || of_linux.iter().any(|part| name.contains(part))
}

/// Lowest trip point of a zone at which the kernel slows something down, °C.
fn trip(zone: &Path) -> Option<f32> {
    let of_trip = |path: PathBuf| {
        let name = path
            .file_name()?
            .to_str()?
            .strip_suffix("_type")?
            .to_owned();
        let kind = line(&path)?;
        let limit = celsius(&zone.join(format!("{name}_temp")))?;
        (kind == "passive" && limit > 0.0).then_some(limit)
    };
    entries(zone, "trip_point_")
        .filter_map(of_trip)
        .min_by(f32::total_cmp)
}

/// Millidegrees in a file, as degrees; `None` where they are not credible.
fn celsius(path: &Path) -> Option<f32> {
    let millidegrees: f32 = line(path)?.parse().ok()?;
    let celsius = millidegrees / 1e3;
    CREDIBLE_C.contains(&celsius).then_some(celsius)
}

/// Entries of `folder` whose name starts with `prefix`; none when it cannot be read.
fn entries(folder: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
}

/// A small kernel file as text without the white space around it.
fn line(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn board(files: &[(&str, &str)]) -> (tempfile::TempDir, Board) {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), files);
        let board = Board::at(root.path());
        (root, board)
    }

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn the_hottest_credible_zone_counts() {
        let (_root, mut board) = board(&[
            ("class/thermal/thermal_zone0/temp", "48500\n"),
            ("class/thermal/thermal_zone1/temp", "61250\n"),
            ("class/thermal/thermal_zone2/temp", "-256000\n"),
            ("class/thermal/thermal_zone3/temp", "100000\n"),
            ("class/thermal/thermal_zone3/type", "PMIC-Die\n"),
            ("class/thermal/thermal_zone4/temp", "garbage"),
        ]);
        let reading = board.read();
        assert_eq!(reading.temperature_c, Some(61.25));
        assert_eq!((reading.throttled, reading.headroom_c), (None, None));
    }

    #[test]
    fn the_lowest_passive_trip_point_is_where_the_kernel_slows_down() {
        let zone = "class/thermal/thermal_zone0";
        let trips = [
            ("temp", "60000"),
            ("0_type", "active"),
            ("0_temp", "51000"),
            ("1_type", "passive"),
            ("1_temp", "99000"),
            ("2_type", "critical"),
            ("2_temp", "104500"),
            ("3_type", "passive"),
            ("3_temp", "97000"),
            ("4_type", "passive"),
            ("4_temp", "-274000"),
        ];
        let files = trips.map(|(name, text)| match name {
            "temp" => (format!("{zone}/temp"), text),
            _ => (format!("{zone}/trip_point_{name}"), text),
        });
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| (name.as_str(), *text))
            .collect();
        let (_root, mut board) = board(&files);
        assert_eq!(board.read().headroom_c, Some(37.0));
    }

    #[test]
    fn a_cool_zone_with_a_low_trip_point_does_not_make_a_cool_processor_hot() {
        let skin = "class/thermal/thermal_zone0";
        let cpu = "class/thermal/thermal_zone1";
        let (root, mut board) = board(&[
            (&format!("{skin}/temp"), "40000"),
            (&format!("{skin}/trip_point_0_type"), "passive"),
            (&format!("{skin}/trip_point_0_temp"), "55000"),
            (&format!("{cpu}/temp"), "60000"),
            (&format!("{cpu}/trip_point_0_type"), "passive"),
            (&format!("{cpu}/trip_point_0_temp"), "99000"),
        ]);
        let rules = crate::config::Heat {
            enabled: true,
            start_c: None,
            step_c: 4.0,
            hysteresis_c: 5.0,
        };
        let mut governor = crate::heat::Governor::new(rules);
        assert!(
            !governor.update(Duration::ZERO, &board.read()),
            "15 °C are left"
        );
        write(root.path(), &[(&format!("{skin}/temp"), "46000")]);
        assert!(
            governor.update(Duration::ZERO, &board.read()),
            "9 °C are left"
        );
        write(root.path(), &[(&format!("{skin}/temp"), "40000")]);
        write(root.path(), &[(&format!("{cpu}/temp"), "94000")]);
        assert!(
            governor.update(Duration::from_secs(60), &board.read()),
            "5 °C are left"
        );
        assert_eq!(governor.level(), 2);
    }

    #[test]
    fn a_fan_is_no_throttling_and_a_slowed_processor_is() {
        let (root, mut board) = board(&[
            ("class/thermal/cooling_device0/type", "pwm-fan\n"),
            ("class/thermal/cooling_device0/cur_state", "3\n"),
        ]);
        assert_eq!(board.read().throttled, None);
        let alert = "class/thermal/cooling_device1";
        write(
            root.path(),
            &[(&format!("{alert}/type"), "cpu-throttle-alert\n")],
        );
        write(root.path(), &[(&format!("{alert}/cur_state"), "0\n")]);
        assert_eq!(board.read().throttled, Some(false));
        write(root.path(), &[(&format!("{alert}/cur_state"), "1\n")]);
        assert_eq!(board.read().throttled, Some(true));
    }

    #[test]
    fn only_throttling_that_happens_now_counts_on_a_raspberry_pi() {
        let file = "devices/platform/soc/soc:firmware/get_throttled";
        for (bits, throttled) in [("0\n", false), ("50000\n", false), ("0x50005\n", true)] {
            let (_root, mut board) = board(&[(file, bits)]);
            assert_eq!(board.read().throttled, Some(throttled), "{bits}");
        }
    }

    #[test]
    fn a_jetson_tells_its_power_its_mode_and_over_current() {
        let (root, mut board) = board(&[
            ("class/hwmon/hwmon0/name", "pwmfan\n"),
            ("class/hwmon/hwmon3/name", "ina3221\n"),
            ("class/hwmon/hwmon3/in1_label", "VDD_CPU_GPU_CV\n"),
            ("class/hwmon/hwmon3/in1_input", "5000\n"),
            ("class/hwmon/hwmon3/curr1_input", "500\n"),
            ("class/hwmon/hwmon3/in2_label", "VDD_IN\n"),
            ("class/hwmon/hwmon3/in2_input", "5000\n"),
            ("class/hwmon/hwmon3/curr2_input", "1500\n"),
            ("class/hwmon/hwmon4/name", "soctherm_oc\n"),
            ("class/hwmon/hwmon4/oc1_event_cnt", "2\n"),
            ("class/hwmon/hwmon4/oc3_event_cnt", "1\n"),
            ("class/hwmon/hwmon4/oc3_throt_en", "1\n"),
            ("nvpmodel", "pmode:0002 fmode:quiet\n"),
        ]);
        let first = board.read();
        assert_eq!((first.power_w, first.power_mode), (Some(7.5), Some(2)));
        assert_eq!(first.throttled, Some(false), "they happened before");
        write(root.path(), &[("class/hwmon/hwmon4/oc3_event_cnt", "2\n")]);
        assert_eq!(board.read().throttled, Some(true));
        assert_eq!(board.read().throttled, Some(false));
    }

    #[test]
    fn a_machine_that_tells_nothing_gives_nothing() {
        let (_root, mut board) = board(&[]);
        assert_eq!(board.read(), Reading::default());
        Board::of_machine().read();
    }
}
