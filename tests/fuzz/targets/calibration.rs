//! A calibration file: anything is read or refused, and what was read is written and read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vedetta::calibrate::Calibration;

fuzz_target!(|input: &str| {
    if let Ok(calibration) = Calibration::from_toml(input) {
        assert_eq!(Calibration::from_toml(&calibration.to_toml()).as_ref(), Ok(&calibration));
    }
});
