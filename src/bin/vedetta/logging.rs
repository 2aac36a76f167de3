//! One line per change of state, on standard error; under systemd with its priorities.

use std::io::Write;

use log::{Level, LevelFilter};

/// Starts logging at `level`; `RUST_LOG` overrides it. Libraries speak from warnings up.
pub fn start(level: LevelFilter) {
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(LevelFilter::Warn.min(level))
        .filter_module("vedetta", level);
    builder.parse_default_env();
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        // sd-daemon(3): <N> at the start of a line is its priority; the journal has the time.
        builder.format(|out, record| {
            let priority = match record.level() {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            writeln!(out, "<{priority}>{}", record.args())
        });
    }
    // A second start (tests, the demo) keeps the first logger.
    let _ = builder.try_init();
}
