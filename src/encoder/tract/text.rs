//! The text tower and its tokenizer.

use std::sync::Arc;

use anyhow::format_err;
use tokenizers::{Tokenizer, TruncationParams};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::ToDim;

use super::graph::{Input, engine_error, guarded, parse, plan};
use crate::bundle::Bundle;
use crate::bundle::manifest::{Padding, Text};
use crate::encoder::{Embedding, EncodeError, TextEncoder};

/// The graph inside a bundle.
const FILE: &str = "text.onnx";

/// Longest `tokenizer.json`, bytes; a multilingual SentencePiece one has 17 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// Longest text, bytes. Far above any prompt: what is meant is cut by the tokenizer.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// With [`Padding::Longest`] lengths are rounded up to a multiple of this, so that few plans are
/// made. The attention mask makes the rest invisible.
const LENGTH_STEP: usize = 8;

/// Encodes texts one by one, so that an embedding never depends on what it was batched with.
///
/// It is loaded while prompts are embedded, then dropped. One plan is kept at a time: a plan holds
/// all weights of the tower.
pub struct TractTextEncoder {
    tokenizer: Tokenizer,
    rules: Text,
    dim: usize,
    model: InferenceModel,
    plan: Option<(usize, Arc<TypedRunnableModel>)>,
}

/// Token ids of one text, special tokens included, not padded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens(Vec<u32>);

impl Tokens {
    /// 1 to `max_tokens` ids.
    pub fn ids(&self) -> &[u32] {
        &self.0
    }
}

impl TractTextEncoder {
    /// Loads the bundle's tokenizer and text tower and tries them on a word.
    ///
    /// # Errors
    /// A tokenizer that cannot be read, or a graph that does not follow the contract in
    /// [`crate::bundle::Manifest`] or cannot be run.
    pub fn load(bundle: &Bundle) -> Result<Self, EncodeError> {
        let manifest = bundle.manifest();
        let json = bundle
            .read("tokenizer.json", MAX_TOKENIZER_BYTES)
            .map_err(|error| engine_error("reading the bundle", error))?;
        let max_length = manifest.text.max_tokens;
        let tokenizer = guarded("reading tokenizer.json", || {
            let mut tokenizer = Tokenizer::from_bytes(&json).map_err(|e| format_err!("{e}"))?;
            tokenizer.with_padding(None);
            tokenizer
                .with_truncation(Some(TruncationParams {
                    max_length,
                    ..TruncationParams::default()
                }))
                .map_err(|e| format_err!("{e}"))?;
            Ok(tokenizer)
        })?;
        let mut encoder = Self {
            tokenizer,
            rules: manifest.text.clone(),
            dim: manifest.embedding_dim,
            model: parse(bundle, FILE)?,
            plan: None,
        };
        encoder.encode(&Tokens(vec![encoder.rules.pad_id]))?;
        Ok(encoder)
    }

    /// Splits a text into at most `max_tokens` ids.
    ///
    /// # Errors
    /// A text that gives no token besides the special ones, or is far too long.
    pub fn tokenize(&self, text: &str) -> Result<Tokens, EncodeError> {
        if text.len() > MAX_TEXT_BYTES {
            let most = MAX_TEXT_BYTES;
            return Err(EncodeError::Input(format!(
                "a text of {} bytes is too long to encode; at most {most}",
                text.len()
            )));
        }
        let encoding = guarded("tokenizing", || {
            self.tokenizer
                .encode(text, true)
                .map_err(|e| format_err!("{e}"))
        })?;
        if encoding.get_special_tokens_mask().iter().all(|m| *m == 1) {
            return Err(EncodeError::Input(format!(
                "{text:?} gives no token; write a word"
            )));
        }
        let mut ids = encoding.get_ids().to_vec();
        ids.truncate(self.rules.max_tokens);
        Ok(Tokens(ids))
    }

    /// Length that `tokens` ids are padded to.
    fn padded(&self, tokens: usize) -> usize {
        match self.rules.padding {
            Padding::MaxLength => self.rules.max_tokens,
            Padding::Longest => tokens
                .next_multiple_of(LENGTH_STEP)
                .min(self.rules.max_tokens),
        }
    }

    fn plan(&mut self, length: usize) -> Result<Arc<TypedRunnableModel>, EncodeError> {
        if let Some((ready, plan)) = &self.plan
            && *ready == length
        {
            return Ok(Arc::clone(plan));
        }
        self.plan = None;
        let input = |name| Input {
            name,
            kind: i64::datum_type(),
            shape: vec![1.to_dim(), length.to_dim()],
        };
        let inputs = [input("input_ids"), input("attention_mask")];
        let fresh = plan(&self.model, FILE, &inputs, self.dim, None)?;
        self.plan = Some((length, Arc::clone(&fresh)));
        Ok(fresh)
    }

    fn encode(&mut self, tokens: &Tokens) -> Result<Embedding, EncodeError> {
        let length = self.padded(tokens.0.len());
        let plan = self.plan(length)?;
        let pad = std::iter::repeat(&self.rules.pad_id);
        let ids = tokens.0.iter().chain(pad).take(length);
        let ids: Vec<i64> = ids.map(|id| i64::from(*id)).collect();
        let mask: Vec<i64> = (0..length).map(|i| i64::from(i < tokens.0.len())).collect();
        let output = guarded("encoding a text", || {
            let ids = Tensor::from_shape(&[1, length], &ids)?;
            let mask = Tensor::from_shape(&[1, length], &mask)?;
            let outputs = plan.run(tvec!(ids.into(), mask.into()))?;
            Ok(outputs[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        })?;
        Embedding::normalized(output)
            .ok_or_else(|| engine_error("encoding a text", "the output is zero or not finite"))
    }
}

impl TextEncoder for TractTextEncoder {
    fn encode_texts(&mut self, texts: &[&str]) -> Result<Vec<Embedding>, EncodeError> {
        let tokens = texts
            .iter()
            .map(|text| self.tokenize(text))
            .collect::<Result<Vec<_>, _>>()?;
        // By padded length, so that each plan is made once.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|i| self.padded(tokens[*i].0.len()));
        let mut embeddings = vec![None; texts.len()];
        for i in order {
            embeddings[i] = Some(self.encode(&tokens[i])?);
        }
        Ok(embeddings.into_iter().flatten().collect())
    }
}
