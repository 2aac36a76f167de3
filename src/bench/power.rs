//! `vedetta bench --power`: what a camera costs in processor time, with nothing going on and at most.
//!
//! The idle hour is the daemon's own: [`daemon::serve`] runs in this process, all threads and all, on a
//! replayed 720p camera that sees a scene in which nothing moves but the sensor's noise. Its broker takes
//! the connection and says nothing.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use serde::Serialize;

use super::{Options, TEXTS, photo, process};
use crate::bundle::{Bundle, Limits};
use crate::config::{Config, Environment, Shape};
use crate::daemon::{self, Control};
use crate::decode::Picture;
use crate::encoder;
use crate::frame::Frame;
use crate::matcher::{self, LabelBank};
use crate::preprocess::Preprocessor;

/// A usual camera.
const SIZE_PX: (u32, u32) = (1280, 720);
/// Of the frames a camera compresses.
const QUALITY: u8 = 85;
/// Frames that are replayed over and over, no two alike.
const FRAMES: u32 = 16;
/// Standard deviation of the noise, codes: a webcam in a lit room.
const NOISE: f32 = 2.0;
/// For the first frames, which are all encoded.
const WARM_UP: Duration = Duration::from_secs(5);
/// A daemon that does not start within this is given up.
const START: Duration = Duration::from_secs(120);

/// What was measured. The field names are the keys of `vedetta bench --power --json`.
#[derive(Clone, Debug, Serialize)]
pub struct PowerReport {
    /// Bundle name and hash.
    pub bundle: String,
    /// Frames looked at a second.
    pub rate_fps: f32,
    /// Time that the idle daemon was watched.
    pub seconds: f64,
    /// Mean length of a frame, bytes.
    pub frame_bytes: usize,
    /// Share of one core that an idle camera takes, 0–1.
    pub idle_core_share: f64,
    /// Processor time of an idle hour.
    pub cpu_s_per_idle_hour: f64,
    /// Processor time of a frame in which nothing changed, the daemon's own included.
    pub cpu_s_per_idle_frame: f64,
    /// Processor time of a frame with one zone that is encoded and compared.
    pub cpu_s_per_encoded_frame: f64,
}

/// Measures the bundle at `path` for `options.budget`, at `rate_fps`. `progress` is called with the name
/// of each step as it begins.
///
/// # Errors
/// A bundle that cannot be used, or a daemon that does not start.
pub fn run(
    path: &Path,
    options: &Options,
    rate_fps: f32,
    progress: &dyn Fn(&str),
) -> Result<PowerReport> {
    let bundle = Bundle::open(path, &Limits::default())?;
    progress("making frames");
    let frames = frames()?;
    let frame_bytes = frames.iter().map(Vec::len).sum::<usize>() / frames.len();

    progress("encoding every frame");
    let cpu_s_per_encoded_frame = encoded(&bundle, options, &frames)?;

    progress("watching an idle scene");
    let folder = Scratch::new()?;
    for (n, frame) in frames.iter().enumerate() {
        fs::write(folder.0.join(format!("frames/{n:02}.jpg")), frame)?;
    }
    let watched = idle(path, options, rate_fps, &folder.0)?;
    let share = watched.cpu.as_secs_f64() / watched.wall.as_secs_f64();
    Ok(PowerReport {
        bundle: bundle.id(),
        rate_fps,
        seconds: watched.wall.as_secs_f64(),
        frame_bytes,
        idle_core_share: share,
        cpu_s_per_idle_hour: share * 3600.0,
        cpu_s_per_idle_frame: share / f64::from(rate_fps),
        cpu_s_per_encoded_frame,
    })
}

/// The same scene again and again, with noise of its own each time.
fn frames() -> Result<Vec<Vec<u8>>> {
    let (width, height) = SIZE_PX;
    let scene = imageops::resize(&photo()?, width, height, FilterType::Triangle);
    let frame = |n| -> Result<Vec<u8>> {
        let mut jpeg = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
        noisy(&scene, n).write_with_encoder(encoder)?;
        Ok(jpeg)
    };
    (1..=FRAMES).map(frame).collect()
}

/// Adds noise that is nearly normal: the sum of four uniform values.
fn noisy(scene: &RgbImage, seed: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut image = scene.clone();
    // The variance of a byte is (2¹⁶ − 1)/12.
    let scale = NOISE / (4.0_f32 * 65_535.0 / 12.0).sqrt();
    for value in image.iter_mut() {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let sum: f32 = state.to_le_bytes().map(f32::from).iter().sum();
        let noise = (sum - 4.0 * 127.5) * scale;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates"
        )]
        let noisy = (f32::from(*value) + noise).round() as u8;
        *value = noisy;
    }
    image
}

fn frame(data: Vec<u8>) -> Frame {
    Frame::mjpeg(SIZE_PX.0, SIZE_PX.1, data)
}

/// Processor time of a frame that has to be encoded, as the daemon goes about it, seconds.
fn encoded(bundle: &Bundle, options: &Options, frames: &[Vec<u8>]) -> Result<f64> {
    let manifest = bundle.manifest();
    let mut encoder = encoder::load_image_on(bundle, options.threads, options.backend)?;
    let preprocessor = Preprocessor::new(&manifest.image);
    let labels = encoder::load_text_with(bundle, options.threads)?.encode_texts(&TEXTS)?;
    let bank = LabelBank {
        groups: vec![Some(0); labels.len()],
        labels,
        negatives: Arc::default(),
        shots: None,
    };
    let zones = || std::iter::once(&Shape::Full);
    let expected = preprocessor.expected(SIZE_PX, zones());
    let mut look = |data: &Vec<u8>| -> Result<()> {
        let picture = Picture::expecting(frame(data.clone()), expected.as_ref())?;
        let inputs = preprocessor.prepare_live(&picture, zones())?;
        let embeddings = encoder.encode_images(&inputs)?;
        let embedding = embeddings
            .first()
            .ok_or_else(|| anyhow!("the encoder gave nothing"))?;
        let scores = matcher::score(embedding, &bank, manifest.scoring.logit_scale);
        std::hint::black_box(scores);
        Ok(())
    };
    look(&frames[0])?;
    let (before, started) = (process::cpu_time(), Instant::now());
    let mut looked_at = 0_u32;
    for data in frames.iter().cycle() {
        look(data)?;
        looked_at += 1;
        if started.elapsed() >= options.budget / 4 {
            break;
        }
    }
    Ok((process::cpu_time() - before).as_secs_f64() / f64::from(looked_at))
}

struct Watched {
    wall: Duration,
    cpu: Duration,
}

/// Runs the daemon and watches it.
fn idle(bundle: &Path, options: &Options, rate_fps: f32, folder: &Path) -> Result<Watched> {
    let silent = TcpListener::bind("127.0.0.1:0").context("no port on the loopback")?;
    let port = silent.local_addr()?.port();
    let text = configuration(bundle, options, rate_fps, folder, port)?;
    let load = move || Config::from_toml(&text, "bench.toml", &[], &Environment::bare());
    let control = Arc::new(Control::default());
    let steering = Arc::clone(&control);
    let daemon = thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(move || daemon::serve(&load, &steering))?;
    let outbox = folder.join("state/outbox.redb");
    let started = Instant::now();
    while !outbox.exists() {
        if daemon.is_finished() || started.elapsed() > START {
            control.stop();
            return match daemon.join() {
                Ok(outcome) => Err(outcome
                    .err()
                    .map_or_else(|| anyhow!("the daemon did not start"), Into::into)),
                Err(_) => Err(anyhow!("the daemon panicked")),
            };
        }
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(WARM_UP);
    let (before, started) = (process::cpu_time(), Instant::now());
    thread::sleep(options.budget);
    let watched = Watched {
        wall: started.elapsed(),
        cpu: process::cpu_time() - before,
    };
    control.stop();
    match daemon.join() {
        Ok(outcome) => outcome?,
        Err(_) => bail!("the daemon panicked"),
    }
    drop(silent);
    Ok(watched)
}

/// One camera, one zone, four labels.
fn configuration(
    bundle: &Path,
    options: &Options,
    rate_fps: f32,
    folder: &Path,
    port: u16,
) -> Result<String> {
    let bundle = fs::canonicalize(bundle)?;
    let mut text = format!(
        "device = \"bench\"\nstate_dir = {:?}\n[model]\nbundle = {bundle:?}\nthreads = {}\nbackend = \"{}\"\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = {port}\n\
         [[camera]]\nreplay = {:?}\nrate_fps = {rate_fps}\n",
        folder.join("state"),
        options.threads,
        options.backend,
        folder.join("frames"),
    );
    for prompt in TEXTS {
        let id = prompt.replace(' ', "-");
        text.push_str(&format!("[[label]]\nid = {id:?}\nprompts = [{prompt:?}]\n"));
    }
    Ok(text)
}

/// A folder that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("vedetta-power-{}", std::process::id()));
        fs::create_dir_all(folder.join("frames"))?;
        fs::create_dir_all(folder.join("state"))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_differ_by_noise_alone() {
        let scene = RgbImage::from_pixel(64, 64, image::Rgb([100, 120, 140]));
        let (a, b) = (noisy(&scene, 1), noisy(&scene, 2));
        assert_ne!(a, b);
        let deviation = |image: &RgbImage| {
            let squares = image
                .iter()
                .zip(scene.iter())
                .map(|(a, b)| (f32::from(*a) - f32::from(*b)).powi(2));
            (squares.sum::<f32>() / (64.0 * 64.0 * 3.0)).sqrt()
        };
        assert!((1.8..2.3).contains(&deviation(&a)), "{}", deviation(&a));
    }
}
