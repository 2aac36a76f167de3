//! A session as people watch it.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::session::{Learner, Learnt, Point, Session, Settings};

/// Learns from the start, or from where `checkpoint` is.
pub(super) fn learn<L: Learner>(
    mut session: Session<L>,
    settings: Settings,
    checkpoint: &Path,
    resume: bool,
    measured: &str,
) -> Result<(Learnt, L)> {
    if resume {
        match session.resume()? {
            0 => log::warn!("there is nothing to resume; starting from the beginning"),
            done => log::info!("going on after epoch {done} of {}", settings.epochs),
        }
    }
    let bar = learning_bar((settings.epochs * session.steps()) as u64);
    bar.set_position((session.epochs_done() * session.steps()) as u64);
    let learnt = {
        let accuracy = std::cell::Cell::new(session.first().accuracy);
        let mut step = |loss: f64| {
            bar.inc(1);
            let percent = accuracy.get() * 100.0;
            bar.set_message(format!("loss {loss:.3}, {measured} {percent:.1} %"));
        };
        let mut each = |point: &Point| {
            accuracy.set(point.accuracy);
            ControlFlow::Continue(())
        };
        session.run(&mut step, &mut each)?
    };
    bar.finish_and_clear();
    if let Err(error) = std::fs::remove_file(checkpoint) {
        log::warn!("{} is left over: {error}", checkpoint.display());
    }
    Ok(learnt)
}

fn learning_bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = "learning {wide_bar} {pos}/{len} {per_sec} {eta} left {msg}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
