//! Image and text encoders behind two small traits, so that what is evaluated is what runs.

use std::num::NonZeroUsize;

use thiserror::Error;

use crate::bundle::Bundle;

mod backend;
pub mod conv;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod int8;
mod tokens;
pub mod tract;

pub use backend::{BACKENDS, Backend, Unavailable, gpu};
pub use tokens::{Padded, TextInput, Tokens};

/// Loads the image tower of `bundle` on the CPU, with the engine that serves its precision.
///
/// # Errors
/// A tower that does not fit its manifest or cannot be run.
pub fn load_image(
    bundle: &Bundle,
    threads: NonZeroUsize,
) -> Result<Box<dyn ImageEncoder>, EncodeError> {
    load_image_on(bundle, threads, Backend::Cpu)
}

/// As [`load_image`], on what `backend` says.
///
/// # Errors
/// As [`load_image`]; with [`Backend::Cuda`] also that a GPU cannot serve it.
pub fn load_image_on(
    bundle: &Bundle,
    threads: NonZeroUsize,
    backend: Backend,
) -> Result<Box<dyn ImageEncoder>, EncodeError> {
    if bundle.manifest().precision.image == "int8" {
        let encoder = int8::Int8ImageEncoder::load_on(bundle, threads, backend)?;
        return Ok(Box::new(encoder));
    }
    if backend == Backend::Cuda {
        return Err(backend::not_served(format!(
            "it serves int8 transformers, and the image tower of this bundle is {}",
            bundle.manifest().precision.image
        )));
    }
    let encoder = tract::TractImageEncoder::load(bundle, threads)?;
    crate::memory::give_back();
    Ok(Box::new(encoder))
}

/// Loads the text tower of `bundle` with the engine that serves its precision.
///
/// # Errors
/// A tower or tokenizer that does not fit its manifest or cannot be run.
pub fn load_text(bundle: &Bundle) -> Result<Box<dyn TextEncoder>, EncodeError> {
    load_text_with(bundle, NonZeroUsize::MIN)
}

/// As [`load_text`], with so many threads where the engine can use them.
///
/// # Errors
/// As [`load_text`].
pub fn load_text_with(
    bundle: &Bundle,
    threads: NonZeroUsize,
) -> Result<Box<dyn TextEncoder>, EncodeError> {
    if bundle.manifest().precision.text == "int8" {
        return Ok(Box::new(int8::Int8TextEncoder::load(bundle, threads)?));
    }
    Ok(Box::new(tract::TractTextEncoder::load(bundle)?))
}

/// A unit vector in the shared image–text space, `[D] f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Scales `values` to unit length. `None` when they are all zero or not finite.
    pub fn normalized(mut values: Vec<f32>) -> Option<Self> {
        let norm = values
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        if !(norm.is_finite() && norm > 0.0) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a unit vector's scale fits f32"
        )]
        values
            .iter_mut()
            .for_each(|v| *v = (f64::from(*v) / norm) as f32);
        Some(Self(values))
    }

    /// Takes values that are of unit length already, bit by bit as they were stored. `None` when
    /// their length is not 1 to within 0.001.
    pub fn from_unit(values: Vec<f32>) -> Option<Self> {
        let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        ((square.sqrt() - 1.0).abs() <= 1e-3).then_some(Self(values))
    }

    /// `D` unit-norm values.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Cosine similarity.
    ///
    /// # Panics
    /// When the two have different lengths.
    pub fn dot(&self, other: &Self) -> f32 {
        assert_eq!(
            self.0.len(),
            other.0.len(),
            "embeddings of different spaces"
        );
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

/// Preprocessed pixels of one image: `[3, S, S] f32`, channel-first, normalised as the manifest says.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInput {
    /// Edge length `S`.
    pub size_px: usize,
    /// `3·S·S` values.
    pub values: Vec<f32>,
}

impl ModelInput {
    /// Refuses what a tower for pictures of `size_px` cannot take.
    fn check(&self, size_px: usize) -> Result<(), EncodeError> {
        if self.size_px == size_px && self.values.len() == 3 * size_px * size_px {
            return Ok(());
        }
        Err(EncodeError::Input(format!(
            "the image encoder takes [3, {size_px}, {size_px}], not {} values at {} px",
            self.values.len(),
            self.size_px
        )))
    }

    /// A picture that is not the same everywhere, for trying an encoder: grey at exactly the mean
    /// could give a zero vector in a tower without biases.
    pub fn probe(size_px: usize) -> Self {
        let values = (0..3 * size_px * size_px).map(|i| f32::from(u8::from(i % 3 == 0)));
        Self {
            size_px,
            values: values.collect(),
        }
    }
}

/// Why an encoder could not encode.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The engine failed; the message names the step.
    #[error("the {engine} engine failed: {message}")]
    Engine {
        /// Which engine.
        engine: &'static str,
        /// What it said.
        message: String,
    },
    /// An input does not fit the model.
    #[error("{0}")]
    Input(String),
}

/// Multiply-accumulates of one image or text, by what they run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// f32 multiply-accumulates.
    pub float_macs: u64,
    /// 8-bit multiply-accumulates.
    pub int8_macs: u64,
}

impl Workload {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.float_macs + self.int8_macs
    }
}

/// Turns pixels into embeddings. One call encodes one batch.
pub trait ImageEncoder: Send + Sync {
    /// Encodes a batch of any length ≥ 0; a batch of n equals n singles.
    ///
    /// # Errors
    /// An input of the wrong size, or a failure of the engine.
    fn encode_images(&mut self, batch: &[ModelInput]) -> Result<Vec<Embedding>, EncodeError>;

    /// Engine, precision and threads, for `B/info`.
    fn describe(&self) -> String;

    /// What one image costs.
    fn workload(&self) -> Workload;

    /// Whether most of the work is done elsewhere than on the CPU.
    fn is_accelerated(&self) -> bool {
        false
    }

    /// A second encoder that shares the weights and uses one thread.
    fn fork(&self) -> Box<dyn ImageEncoder>;
}

/// Turns Italian text into embeddings.
pub trait TextEncoder: Send {
    /// Encodes texts; what is longer than the model allows is truncated by the tokenizer.
    ///
    /// # Errors
    /// A text that gives no token, or a failure of the engine.
    fn encode_texts(&mut self, texts: &[&str]) -> Result<Vec<Embedding>, EncodeError>;
}
