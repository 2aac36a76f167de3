//! The configuration as its users meet it.

mod example;
mod hostile;
mod legal;
mod wrong;

use super::{Config, Environment};

/// The least that a configuration needs.
const MINIMAL: &str =
    "[[camera]]\ndevice = \"/dev/video0\"\n[[label]]\nnoun = \"scaffale vuoto\"\n";

/// Surroundings in which no bundle is found.
fn environment() -> Environment {
    let mut environment = Environment::bare();
    environment.directory = "/nowhere".into();
    environment
}

fn parse(text: &str) -> Result<Config, super::ConfigError> {
    Config::from_toml(text, "vedetta.toml", &[], &environment())
}

fn parse_with(text: &str, sets: &[&str]) -> Result<Config, super::ConfigError> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::from_toml(text, "vedetta.toml", &sets, &environment())
}

/// The lines of the error that `text` gives.
fn errors(text: &str) -> Vec<String> {
    let error = parse(text).expect_err("the configuration is wrong");
    error.to_string().lines().map(str::to_owned).collect()
}
