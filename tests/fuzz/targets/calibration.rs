//! A calibration file that is anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vedetta::calibrate::Calibration;

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(calibration) = Calibration::from_toml(text)
    {
        assert_eq!(Calibration::from_toml(&calibration.to_toml()), Ok(calibration));
    }
});
