//! The image tower.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tract_linalg::multithread::Executor;
use tract_onnx::prelude::*;

use super::ENGINE;
use super::graph::{engine_error, guarded, image_input, parse, plan};
use crate::bundle::Bundle;
use crate::encoder::{Embedding, EncodeError, ImageEncoder, ModelInput};

/// The file inside a bundle.
const FILE: &str = "image.onnx";

/// Encodes images one by one through a single plan of batch 1, several at a time.
///
/// A plan per batch size would hold the packed weights once more for each, and a product over
/// `[n, D]` may pick another kernel than one over `[1, D]`, which rounds differently. One plan keeps
/// memory flat and makes a batch of n equal n singles bit for bit. Threads are used across the
/// images of a batch first; a batch with fewer images than threads splits each product instead.
pub struct TractImageEncoder {
    plan: Arc<TypedRunnableModel>,
    /// Splits single products over all threads; `None` with one thread.
    pool: Option<Executor>,
    threads: NonZeroUsize,
    size_px: usize,
    precision: String,
}

impl TractImageEncoder {
    /// Loads, optimises and warms up the bundle's image tower.
    ///
    /// # Errors
    /// A graph that does not follow the contract in [`crate::bundle::Manifest`], cannot be run, or
    /// gives something that is not finite.
    pub fn load(bundle: &Bundle, threads: NonZeroUsize) -> Result<Self, EncodeError> {
        let manifest = bundle.manifest();
        let size = manifest.image.size_px;
        let model = parse(bundle, FILE)?;
        let plan = plan(
            &model,
            FILE,
            &[image_input(size)],
            manifest.embedding_dim,
            None,
        )?;
        let pool = (threads.get() > 1)
            .then(|| {
                guarded("starting threads", || {
                    Ok(Executor::multithread(threads.get()))
                })
            })
            .transpose()?;
        let mut encoder = Self {
            plan,
            pool,
            threads,
            size_px: size,
            precision: manifest.precision.image.clone(),
        };
        // Grey at exactly the mean could give a zero vector in a tower without biases.
        let values = (0..3 * size * size).map(|i| f32::from(u8::from(i % 3 == 0)));
        let probe = ModelInput {
            size_px: size,
            values: values.collect(),
        };
        encoder.encode_images(&[probe])?;
        Ok(encoder)
    }

    /// A second encoder that shares the weights and uses one thread.
    pub fn fork(&self) -> Self {
        Self {
            plan: Arc::clone(&self.plan),
            pool: None,
            threads: NonZeroUsize::MIN,
            size_px: self.size_px,
            precision: self.precision.clone(),
        }
    }

    fn check(&self, input: &ModelInput) -> Result<(), EncodeError> {
        let size = self.size_px;
        if input.size_px != size || input.values.len() != 3 * size * size {
            return Err(EncodeError::Input(format!(
                "the image encoder takes [3, {size}, {size}], not {} values at {} px",
                input.values.len(),
                input.size_px
            )));
        }
        Ok(())
    }
}

/// One image through the plan.
fn encode(plan: &Arc<TypedRunnableModel>, input: &ModelInput) -> Result<Embedding, EncodeError> {
    let size = input.size_px;
    let output = guarded("encoding an image", || {
        let tensor = Tensor::from_shape(&[1, 3, size, size], &input.values)?;
        let outputs = plan.run(tvec!(tensor.into()))?;
        Ok(outputs[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    })?;
    Embedding::normalized(output)
        .ok_or_else(|| engine_error("encoding an image", "the output is zero or not finite"))
}

impl ImageEncoder for TractImageEncoder {
    fn encode_images(&mut self, batch: &[ModelInput]) -> Result<Vec<Embedding>, EncodeError> {
        for input in batch {
            self.check(input)?;
        }
        let threads = self.threads.get();
        if batch.len() < threads || threads == 1 {
            let run = || {
                batch
                    .iter()
                    .map(|input| encode(&self.plan, input))
                    .collect()
            };
            return match &self.pool {
                Some(pool) => tract_linalg::multithread::multithread_tract_scope(pool.clone(), run),
                None => run(),
            };
        }
        let plan = &self.plan;
        let share = batch.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let workers: Vec<_> = batch
                .chunks(share)
                .map(|part| {
                    scope.spawn(move || {
                        part.iter()
                            .map(|input| encode(plan, input))
                            .collect::<Result<Vec<_>, _>>()
                    })
                })
                .collect();
            let mut embeddings = Vec::with_capacity(batch.len());
            for worker in workers {
                let part = worker
                    .join()
                    .map_err(|_| engine_error("encoding a batch", "a thread died"))?;
                embeddings.extend(part?);
            }
            Ok(embeddings)
        })
    }

    fn describe(&self) -> String {
        let threads = self.threads.get();
        let plural = if threads == 1 { "" } else { "s" };
        let stored = match self.precision.as_str() {
            "f32" => String::new(),
            other => format!(" (stored as {other})"),
        };
        format!("{ENGINE}-cpu f32{stored}, {threads} thread{plural}")
    }
}
