//! Reading a configuration: file, overrides, checks.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::environment::Environment;
use super::problem::{ConfigError, Problem, Problems};
use super::source::{MAX_BYTES, Node};
use super::{Config, checked, overrides, raw, read, source};

/// A configuration and what the user should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Legal, but worth a warning: a password in clear text, for example.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads `path`, applies `VEDETTA__…` variables and then `overrides` (`mqtt.host=broker`), and
    /// checks the result. Warnings go to the log.
    ///
    /// # Errors
    /// Every problem found, each with its line or override, key and legal values.
    pub fn load(
        path: &Path,
        overrides: &[String],
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Loaded::read(path, overrides, environment).map(Loaded::log_warnings)
    }

    /// [`Config::load`] for a daemon: the files that it cannot run without have to be there, and of use.
    /// [`Config::load`] does with a configuration that was written for another machine.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_to_run(
        path: &Path,
        overrides: &[String],
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Loaded::read_with(path, overrides, environment, true).map(Loaded::log_warnings)
    }

    /// [`Config::load`] of a text; `name` stands for the file name in messages, and relative paths
    /// start at its folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(
        text: &str,
        name: &str,
        overrides: &[String],
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Loaded::parse(text, name, overrides, environment).map(Loaded::log_warnings)
    }
}

/// How a configuration was given.
#[derive(Clone, Copy, Default)]
struct Given {
    /// Everybody on this machine can read its file.
    readable_by_all: bool,
    /// It is about to be used on this machine.
    to_run: bool,
}

impl Loaded {
    /// [`Config::load`] that returns its warnings instead of logging them.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(
        path: &Path,
        overrides: &[String],
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Self::read_with(path, overrides, environment, false)
    }

    fn read_with(
        path: &Path,
        overrides: &[String],
        environment: &Environment,
        to_run: bool,
    ) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let (text, mode) = read_text(path).map_err(|message| {
            let problem = Problem {
                origin: name.clone(),
                key: None,
                value: None,
                message,
            };
            ConfigError {
                problems: vec![problem],
            }
        })?;
        let given = Given {
            readable_by_all: mode & 0o004 != 0,
            to_run,
        };
        Self::check(&text, &name, overrides, environment, given)
    }

    /// [`Config::from_toml`] that returns its warnings instead of logging them.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(
        text: &str,
        name: &str,
        overrides: &[String],
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Self::check(text, name, overrides, environment, Given::default())
    }

    fn check(
        text: &str,
        name: &str,
        overrides: &[String],
        environment: &Environment,
        given: Given,
    ) -> Result<Self, ConfigError> {
        let problems = Problems::new(name);
        let config = source::parse(text, &problems).and_then(|mut tree: Node| {
            overrides::apply(&mut tree, environment, overrides, &problems);
            let raw: raw::Config = read::read(&tree, &problems)?;
            let context = checked::Context {
                problems: &problems,
                environment,
                folder: Path::new(name).parent().unwrap_or(Path::new("")),
                readable_by_all: given.readable_by_all,
            };
            let config = checked::check(&context, &raw)?;
            if given.to_run {
                checked::check_files(&context, &raw, &config);
            }
            Some(config)
        });
        let (mut errors, warnings) = problems.into_sorted();
        match config {
            Some(config) if errors.is_empty() => Ok(Self { config, warnings }),
            _ => {
                if errors.is_empty() {
                    errors.push(Problem {
                        origin: name.to_owned(),
                        key: None,
                        value: None,
                        message: "cannot be used".to_owned(),
                    });
                }
                Err(ConfigError { problems: errors })
            }
        }
    }

    fn log_warnings(self) -> Config {
        for warning in &self.warnings {
            log::warn!("{warning}");
        }
        self.config
    }
}

/// The text of a file, and its mode.
fn read_text(path: &Path) -> Result<(String, u32), String> {
    let failed = |error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "; write one like the example, config.example.toml",
            std::io::ErrorKind::PermissionDenied => "; let the user of the service read it",
            _ => "",
        };
        format!("cannot be read: {error}{hint}")
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    let limit = u64::try_from(MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_BYTES {
        return Err(format!(
            "is larger than {MAX_BYTES} bytes; is it a configuration?"
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        format!("is not UTF-8 text in line {line}")
    })?;
    Ok((text, mode))
}
