//! Ends the process when one input takes a minute: what hangs cannot be asked.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, Once, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Nothing that was tried takes a second.
const MOST: Duration = Duration::from_secs(60);

struct Reading {
    parser: &'static str,
    input: Vec<u8>,
    since: Instant,
}

static READINGS: Mutex<Option<HashMap<ThreadId, Reading>>> = Mutex::new(None);

/// Watches until it is dropped.
pub struct Guard;

pub fn begin(parser: &'static str, input: &[u8]) -> Guard {
    static WATCHER: Once = Once::new();
    WATCHER.call_once(|| drop(thread::spawn(watch)));
    let reading = Reading {
        parser,
        input: input.to_vec(),
        since: Instant::now(),
    };
    change(|readings| drop(readings.insert(thread::current().id(), reading)));
    Guard
}

impl Drop for Guard {
    fn drop(&mut self) {
        change(|readings| drop(readings.remove(&thread::current().id())));
    }
}

fn change(change: impl FnOnce(&mut HashMap<ThreadId, Reading>)) {
    let mut readings = READINGS.lock().unwrap_or_else(PoisonError::into_inner);
    change(readings.get_or_insert_default());
}

fn watch() {
    loop {
        thread::sleep(Duration::from_secs(1));
        change(|readings| {
            if let Some(reading) = readings
                .values()
                .find(|reading| reading.since.elapsed() > MOST)
            {
                let path = keep(reading.parser, &reading.input);
                eprintln!(
                    "{} hangs; the input is in {}",
                    reading.parser,
                    path.display()
                );
                std::process::abort();
            }
        });
    }
}

/// Writes an input where it can be found again.
pub fn keep(parser: &str, input: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("vedetta-fuzz-{parser}-{}", input.len()));
    std::fs::write(&path, input).expect("a temporary file");
    path
}
