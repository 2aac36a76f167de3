//! The text tower.

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::graph::{engine_error, guarded, parse, plan, text_inputs};
use crate::bundle::Bundle;
use crate::encoder::tokens::{Padded, TextInput, Tokens};
use crate::encoder::{Embedding, EncodeError, TextEncoder};

/// The graph inside a bundle.
const FILE: &str = "text.onnx";

/// Encodes texts one by one, so that an embedding never depends on what it was batched with.
///
/// It is loaded while prompts are embedded, then dropped.
pub struct TractTextEncoder {
    input: TextInput,
    tower: Tower,
}

/// The graph and one plan of it, which holds all weights.
struct Tower {
    dim: usize,
    model: InferenceModel,
    plan: Option<(usize, Arc<TypedRunnableModel>)>,
}

impl TractTextEncoder {
    /// Loads the bundle's tokenizer and text tower and tries them on a word.
    ///
    /// # Errors
    /// A tokenizer that cannot be read, or a graph that does not follow the contract in
    /// [`crate::bundle::Manifest`] or cannot be run.
    pub fn load(bundle: &Bundle) -> Result<Self, EncodeError> {
        let input = TextInput::load(bundle)?;
        let mut tower = Tower {
            dim: bundle.manifest().embedding_dim,
            model: parse(bundle, FILE)?,
            plan: None,
        };
        tower.encode(&input.padded(&input.probe()))?;
        Ok(Self { input, tower })
    }

    /// Splits a text into at most `max_tokens` ids.
    ///
    /// # Errors
    /// A text that gives no token besides the special ones, or is far too long.
    pub fn tokenize(&self, text: &str) -> Result<Tokens, EncodeError> {
        self.input.tokenize(text)
    }
}

impl Tower {
    fn plan(&mut self, length: usize) -> Result<Arc<TypedRunnableModel>, EncodeError> {
        if let Some((ready, plan)) = &self.plan
            && *ready == length
        {
            return Ok(Arc::clone(plan));
        }
        self.plan = None;
        let inputs = text_inputs(length);
        let fresh = plan(&self.model, FILE, &inputs, self.dim)?.plan;
        self.plan = Some((length, Arc::clone(&fresh)));
        Ok(fresh)
    }

    fn encode(&mut self, text: &Padded) -> Result<Embedding, EncodeError> {
        let plan = self.plan(text.length())?;
        let output = guarded("encoding a text", || {
            let outputs = plan.run(text.tensors()?)?;
            Ok(outputs[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        })?;
        Embedding::normalized(output)
            .ok_or_else(|| engine_error("encoding a text", "the output is zero or not finite"))
    }
}

impl TextEncoder for TractTextEncoder {
    fn encode_texts(&mut self, texts: &[&str]) -> Result<Vec<Embedding>, EncodeError> {
        self.input.by_length(texts, |batch| {
            batch.iter().map(|text| self.tower.encode(text)).collect()
        })
    }
}
