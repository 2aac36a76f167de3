//! From text to token ids and attention mask, the same for every engine.

use anyhow::format_err;
use tokenizers::{Tokenizer, TruncationParams};
use tract_onnx::prelude::*;

use super::tract::graph::{engine_error, guarded};
use super::{Embedding, EncodeError};
use crate::bundle::Bundle;
use crate::bundle::manifest::{Padding, Text};

/// Longest `tokenizer.json`, bytes; a multilingual SentencePiece one has 17 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// Longest text, bytes. Far above any prompt: what is meant is cut by the tokenizer.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// With [`Padding::Longest`] lengths are rounded up to a multiple of this, so that few plans are
/// made. The attention mask makes the rest invisible.
const LENGTH_STEP: usize = 8;

/// Token ids of one text, special tokens included, not padded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens(Vec<u32>);

impl Tokens {
    /// 1 to `max_tokens` ids.
    pub fn ids(&self) -> &[u32] {
        &self.0
    }
}

/// A bundle's tokenizer and its rules.
pub struct TextInput {
    tokenizer: Tokenizer,
    rules: Text,
}

impl TextInput {
    /// Reads the bundle's tokenizer.
    ///
    /// # Errors
    /// A tokenizer that cannot be read.
    pub fn load(bundle: &Bundle) -> Result<Self, EncodeError> {
        let json = bundle
            .read("tokenizer.json", MAX_TOKENIZER_BYTES)
            .map_err(|error| engine_error("reading the bundle", error))?;
        let rules = bundle.manifest().text.clone();
        let max_length = rules.max_tokens;
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
        Ok(Self { tokenizer, rules })
    }

    /// The padding token alone: what an engine is tried with.
    pub(super) fn probe(&self) -> Tokens {
        Tokens(vec![self.rules.pad_id])
    }

    /// One more than the largest id.
    #[cfg(feature = "train")]
    pub(crate) fn vocabulary(&self) -> usize {
        let largest = self.tokenizer.get_vocab(true).into_values().max();
        largest.map_or(0, |id| usize::try_from(id).unwrap_or(usize::MAX - 1) + 1)
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

    /// From now on pads to `max_tokens`, for a graph that takes nothing else.
    pub(super) fn pad_to_most(&mut self) {
        self.rules.padding = Padding::MaxLength;
    }

    /// Pads as the rules say.
    pub fn padded(&self, tokens: &Tokens) -> Padded {
        self.padded_beside(tokens, 0)
    }

    /// Pads as the rules say a text that stands in one batch with another of `longest` tokens.
    pub fn padded_beside(&self, tokens: &Tokens, longest: usize) -> Padded {
        let used = tokens.0.len();
        let length = match self.rules.padding {
            Padding::MaxLength => self.rules.max_tokens,
            Padding::Longest => used
                .max(longest)
                .next_multiple_of(LENGTH_STEP)
                .min(self.rules.max_tokens),
        };
        let pad = std::iter::repeat(&self.rules.pad_id);
        let ids = tokens.0.iter().chain(pad).take(length);
        Padded {
            ids: ids.map(|id| i64::from(*id)).collect(),
            mask: (0..length).map(|i| i64::from(i < used)).collect(),
        }
    }

    /// Encodes texts with `encode`, which gets those of one padded length together, and returns the
    /// embeddings in the order of the texts.
    ///
    /// # Errors
    /// As [`Self::tokenize`] and `encode`.
    pub(super) fn by_length(
        &self,
        texts: &[&str],
        mut encode: impl FnMut(&[Padded]) -> Result<Vec<Embedding>, EncodeError>,
    ) -> Result<Vec<Embedding>, EncodeError> {
        let mut padded = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            padded.push((place, self.padded(&self.tokenize(text)?)));
        }
        padded.sort_by_key(|(_, text)| text.length());
        let (places, padded): (Vec<usize>, Vec<Padded>) = padded.into_iter().unzip();
        let mut embeddings = Vec::with_capacity(texts.len());
        for batch in padded.chunk_by(|a, b| a.length() == b.length()) {
            embeddings.extend(encode(batch)?);
        }
        let mut ordered: Vec<_> = places.into_iter().zip(embeddings).collect();
        ordered.sort_unstable_by_key(|(place, _)| *place);
        Ok(ordered
            .into_iter()
            .map(|(_, embedding)| embedding)
            .collect())
    }
}

/// One padded text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padded {
    /// Token ids, padding included.
    pub ids: Vec<i64>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<i64>,
}

impl Padded {
    /// Tokens, padding included.
    pub fn length(&self) -> usize {
        self.ids.len()
    }

    /// `input_ids` and `attention_mask`, `[1, T] i64`.
    pub(super) fn tensors(&self) -> TractResult<TVec<TValue>> {
        let shape = [1, self.length()];
        let row = |values: &[i64]| Tensor::from_shape(&shape, values);
        Ok(tvec!(row(&self.ids)?.into(), row(&self.mask)?.into()))
    }
}
