//! The daemon: starts the threads, listens to signals and commands, reloads, stops.

mod clock;
mod commands;
mod embeddings;
mod in_force;
mod inference;
mod plan;
mod relay;
mod settings;
mod supervisor;
mod trial;
mod updates;

pub use in_force::in_force;
pub use plan::watch;
pub use settings::Settings;
pub use supervisor::{load_model, serve};

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

/// How signals (or the owner of an embedded daemon) steer [`serve`].
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    reload: AtomicBool,
}

impl Control {
    /// Asks for a clean stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Asks for the configuration to be read again.
    pub fn reload(&self) {
        self.reload.store(true, Ordering::Relaxed);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}

/// Why the daemon could not start, or had to give up.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration; exit 78.
    #[error("{0}")]
    Config(#[from] crate::config::ConfigError),
    /// A label's prompts.
    #[error(transparent)]
    Prompt(#[from] crate::label_set::LabelSetError),
    /// The state directory.
    #[error("the state directory {} cannot be used: {source}; create it or set state_dir", .path.display())]
    StateDir {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] crate::bundle::BundleError),
    /// An encoder.
    #[error(transparent)]
    Encode(#[from] crate::encoder::EncodeError),
    /// Label embeddings.
    #[error("the labels cannot be embedded: {0}")]
    LabelBank(String),
    /// The mqtt side.
    #[error(transparent)]
    Publish(#[from] crate::publish::PublishError),
    /// A thread.
    #[error("the system refused a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A thread ended on its own.
    #[error("the {0} thread died; see the log above")]
    Died(&'static str),
}

impl ServeError {
    /// 78 (`EX_CONFIG`) for what a restart cannot cure, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Prompt(_) => crate::config::ConfigError::EXIT_CODE,
            _ => 1,
        }
    }
}
