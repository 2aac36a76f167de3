//! Whether a bundle does what this board is for, before it is used: labels are embedded, pictures are
//! encoded and scored, and not too slowly.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;

use super::memory;
use crate::bundle::Bundle;
use crate::calibrate::Applied;
use crate::config::Config;
use crate::lookout::{Model, WatchedCamera};
use crate::{bench, daemon, matcher};

/// Rounds over all cameras; the fastest counts, since the present bundle works at the same time.
const ROUNDS: usize = 3;
/// Share of the configured frame rates that has to be reached.
const LEAST_RATE: f32 = 0.5;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TryOut {
    /// One frame of every camera, all zones, from pixels to probabilities.
    pub round: Duration,
    /// Whether the frames were those of the cameras.
    pub real_frames: bool,
}

/// Tries `bundle` with the cameras and labels of `config`, in the order of which `frames` has the
/// last frame of each camera; a photo stands for those that have none. The labels' embeddings are kept
/// where the daemon looks for them.
///
/// # Errors
/// Why it should not be used, for people.
pub fn try_out(
    bundle: &Bundle,
    config: &Config,
    frames: &[Option<Arc<RgbImage>>],
) -> Result<TryOut, String> {
    guarded(|| run(bundle, config, frames))
}

fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("it makes the encoder panic".to_owned()))
}

fn run(
    bundle: &Bundle,
    config: &Config,
    frames: &[Option<Arc<RgbImage>>],
) -> Result<TryOut, String> {
    fits(memory::needed(bundle.manifest()), memory::available())?;
    let mut model = daemon::load_model(bundle, config).map_err(|error| error.to_string())?;
    let calibrated = Applied::of_config(config, bundle);
    let watched = daemon::watch(config, bundle, &calibrated, &config.state_dir, &mut || {})
        .map_err(|error| error.to_string())?;
    let stand_in = bench::photo().map_err(|error| error.to_string())?;
    let mut fastest = Duration::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for (n, camera) in watched.iter().enumerate() {
            let frame = frames.get(n).and_then(|frame| frame.as_deref());
            look(&mut model, camera, frame.unwrap_or(&stand_in))?;
        }
        fastest = fastest.min(started.elapsed());
    }
    let wanted = config.cameras.iter().map(|camera| camera.rate_fps);
    keeps_up(fastest, wanted.fold(0.0, f32::max))?;
    Ok(TryOut {
        round: fastest,
        real_frames: frames.iter().any(Option::is_some),
    })
}

/// Whether a bundle that takes `needed` bytes has room in what is `free`, where that is known.
fn fits(needed: u64, free: Option<u64>) -> Result<(), String> {
    let Some(free) = free.filter(|free| *free < needed) else {
        return Ok(());
    };
    let mb = |bytes: u64| bytes / 1_000_000;
    Err(format!(
        "it takes about {} MB, {} MB are free beside what runs; stop the daemon and install it \
         with `vedetta bundle install`, or take a quantized bundle",
        mb(needed),
        mb(free)
    ))
}

/// Whether rounds of this length are enough where `wanted` frames per second are.
fn keeps_up(round: Duration, wanted: f32) -> Result<(), String> {
    let rate = 1.0 / round.as_secs_f32().max(1e-6);
    if rate >= LEAST_RATE * wanted {
        return Ok(());
    }
    Err(format!(
        "it is too slow for this board: {rate:.2} frames per second of every camera where \
         {wanted} are wanted (rate_fps)"
    ))
}

fn look(model: &mut Model, camera: &WatchedCamera, frame: &RgbImage) -> Result<(), String> {
    let inputs = camera
        .zones
        .iter()
        .map(|zone| model.preprocessor.prepare(frame, &zone.plan.shape))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let embeddings = model
        .encoder
        .encode_images(&inputs)
        .map_err(|error| error.to_string())?;
    if embeddings.len() != camera.zones.len() {
        return Err("its image tower gives another number of embeddings than pictures".to_owned());
    }
    for (zone, embedding) in camera.zones.iter().zip(&embeddings) {
        let scores = matcher::score(embedding, &zone.bank, model.scoring.logit_scale);
        if scores.iter().any(|score| !score.probability.is_finite()) {
            return Err("its probabilities are no numbers".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_that_panics_is_refused() {
        assert_eq!(guarded(|| Ok(1)), Ok(1));
        let refused = guarded::<()>(|| panic!("as an engine may"));
        assert!(refused.unwrap_err().contains("panic"));
    }

    #[test]
    fn what_takes_more_memory_than_there_is_is_refused() {
        assert_eq!(fits(300_000_000, None), Ok(()));
        assert_eq!(fits(300_000_000, Some(300_000_000)), Ok(()));
        let refused = fits(300_000_000, Some(200_000_000)).unwrap_err();
        assert!(refused.contains("300 MB, 200 MB are free"), "{refused}");
    }

    #[test]
    fn half_of_the_wanted_rate_has_to_be_reached() {
        assert_eq!(keeps_up(Duration::from_millis(400), 5.0), Ok(()));
        let refused = keeps_up(Duration::from_millis(410), 5.0).unwrap_err();
        assert!(refused.contains("2.44 frames per second"), "{refused}");
    }
}
