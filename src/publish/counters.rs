//! What the mqtt thread counts, and log lines once per change.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::MqttHealth;

/// Read by health, written by the mqtt thread.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub connections: AtomicU64,
    pub refused: AtomicU64,
    pub rate_limited: AtomicU64,
    pub retained_ignored: AtomicU64,
    pub oversized: AtomicU64,
    pub commands_off: AtomicU64,
}

impl Counters {
    pub fn read(&self) -> MqttHealth {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MqttHealth {
            connections: read(&self.connections),
            refused: read(&self.refused),
            rate_limited: read(&self.rate_limited),
            retained_ignored: read(&self.retained_ignored),
            oversized: read(&self.oversized),
            commands_off: read(&self.commands_off),
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Something that goes wrong again and again, said when it changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Complaint {
    last: Option<String>,
    suppressed: u64,
}

impl Complaint {
    /// The line to log, when `message` is news; it names how often the one before was repeated.
    pub fn about(&mut self, message: &str) -> Option<String> {
        if self.last.as_deref() == Some(message) {
            self.suppressed += 1;
            return None;
        }
        let line = format!("{message}{}", self.more());
        self.last = Some(message.to_owned());
        Some(line)
    }

    /// All is well again: how often the last complaint was repeated, for the log.
    pub fn settle(&mut self) -> String {
        self.last = None;
        self.more()
    }

    fn more(&mut self) -> String {
        match std::mem::take(&mut self.suppressed) {
            0 => String::new(),
            n => format!(" (the message before was repeated {n} times)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_said_once_and_its_repeats_are_counted() {
        let mut complaint = Complaint::default();
        assert_eq!(complaint.about("refused").as_deref(), Some("refused"));
        assert_eq!(complaint.about("refused"), None);
        assert_eq!(complaint.about("refused"), None);
        assert_eq!(
            complaint.about("timeout").as_deref(),
            Some("timeout (the message before was repeated 2 times)")
        );
        assert_eq!(complaint.settle(), "");
        assert_eq!(complaint.about("timeout").as_deref(), Some("timeout"));
    }
}
