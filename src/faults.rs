//! Faults on command, for the tests of the watchdog. The feature `faults` and builds with debug
//! assertions have them; nothing that ships has either, and there all of this is nothing.

/// Hangs the calling thread for good when the file `fault` in `$STATE_DIRECTORY` names its `stage`:
/// `capture`, `inference` or `mqtt`. The file is removed first, so that a restart is not hit again.
#[cfg(any(feature = "faults", debug_assertions))]
pub fn hang_if_told(stage: &str) {
    let Some(folder) = std::env::var_os("STATE_DIRECTORY") else {
        return;
    };
    let file = std::path::Path::new(&folder).join("fault");
    let told = std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == stage);
    if !told || std::fs::remove_file(&file).is_err() {
        return;
    }
    log::warn!("told to hang: {stage}");
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// Holds the calling thread for as long as the file `hold` in `$STATE_DIRECTORY` names its `stage`:
/// `model`, which is being loaded.
#[cfg(any(feature = "faults", debug_assertions))]
pub fn hold_while_told(stage: &str) {
    let Some(folder) = std::env::var_os("STATE_DIRECTORY") else {
        return;
    };
    let file = std::path::Path::new(&folder).join("hold");
    while std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == stage) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Nothing.
#[cfg(not(any(feature = "faults", debug_assertions)))]
#[inline(always)]
pub fn hold_while_told(_stage: &str) {}

/// Nothing.
#[cfg(not(any(feature = "faults", debug_assertions)))]
#[inline(always)]
pub fn hang_if_told(_stage: &str) {}
