//! Log lines while the terminal shows a table: kept instead of written over it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use env_logger::Target;
use log::LevelFilter;

/// Lines kept.
const LINES: usize = 200;
/// Longest line, bytes.
const MAX_LINE_BYTES: usize = 2000;

/// The newest log lines; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Journal {
    /// Starts logging warnings: into the journal when `keep`, to standard error otherwise.
    /// `RUST_LOG` overrides what is logged.
    pub fn start(keep: bool) -> Self {
        let journal = Self::default();
        let mut builder = env_logger::Builder::new();
        builder.filter_level(LevelFilter::Warn);
        // Its spans are logged as errors, one for every packet.
        builder.filter_module("rumqttd", LevelFilter::Off);
        builder.parse_default_env();
        if keep {
            let writer = Writer {
                journal: journal.clone(),
                line: Vec::new(),
            };
            builder.target(Target::Pipe(Box::new(writer)));
            let panics = journal.clone();
            std::panic::set_hook(Box::new(move |panic| panics.add(panic.to_string())));
        }
        // Somebody may have started logging before; then it stays as it is.
        let _ = builder.try_init();
        journal
    }

    /// The newest line.
    pub fn last(&self) -> Option<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .back()
            .cloned()
    }

    /// Everything that is kept, oldest first; the journal is empty afterwards.
    pub fn take(&self) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.drain(..).collect()
    }

    fn add(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

struct Writer {
    journal: Journal,
    line: Vec<u8>,
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                self.journal
                    .add(String::from_utf8_lossy(&self.line).into_owned());
                self.line.clear();
            } else if self.line.len() < MAX_LINE_BYTES {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
