//! A configuration that is anything; what is accepted has to print and read back as itself.

use vedetta::config::{Config, Environment};

pub fn read(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let Ok(config) = Config::from_toml(text, "fuzz.toml", &[], &Environment::bare()) else {
        return false;
    };
    let _ = config.to_toml();
    true
}
