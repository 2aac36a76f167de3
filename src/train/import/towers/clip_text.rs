//! CLIP's text transformer: pre-norm layers in which a token sees only those before it; the text's
//! embedding is the token that ends it, after a last normalisation, projected without a bias.

use anyhow::{Context, Result};
use tract_onnx::pb::tensor_proto::DataType;

use super::bert::{finish, words};
use super::encoder::pre_norm;
use crate::train::import::config::Text;
use crate::train::import::weights::Weights;
use crate::train::onnx::layers::MASKED_SCORE;
use crate::train::onnx::{Graph, Model, Store, int};

/// Configurations of before 2023 name token 2 as the end, which is wrong; the end is then the
/// largest id of the vocabulary (huggingface/transformers#24773).
const WRONG_EOS_ID: u32 = 2;

/// `input_ids`, `attention_mask [n, T] i64` → `embedding [n, dim] f32`.
///
/// # Errors
/// A weight that is missing or does not fit.
pub fn clip(weights: &mut Weights, sizes: &Text, dim: usize, store: Store) -> Result<Model> {
    let transformer = &sizes.transformer;
    let (width, positions) = (transformer.width, sizes.positions);
    let mut graph = Graph::new(store);
    let name = "text.embeddings.token_embedding.weight";
    let tokens = words(&mut graph, weights, name, width)?;
    let name = "text.embeddings.position_embedding.weight";
    let table = weights.take(name, &[positions, width])?;
    let table = graph.matrix("text.positions", &[positions, width], &table);
    let length = graph.length();
    let used = graph.rows(&table, &length, "text.positions.used");
    let x = graph.node("Add", &[&tokens, &used], "text.embedded", vec![]);

    let mask = graph.mask();
    let padding = graph.mask_bias(&mask);
    let ahead = causal(&mut graph, positions, &length);
    let bias = graph.node("Add", &[&ahead, &padding], "text.bias", vec![]);
    let x = pre_norm(&mut graph, weights, "text", transformer, x, Some(&bias))?;
    let end = end(&mut graph, sizes, &length)?;
    let rows = graph.list(&[1]);
    let end = graph.node("Unsqueeze", &[&end, &rows], "text.end.row", vec![]);
    let pooled = graph.node("MatMul", &[&end, &x], "text.end.token", vec![]);
    let pooled = graph.node("Squeeze", &[&pooled, &rows], "text.pooled", vec![]);
    // Every token would be normalised alone: the order of choosing and normalising is free.
    let name = "text.final_layer_norm";
    let norm = weights.norm(name, width, transformer.epsilon)?;
    let pooled = graph.layer_norm(&pooled, name, &norm);
    let projection = weights.linear("text_projection", width, dim, false)?;
    graph.linear(&pooled, "embedding", &projection);
    Ok(finish(graph, dim))
}

/// 0 where a key is not behind its query, [`MASKED_SCORE`] elsewhere: `[T, T]`.
fn causal(graph: &mut Graph, positions: usize, length: &str) -> String {
    let score = |index: usize| {
        let (query, key) = (index / positions, index % positions);
        if key > query { MASKED_SCORE } else { 0.0 }
    };
    let values: Vec<f32> = (0..positions * positions).map(score).collect();
    let table = graph.float("text.causal", &[positions, positions], &values);
    let (first, both) = (graph.list(&[0, 0]), graph.list(&[0, 1]));
    let twice = vec![int("axis", 0)];
    let end = graph.node("Concat", &[length, length], "text.causal.end", twice);
    let inputs = [table.as_str(), &first, &end, &both];
    graph.node("Slice", &inputs, "text.causal.used", vec![])
}

/// 1 at the token that ends the text, 0 elsewhere: `[n, T] f32`.
fn end(graph: &mut Graph, sizes: &Text, length: &str) -> Result<String> {
    let eos = sizes
        .eos_id
        .context("config.json: text_config.eos_token_id is missing")?;
    let scores = if eos == WRONG_EOS_ID {
        graph.cast("input_ids", DataType::Float, "text.end.ids")
    } else {
        let eos = graph.index(i64::from(eos));
        let is = graph.node("Equal", &["input_ids", &eos], "text.end.is", vec![]);
        graph.cast(&is, DataType::Float, "text.end.found")
    };
    // The first of the largest.
    let attributes = vec![int("axis", 1), int("keepdims", 1)];
    let at = graph.node("ArgMax", &[&scores], "text.end.at", attributes);
    let range: Vec<i64> = (0_i64..).take(sizes.positions).collect();
    let range = graph.integers("text.end.range", &range);
    let range = graph.rows(&range, length, "text.end.range.used");
    let chosen = graph.node("Equal", &[&at, &range], "text.end.chosen", vec![]);
    Ok(graph.cast(&chosen, DataType::Float, "text.end"))
}
