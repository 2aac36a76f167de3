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
    catch_unwind(AssertUnwindSafe(|| run(bundle, config, frames)))
        .unwrap_or_else(|_| Err("it makes the encoder panic".to_owned()))
}

fn run(
    bundle: &Bundle,
    config: &Config,
    frames: &[Option<Arc<RgbImage>>],
) -> Result<TryOut, String> {
    let needed = memory::needed(bundle.manifest());
    if let Some(free) = memory::available().filter(|free| *free < needed) {
        let mb = |bytes: u64| bytes / 1_000_000;
        return Err(format!(
            "it takes about {} MB, {} MB are free beside what runs; stop the daemon and install it \
             with `vedetta bundle install`, or take a quantized bundle",
            mb(needed),
            mb(free)
        ));
    }
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
    let rate = 1.0 / fastest.as_secs_f32().max(1e-6);
    let wanted = config.cameras.iter().map(|camera| camera.rate_fps);
    let wanted = wanted.fold(0.0, f32::max);
    if rate < LEAST_RATE * wanted {
        return Err(format!(
            "it is too slow for this board: {rate:.2} frames per second of every camera where \
             {wanted} are wanted (rate_fps)"
        ));
    }
    Ok(TryOut {
        round: fastest,
        real_frames: frames.iter().any(Option::is_some),
    })
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
