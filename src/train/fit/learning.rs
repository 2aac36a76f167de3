//! A session as people watch it.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::session::{Learner, Learnt, Point, Session, Settings};

/// Time between two lines of a log that say how far it is.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// Learns from the start, or from where the session's checkpoint is.
pub(super) fn learn<L: Learner>(
    mut session: Session<L>,
    settings: Settings,
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
        let mut said = Instant::now();
        let mut each = |point: &Point| {
            accuracy.set(point.accuracy);
            if bar.is_hidden() && said.elapsed() >= BETWEEN_LINES {
                said = Instant::now();
                log::info!(
                    "{}",
                    epoch_line(point, settings.epochs, measured, bar.eta())
                );
            }
            ControlFlow::Continue(())
        };
        session.run(&mut step, &mut each)?
    };
    bar.finish_and_clear();
    Ok(learnt)
}

/// What a log says of an epoch, where no terminal shows the bar.
fn epoch_line(point: &Point, epochs: usize, measured: &str, left: Duration) -> String {
    let loss = point
        .loss
        .map_or_else(String::new, |loss| format!("loss {loss:.3}, "));
    format!(
        "epoch {} of {epochs}: {loss}{measured} {:.1} %, held-out loss {:.3}, {} left",
        point.epoch,
        point.accuracy * 100.0,
        point.held_out_loss,
        HumanDuration(left)
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epochs_line_says_how_far_it_is_and_how_long_it_takes() {
        let mut point = Point {
            epoch: 0,
            loss: None,
            accuracy: 0.5,
            held_out_loss: 1.25,
        };
        let line = |point: &Point| epoch_line(point, 8, "accuracy", Duration::from_secs(180));
        assert_eq!(
            line(&point),
            "epoch 0 of 8: accuracy 50.0 %, held-out loss 1.250, 3 minutes left"
        );
        (point.epoch, point.loss) = (3, Some(0.75));
        assert_eq!(
            line(&point),
            "epoch 3 of 8: loss 0.750, accuracy 50.0 %, held-out loss 1.250, 3 minutes left"
        );
    }
}
