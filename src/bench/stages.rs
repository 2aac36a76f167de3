//! One frame's way from the camera's buffer to scores, stage by stage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use super::Samples;
use crate::config::{self, Shape};
use crate::decode::Picture;
use crate::encoder::{Embedding, ImageEncoder};
use crate::frame::Frame;
use crate::gate::{Gate, Scene, SceneRules};
use crate::matcher::{self, LabelBank};
use crate::preprocess::Preprocessor;

/// 1920×1080, 4:2:2, quality 85: what a USB camera sends. Made by `make_frame.py`.
const FRAME: &[u8] = include_bytes!("frame.jpg");

/// Medians, milliseconds, of one 1920×1080 MJPEG frame with one zone that covers it, as the daemon goes
/// about it when the frame before was scored, too.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Stages {
    /// MJPEG to an eighth of its size and, as much and as large as the zone needs, to luma and chroma.
    pub decode_ms: f64,
    /// Whether the frame shows anything, whether the zone changed.
    pub look_ms: f64,
    /// Bicubic resize, to RGB, normalise.
    pub resize_ms: f64,
    /// Image tower.
    pub encode_ms: f64,
    /// Cosines and probabilities.
    pub match_ms: f64,
}

const SCENE: SceneRules = SceneRules {
    dark_below: 0.05,
    frozen_after: None,
};
const GATE: config::Gate = config::Gate {
    enabled: true,
    threshold: 0.03,
    force_every: Duration::from_secs(5),
    dark_below: SCENE.dark_below,
};

impl Stages {
    /// Share of everything but the encoder, 0–1.
    pub fn overhead(&self) -> f64 {
        let around = self.decode_ms + self.look_ms + self.resize_ms + self.match_ms;
        around / (around + self.encode_ms)
    }
}

/// Runs frames for about `budget`.
///
/// # Errors
/// What a stage reports.
pub fn measure(
    encoder: &mut dyn ImageEncoder,
    preprocessor: &Preprocessor,
    labels: &[Embedding],
    logit_scale: f32,
    budget: Duration,
) -> Result<Stages> {
    let frame = Frame::mjpeg(1920, 1080, FRAME.to_vec());
    let bank = LabelBank {
        labels: labels.to_vec(),
        groups: vec![Some(0); labels.len()],
        negatives: Arc::default(),
        shots: None,
    };
    let (mut scene, mut gate) = (Scene::new(SCENE), Gate::new(GATE));
    let zones = || std::iter::once(&Shape::Full);
    let expected = preprocessor.expected((frame.width_px, frame.height_px), zones());
    let mut samples: [Samples; 5] = Default::default();
    let until = Instant::now() + budget;
    while samples[0].is_empty() || Instant::now() < until {
        let frame = frame.clone();
        let mut at = Instant::now();
        let mut lap = |stage: usize| {
            let now = Instant::now();
            samples[stage].push(now - at);
            at = now;
        };
        let picture = Picture::expecting(frame, expected.as_ref())?;
        lap(0);
        scene.look(Duration::ZERO, picture.small(), picture.fingerprint());
        gate.look(Duration::ZERO, picture.small(), &Shape::Full);
        lap(1);
        let decoded = preprocessor.decode(&picture, zones())?;
        let inputs = preprocessor.inputs(&decoded)?;
        lap(2);
        let embeddings = encoder.encode_images(&inputs)?;
        let embedding = embeddings
            .first()
            .ok_or_else(|| anyhow!("the encoder gave nothing"))?;
        lap(3);
        std::hint::black_box(matcher::score(embedding, &bank, logit_scale));
        lap(4);
    }
    let [decode, look, resize, encode, matching] = samples.map(|mut stage| stage.quantile_ms(0.5));
    Ok(Stages {
        decode_ms: decode,
        look_ms: look,
        resize_ms: resize,
        encode_ms: encode,
        match_ms: matching,
    })
}
