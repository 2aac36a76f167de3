//! Faults on command, for the tests of the watchdog. The feature `faults` and builds with debug
//! assertions compile this; nothing that ships has either.

use std::path::Path;
use std::time::Duration;

/// Hangs the calling thread for good when the file `fault` in `$STATE_DIRECTORY` names its `stage`:
/// `capture`, `inference` or `mqtt`. The file is removed first, so that a restart is not hit again.
pub fn hang_if_told(stage: &str) {
    let Some(folder) = std::env::var_os("STATE_DIRECTORY") else {
        return;
    };
    let file = Path::new(&folder).join("fault");
    let told = std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == stage);
    if !told || std::fs::remove_file(&file).is_err() {
        return;
    }
    log::warn!("told to hang: {stage}");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
