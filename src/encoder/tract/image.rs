//! The image tower.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::ENGINE;
use super::graph::{Prepared, engine_error, guarded, image_input, parse, plan};
use super::split::Split;
use crate::bundle::Bundle;
use crate::encoder::{Embedding, EncodeError, ImageEncoder, ModelInput, Workload};

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
    /// Splits single images over all threads; `None` with one thread.
    split: Option<Split>,
    threads: NonZeroUsize,
    /// Whether `split` finds nothing that this build can split.
    whole: bool,
    size_px: usize,
    precision: String,
    workload: Workload,
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
        let inputs = [image_input(size)];
        let Prepared {
            plan,
            workload,
            convolutional,
        } = plan(&model, FILE, &inputs, manifest.embedding_dim)?;
        let split = (threads.get() > 1)
            .then(|| guarded("starting threads", || Ok(Split::new(threads))))
            .transpose()?;
        let whole = split.is_some() && !convolutional && !Split::PRODUCTS;
        if whole {
            log::warn!(
                "{FILE} is a float transformer, and this build computes one on a single thread: \
                 `vedetta-train quantize` makes a bundle that takes all threads and a third of the time"
            );
        }
        let mut encoder = Self {
            plan,
            split,
            threads,
            whole,
            size_px: size,
            precision: manifest.precision.image.clone(),
            workload,
        };
        encoder.encode_images(&[ModelInput::probe(size)])?;
        Ok(encoder)
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
            input.check(self.size_px)?;
        }
        let count = self.threads.get();
        if batch.len() < count || count == 1 {
            let run = || {
                batch
                    .iter()
                    .map(|input| encode(&self.plan, input))
                    .collect()
            };
            return match &self.split {
                Some(split) => split.scope(run),
                None => run(),
            };
        }
        let plan = &self.plan;
        let share = batch.len().div_ceil(count);
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
        let each = if self.whole { ", one an image" } else { "" };
        format!("{ENGINE}-cpu f32{stored}, {threads} thread{plural}{each}")
    }

    fn workload(&self) -> Workload {
        self.workload
    }

    fn fork(&self) -> Box<dyn ImageEncoder> {
        Box::new(Self {
            plan: Arc::clone(&self.plan),
            split: None,
            threads: NonZeroUsize::MIN,
            whole: false,
            size_px: self.size_px,
            precision: self.precision.clone(),
            workload: self.workload,
        })
    }
}
