//! The text tower in int8.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::file::Relocation;
use super::kernels::{Context, Isa};
use super::program::Program;
use super::tower::{self, Tower};
use crate::bundle::Bundle;
use crate::encoder::tokens::{Padded, TextInput, Tokens};
use crate::encoder::tract::graph::guarded;
use crate::encoder::{Embedding, EncodeError, TextEncoder};

/// Most texts in one pass.
const MAX_BATCH: usize = 16;

/// Encodes texts of one length in one pass over the weights; an embedding does not depend on what
/// it was batched with.
pub struct Int8TextEncoder {
    input: TextInput,
    programs: Programs,
}

/// A tower and what was made of it for each length. They share all weights.
struct Programs {
    tower: Tower,
    by_length: BTreeMap<usize, Program>,
}

impl Int8TextEncoder {
    /// Loads the bundle's tokenizer and text tower, quantizing it where it is stored as float, and
    /// tries them.
    ///
    /// # Errors
    /// A tokenizer that cannot be read, a graph in which nothing is recognised, one that does not
    /// follow the contract in [`crate::bundle::Manifest`] or cannot be run.
    pub fn load(bundle: &Bundle, threads: NonZeroUsize) -> Result<Self, EncodeError> {
        let context = Arc::new(Context::new(Isa::detect(), threads));
        let tower = Tower::load(bundle, tower::Kind::Text, &context)?;
        let encoder = Self::new(tower, bundle)?;
        let tower = &encoder.programs.tower;
        tower.relocation().map(Relocation::start);
        Ok(encoder)
    }

    /// Prepares a text tower of the bundle, and tries it.
    ///
    /// # Errors
    /// A tokenizer that cannot be read, or a tower that cannot be run.
    pub fn new(tower: Tower, bundle: &Bundle) -> Result<Self, EncodeError> {
        let mut input = TextInput::load(bundle)?;
        if tower.tokens().is_some() {
            input.pad_to_most();
        }
        let mut programs = Programs {
            tower,
            by_length: BTreeMap::new(),
        };
        programs.encode(&[input.padded(&input.probe())])?;
        Ok(Self { input, programs })
    }

    /// Splits a text into at most `max_tokens` ids.
    ///
    /// # Errors
    /// A text that gives no token besides the special ones, or is far too long.
    pub fn tokenize(&self, text: &str) -> Result<Tokens, EncodeError> {
        self.input.tokenize(text)
    }
}

impl Programs {
    /// Encodes texts of one length.
    fn encode(&mut self, batch: &[Padded]) -> Result<Vec<Embedding>, EncodeError> {
        let Some(first) = batch.first() else {
            return Ok(Vec::new());
        };
        let length = first.length();
        if !self.by_length.contains_key(&length) {
            let program = self.tower.program(Some(length))?;
            self.by_length.insert(length, program);
        }
        let program = &self.by_length[&length];
        let mut embeddings = Vec::with_capacity(batch.len());
        for part in batch.chunks(MAX_BATCH) {
            let outputs = guarded("encoding texts", || {
                let items = part.iter().map(Padded::tensors);
                program.run(items.collect::<Result<_, _>>()?)
            })?;
            for output in outputs {
                embeddings.push(tower::embedding(&output)?);
            }
        }
        Ok(embeddings)
    }
}

impl TextEncoder for Int8TextEncoder {
    fn encode_texts(&mut self, texts: &[&str]) -> Result<Vec<Embedding>, EncodeError> {
        self.input
            .by_length(texts, |batch| self.programs.encode(batch))
    }
}
