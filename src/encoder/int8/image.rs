//! The image tower in int8.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::kernels::{Context, Isa};
use super::op::Accelerator;
use super::program::Program;
use super::tower::{self, Tower};
use crate::bundle::Bundle;
use crate::encoder::backend::not_served;
use crate::encoder::tract::graph::guarded;
use crate::encoder::{Backend, Embedding, EncodeError, ImageEncoder, ModelInput, Workload};
use crate::memory;

/// Most pictures in one pass; more are encoded in turn. Buffers grow with it, the gain does not.
const MAX_BATCH: usize = 16;

/// What an accelerator makes of a picture has to have this cosine to what the CPU makes of it.
const LEAST_COSINE: f32 = 0.999;

/// Encodes a batch in one pass over the weights; a batch of n equals n singles bit for bit.
#[derive(Clone)]
pub struct Int8ImageEncoder {
    program: Arc<Program>,
    context: Arc<Context>,
    size_px: usize,
    /// The accelerator that the sublayers were brought to.
    accelerator: Option<Arc<str>>,
}

impl Int8ImageEncoder {
    /// Loads the bundle's image tower on the CPU, quantizing it where it is stored as float, and tries it.
    ///
    /// # Errors
    /// A graph in which nothing is recognised, one that does not follow the contract in
    /// [`crate::bundle::Manifest`], cannot be run, or gives something that is not finite.
    pub fn load(bundle: &Bundle, threads: NonZeroUsize) -> Result<Self, EncodeError> {
        Self::load_on(bundle, threads, Backend::Cpu)
    }

    /// As [`Self::load`], with what a GPU can do on the GPU where `backend` says so.
    ///
    /// # Errors
    /// As [`Self::load`]; with [`Backend::Cuda`] also that there is no GPU, or that it does not serve this
    /// tower.
    pub fn load_on(
        bundle: &Bundle,
        threads: NonZeroUsize,
        backend: Backend,
    ) -> Result<Self, EncodeError> {
        let accelerator = backend.accelerator()?;
        let context = Arc::new(Context::new(Isa::detect(), threads));
        let size_px = bundle.manifest().image.size_px;
        let tower = Tower::load(bundle, tower::Kind::Image, &context)?;
        let encoder = Self::on(&tower, &context, size_px, accelerator.as_deref())?;
        let refused = encoder.program.refused();
        if backend == Backend::Cuda && !(encoder.is_accelerated() && refused.is_empty()) {
            let reasons = match refused {
                [] => "the log says why".to_owned(),
                refused => refused.join("; "),
            };
            let problem = format!("not all of the image tower can be on the GPU ({reasons})");
            return Err(not_served(problem));
        }
        let relocation = tower.relocation().cloned();
        drop(tower);
        memory::give_back();
        if !encoder.is_accelerated() {
            relocation.map(|relocation| relocation.start());
        }
        Ok(encoder)
    }

    /// Prepares an image tower for pictures of `size_px`, and tries it.
    ///
    /// # Errors
    /// A tower that cannot be run, or gives something that is not finite.
    pub fn new(tower: &Tower, context: &Arc<Context>, size_px: usize) -> Result<Self, EncodeError> {
        Self::on(tower, context, size_px, None)
    }

    /// As [`Self::new`], with the sublayers on an accelerator that takes them and computes the same.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn on(
        tower: &Tower,
        context: &Arc<Context>,
        size_px: usize,
        accelerator: Option<&dyn Accelerator>,
    ) -> Result<Self, EncodeError> {
        let mut program = tower.program_on(None, accelerator)?;
        for reason in program.refused() {
            log::warn!("a part of the image tower stays on the CPU: {reason}");
        }
        let used = accelerator.filter(|_| program.is_accelerated());
        if used.is_none() && accelerator.is_some() {
            // Patches alone are not worth the way.
            program = tower.program(None)?;
        }
        let mut encoder = Self {
            accelerator: used.map(|accelerator| accelerator.describe().into()),
            program: Arc::new(program),
            context: Arc::clone(context),
            size_px,
        };
        // An accelerator then has the memory for the largest batch, or says now that it has not.
        let pictures = if encoder.is_accelerated() {
            MAX_BATCH
        } else {
            1
        };
        let probes = vec![ModelInput::probe(size_px); pictures];
        let embeddings = encoder.encode_images(&probes);
        if !encoder.is_accelerated() {
            return embeddings.map(|_| encoder);
        }
        let mut alone = Self {
            accelerator: None,
            program: Arc::new(tower.program(None)?),
            ..encoder.clone()
        };
        let expected = &alone.encode_images(&probes[..1])?[0];
        let agrees = |embedding: &Embedding| embedding.dot(expected) > LEAST_COSINE;
        match embeddings {
            Ok(embeddings) if embeddings.iter().all(agrees) => return Ok(encoder),
            Ok(_) => log::error!("the GPU computes something else than the CPU: the CPU encodes"),
            Err(problem) => log::error!("the GPU is not used: {problem}"),
        }
        Ok(alone)
    }
}

impl ImageEncoder for Int8ImageEncoder {
    fn encode_images(&mut self, batch: &[ModelInput]) -> Result<Vec<Embedding>, EncodeError> {
        for input in batch {
            input.check(self.size_px)?;
        }
        let size = self.size_px;
        let mut embeddings = Vec::with_capacity(batch.len());
        for part in batch.chunks(MAX_BATCH) {
            let outputs = guarded("encoding images", || {
                let pictures: Vec<&[f32]> = part.iter().map(|input| &input.values[..]).collect();
                self.program.run_pictures(&[1, 3, size, size], &pictures)
            })?;
            for output in outputs {
                embeddings.push(tower::embedding(&output)?);
            }
        }
        Ok(embeddings)
    }

    fn describe(&self) -> String {
        let cpu = tower::describe(&self.context);
        match &self.accelerator {
            Some(accelerator) if self.is_accelerated() => format!("{accelerator}, the rest {cpu}"),
            _ => cpu,
        }
    }

    fn is_accelerated(&self) -> bool {
        self.program.is_accelerated()
    }

    fn workload(&self) -> Workload {
        self.program.workload()
    }

    fn fork(&self) -> Box<dyn ImageEncoder> {
        Box::new(self.clone())
    }
}
