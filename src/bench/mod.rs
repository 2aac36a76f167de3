//! `vedetta bench`: what a bundle costs on this board, beside what its processor could do.
//!
//! Times are medians of wall time in one process; memory is read once the image tower has settled after
//! its first embedding, before anything else of the benchmark is loaded.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, Limits};
use crate::config::Shape;
use crate::encoder::{self, Backend, Embedding, ModelInput, Workload};
use crate::photo::{self, PhotoError};
use crate::preprocess::Preprocessor;

pub mod limit;
pub mod power;
pub mod process;
mod stages;

pub use stages::Stages;

/// A picture to encode; the eight zones of the batch are crops of it.
const PHOTO: &[u8] = include_bytes!("frame.jpg");
/// Until weights that move after the first embedding have done so.
const SETTLING: Duration = Duration::from_millis(500);
/// Zones in the batch that is measured.
const BATCH: usize = 8;
/// What is embedded: short, as labels are.
const TEXTS: [&str; 4] = [
    "una mela",
    "uno scaffale vuoto",
    "una foto di un limone",
    "un cartone di latte sul banco",
];

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of the encoder.
    pub threads: NonZeroUsize,
    /// What images are encoded on.
    pub backend: Backend,
    /// Time for the encoder of one thread count; the other measurements take as long again.
    pub budget: Duration,
    /// The text whose embedding is timed; by default a short label.
    pub text: Option<String>,
}

/// What was measured. The field names are the keys of `vedetta bench --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Bundle name and hash.
    pub bundle: String,
    /// Engine, precision, threads.
    pub engine: String,
    /// Instructions the encoder's products run on.
    pub kernel: String,
    /// Threads asked for.
    pub threads: usize,
    /// Checking lengths and SHA-256 of all files of the bundle.
    pub verify_ms: f64,
    /// Loading the image tower after that, up to its first embedding.
    pub load_ms: f64,
    /// Median of one image.
    pub encode_ms_p50: f64,
    /// 95th percentile of one image.
    pub encode_ms_p95: f64,
    /// Median of a batch of eight, per image.
    pub batch8_ms_per_image: f64,
    /// Images measured one by one.
    pub images: usize,
    /// Images per second, one by one.
    pub images_per_s: f64,
    /// Processor time of one image, all threads.
    pub cpu_s_per_image: f64,
    /// Multiply-accumulates of one image, millions.
    pub mmacs: f64,
    /// What those would take if every thread did nothing but multiply-accumulates, at the peak that
    /// was measured here for the kernel in use; 0 where a GPU encodes, whose limit is not measured.
    pub limit_ms: f64,
    /// Peak of one thread, 10⁹ multiply-accumulates a second.
    pub peak_gmacs_per_thread: f64,
    /// Resident memory when the image tower has settled after the first embedding, 10⁶ bytes.
    pub rss_mb: f64,
    /// Most memory up to then, 10⁶ bytes.
    pub peak_mb: f64,
    /// Loading the text tower up to its first embedding.
    pub text_load_ms: f64,
    /// Median of one text.
    pub text_ms_p50: f64,
    /// A 1920×1080 MJPEG frame to scores.
    pub frame: Stages,
}

/// A photo of 1920×1080, where there is no camera.
///
/// # Errors
/// None: it is built in.
pub fn photo() -> Result<RgbImage, PhotoError> {
    photo::decode(PHOTO)
}

/// Measures the bundle at `path`. `progress` is called with the name of each step as it begins.
///
/// # Errors
/// A bundle that cannot be loaded or run.
pub fn run(path: &Path, options: &Options, progress: &dyn Fn(&str)) -> Result<Report> {
    progress("verifying the bundle");
    let started = Instant::now();
    let bundle = &Bundle::open(path, &Limits::default())?;
    let verify_ms = milliseconds(started.elapsed());

    progress("loading the image tower");
    let started = Instant::now();
    let mut encoder = encoder::load_image_on(bundle, options.threads, options.backend)?;
    encoder.encode_images(&[ModelInput::probe(bundle.manifest().image.size_px)])?;
    let load_ms = milliseconds(started.elapsed());
    thread::sleep(SETTLING);
    let memory = process::memory();

    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let zones = zones(&preprocessor)?;
    let one = std::slice::from_ref(&zones[0]);

    progress("encoding single images");
    let cpu_before = process::cpu_time();
    let mut singles = Samples::default();
    let started = Instant::now();
    while singles.is_empty() || started.elapsed() < options.budget {
        singles.time(|| encoder.encode_images(one))?;
    }
    let (wall, cpu) = (started.elapsed(), process::cpu_time() - cpu_before);
    let images = singles.len();

    progress("encoding batches of eight");
    let mut batches = Samples::default();
    let started = Instant::now();
    while batches.is_empty() || started.elapsed() < options.budget / 2 {
        batches.time(|| encoder.encode_images(&zones))?;
    }

    progress("embedding text");
    let (text_load_ms, mut texts, labels) = text(bundle, options)?;

    progress("following a 1080p frame");
    let frame = stages::measure(
        encoder.as_mut(),
        &preprocessor,
        &labels,
        bundle.manifest().scoring.logit_scale,
        options.budget / 2,
    )?;

    progress("measuring the processor's peak");
    let workload = encoder.workload();
    let limit = if encoder.is_accelerated() {
        Limit::unknown()
    } else {
        Limit::of(&workload)
    };
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2⁵³")]
    Ok(Report {
        bundle: bundle.id(),
        engine: encoder.describe(),
        peak_gmacs_per_thread: limit.macs_per_second(&workload) / 1e9,
        kernel: limit.kernel,
        threads: options.threads.get(),
        verify_ms,
        load_ms,
        encode_ms_p50: singles.quantile_ms(0.5),
        encode_ms_p95: singles.quantile_ms(0.95),
        batch8_ms_per_image: batches.quantile_ms(0.5) / BATCH as f64,
        images,
        images_per_s: images as f64 / wall.as_secs_f64(),
        cpu_s_per_image: cpu.as_secs_f64() / images as f64,
        mmacs: workload.total() as f64 / 1e6,
        limit_ms: limit.seconds * 1e3 / options.threads.get() as f64,
        rss_mb: memory.map_or(0.0, |memory| memory.resident_mb),
        peak_mb: memory.map_or(0.0, |memory| memory.peak_mb),
        text_load_ms,
        text_ms_p50: texts.quantile_ms(0.5),
        frame,
    })
}

/// Load time, times of a single text, and the embeddings of the labels.
fn text(bundle: &Bundle, options: &Options) -> Result<(f64, Samples, Vec<Embedding>)> {
    let started = Instant::now();
    let mut encoder = encoder::load_text_with(bundle, options.threads)?;
    let labels = encoder.encode_texts(&TEXTS)?;
    let load_ms = milliseconds(started.elapsed());
    let mut samples = Samples::default();
    let started = Instant::now();
    let text = [options.text.as_deref().unwrap_or(TEXTS[0])];
    while samples.is_empty() || started.elapsed() < options.budget / 2 {
        samples.time(|| encoder.encode_texts(&text))?;
    }
    Ok((load_ms, samples, labels))
}

/// Eight crops of the picture, left to right, top to bottom.
fn zones(preprocessor: &Preprocessor) -> Result<Vec<ModelInput>> {
    let picture = photo()?;
    let zone = |n: u8| {
        let shape = Shape::Rectangle {
            x: f32::from(n % 4) / 4.0,
            y: f32::from(n / 4) / 2.0,
            width: 0.25,
            height: 0.5,
        };
        Ok(preprocessor.prepare(&picture, &shape)?)
    };
    (0..8).map(zone).collect()
}

/// Time of one image on one thread that does nothing but multiply-accumulates.
struct Limit {
    kernel: String,
    seconds: f64,
}

impl Limit {
    /// Where something else than this processor multiplies.
    fn unknown() -> Self {
        Self {
            kernel: "CUDA".to_owned(),
            seconds: 0.0,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2⁵³")]
    fn macs_per_second(&self, workload: &Workload) -> f64 {
        if self.seconds > 0.0 {
            workload.total() as f64 / self.seconds
        } else {
            0.0
        }
    }

    fn of(workload: &Workload) -> Self {
        let float = limit::float_peak();
        let int8 = (workload.int8_macs > 0).then(limit::int8_peak);
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2⁵³")]
        let take = |macs: u64, peak: &limit::Peak| macs as f64 / peak.macs_per_second;
        let int8_seconds = int8
            .as_ref()
            .map_or(0.0, |peak| take(workload.int8_macs, peak));
        Self {
            kernel: int8.unwrap_or(float).instructions.to_owned(),
            seconds: take(workload.float_macs, &float) + int8_seconds,
        }
    }
}

/// Wall times of one thing done again and again.
#[derive(Clone, Debug, Default)]
struct Samples(Vec<Duration>);

impl Samples {
    fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    fn time<T, E>(&mut self, work: impl FnOnce() -> Result<T, E>) -> Result<(), E> {
        let started = Instant::now();
        std::hint::black_box(work()?);
        self.push(started.elapsed());
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// The nearest-rank `q`-quantile, 0 without samples.
    fn quantile_ms(&mut self, q: f64) -> f64 {
        self.0.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a rank within the count"
        )]
        let rank = (q * self.0.len() as f64).ceil() as usize;
        let sample = self.0.get(rank.saturating_sub(1)).copied();
        sample.map_or(0.0, milliseconds)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantile_ms(0.5), 0.0);
        for ms in [5, 1, 4, 2, 3] {
            samples.push(Duration::from_millis(ms));
        }
        assert_eq!(samples.quantile_ms(0.5), 3.0);
        assert_eq!(samples.quantile_ms(0.95), 5.0);
        assert_eq!(samples.quantile_ms(0.2), 1.0);
        assert_eq!(samples.quantile_ms(0.0), 1.0);
    }

    #[test]
    fn a_failing_step_is_reported_and_not_timed() {
        let mut samples = Samples::default();
        assert_eq!(samples.time(|| Err::<(), _>("broken")), Err("broken"));
        assert!(samples.is_empty());
    }
}
