//! Sizes of an XLM-RoBERTa whose configuration is only a name: they are in its tensors' shapes.

use anyhow::{Result, bail};

use super::config::{Text, Transformer, width};
use super::weights::Weights;
use crate::train::onnx::layers::{Activation, Heads};

/// Width of a head in every published size (768 / 12, 1024 / 16).
const HEAD_WIDTH: usize = 64;

/// Most layers that are counted.
const MAX_LAYERS: usize = 96;

/// Reads the sizes. Everything else is the same in all XLM-RoBERTas: GELU, ε = 1e-5, padding token 1.
///
/// # Errors
/// A tensor that is missing or has no shape of XLM-RoBERTa's.
pub fn sizes(weights: &Weights) -> Result<Text> {
    let matrix = |name: &str| match weights.shape(name)? {
        [rows, columns] => Ok((*rows, *columns)),
        shape => bail!("tensor {name} has shape {shape:?} where a matrix is expected"),
    };
    let (_, across) = matrix("text.embeddings.word_embeddings.weight")?;
    let (positions, _) = matrix("text.embeddings.position_embeddings.weight")?;
    let (hidden, _) = matrix("text.encoder.layer.0.intermediate.dense.weight")?;
    let across = width("the text tower's width", across)?;
    if !across.is_multiple_of(HEAD_WIDTH) || !(4..=65_536).contains(&positions) || hidden == 0 {
        bail!("the text tower is {across} wide with {positions} positions; it is no XLM-RoBERTa");
    }
    let there =
        |layer: &usize| weights.has(&format!("text.encoder.layer.{layer}.output.dense.weight"));
    Ok(Text {
        transformer: Transformer {
            width: across,
            hidden,
            layers: (0..MAX_LAYERS).take_while(there).count(),
            heads: Heads {
                count: across / HEAD_WIDTH,
                width: HEAD_WIDTH,
            },
            activation: Activation::Gelu,
            epsilon: 1e-5,
        },
        positions,
        eos_id: None,
        pad_id: Some(1),
    })
}
