//! A calibration file: anything is read or refused, and what was read is written and read alike.

use vedetta::calibrate::Calibration;

pub fn read(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let Ok(calibration) = Calibration::from_toml(text) else {
        return false;
    };
    assert_eq!(
        Calibration::from_toml(&calibration.to_toml()).as_ref(),
        Ok(&calibration)
    );
    true
}
