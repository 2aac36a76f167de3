//! What a kernel, or what stands for one, says about heat and power.

use std::fs;
use std::time::Duration;

use vedetta::config::Heat;
use vedetta::heat::{Board, Governor};

/// One line of the input each.
const FILES: [&str; 20] = [
    "class/thermal/thermal_zone0/type",
    "class/thermal/thermal_zone0/temp",
    "class/thermal/thermal_zone0/trip_point_0_type",
    "class/thermal/thermal_zone0/trip_point_0_temp",
    "class/thermal/thermal_zone1/type",
    "class/thermal/thermal_zone1/temp",
    "class/thermal/thermal_zone1/trip_point_0_type",
    "class/thermal/thermal_zone1/trip_point_0_temp",
    "class/thermal/cooling_device0/type",
    "class/thermal/cooling_device0/cur_state",
    "class/hwmon/hwmon0/name",
    "class/hwmon/hwmon0/in1_label",
    "class/hwmon/hwmon0/in1_input",
    "class/hwmon/hwmon0/curr1_input",
    "class/hwmon/hwmon1/name",
    "class/hwmon/hwmon1/oc1_event_cnt",
    "class/hwmon/hwmon1/oc2_event_cnt",
    "devices/platform/soc/soc:firmware/get_throttled",
    "nvpmodel",
    "class/thermal/thermal_zone1/trip_point_1_type",
];

const RULES: Heat = Heat {
    enabled: true,
    start_c: None,
    step_c: 4.0,
    hysteresis_c: 5.0,
};

pub fn read(input: &[u8]) -> bool {
    let folder = super::folder("heat");
    let mut lines = input.split(|byte| *byte == b'\n');
    for name in FILES {
        let path = folder.join(name);
        let parent = path.parent().expect("it is in a folder");
        fs::create_dir_all(parent).expect("a temporary folder");
        fs::write(path, lines.next().unwrap_or_default()).expect("a temporary file");
    }
    let mut board = Board::at(&folder);
    board.read();
    let reading = board.read();
    let mut governor = Governor::new(RULES);
    governor.update(Duration::ZERO, &reading);
    reading.temperature_c.is_some() && reading.throttled.is_some()
}
