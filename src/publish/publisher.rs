//! The handle other threads hold, and the start of the mqtt thread.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use thiserror::Error;

use super::{Command, Outbox, Outgoing};
use crate::config::Config;
use crate::event::QueueHealth;

/// Why the mqtt thread could not be started.
#[derive(Debug, Error)]
pub enum PublishError {
    /// A TLS file cannot be used.
    #[error("mqtt.tls: {0}")]
    Tls(String),
    /// The system refused a thread or a runtime.
    #[error("cannot start the mqtt thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Handle to the mqtt thread; clones share it. When the last one is dropped the thread stops.
#[derive(Clone, Debug)]
pub struct Publisher {}

/// Starts the mqtt thread. It connects by itself, for as long as it takes.
///
/// # Errors
/// TLS files that cannot be read, or no thread to be had. An unreachable broker is no error.
pub fn spawn(
    _config: &Config,
    _boot: &str,
    _outbox: Outbox,
    _commands: SyncSender<Command>,
) -> Result<Publisher, PublishError> {
    Ok(Publisher {})
}

impl Publisher {
    /// Hands one message over. Events block until they are in the outbox (one disk transaction);
    /// everything else returns at once.
    pub fn send(&self, message: Outgoing) {
        self.send_all([message]);
    }

    /// Hands messages over that belong together: their events are stored in one transaction.
    pub fn send_all(&self, _messages: impl IntoIterator<Item = Outgoing>) {}

    /// Outbox length, bytes and drops.
    pub fn queue_health(&self) -> QueueHealth {
        QueueHealth::default()
    }

    /// Grows at least once per second while the thread is alive, connected or not.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::default()
    }

    /// Whether a broker accepted the connection and it still stands.
    pub fn is_connected(&self) -> bool {
        false
    }

    /// What the last connection attempt or the broker complained about; `None` when all is well.
    pub fn last_error(&self) -> Option<String> {
        None
    }

    /// Publishes what is left, `offline`, and disconnects, within `deadline` even when the broker
    /// is gone. True when `offline` was acknowledged.
    pub fn shutdown(&self, _deadline: Duration) -> bool {
        true
    }
}
