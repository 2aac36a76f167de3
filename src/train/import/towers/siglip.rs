//! SigLIP's towers (Zhai et al., 2023): pre-norm layers without a class token. The image's embedding
//! is what a learned query attends to; the text's is its last token, which is padding more often
//! than not: texts are always padded to the full length, and padding is not masked.

use anyhow::Result;

use super::bert::{finish as finish_text, words};
use super::encoder::pre_norm;
use super::vit::{finish as finish_image, patches};
use crate::train::import::config::{Text, Vision};
use crate::train::import::weights::Weights;
use crate::train::onnx::{Graph, Model, Store, int, signed};

/// `pixel_values [n, 3, S, S] f32` → `embedding [n, width] f32`.
///
/// # Errors
/// A weight that is missing or does not fit.
pub fn image(weights: &mut Weights, sizes: &Vision, store: Store) -> Result<Model> {
    let transformer = &sizes.transformer;
    let (width, epsilon) = (transformer.width, transformer.epsilon);
    let mut graph = Graph::new(store);
    let tokens = patches(&mut graph, weights, sizes, true)?;
    let count = sizes.grid() * sizes.grid();
    let name = "vision.embeddings.position_embedding.weight";
    let positions = weights.take(name, &[count, width])?;
    let positions = graph.matrix("vision.positions", &[1, count, width], &positions);
    let x = graph.node("Add", &[&tokens, &positions], "vision.embedded", vec![]);
    let x = pre_norm(&mut graph, weights, "vision", transformer, x, None)?;
    let name = "vision.post_layernorm";
    let x = graph.layer_norm(&x, name, &weights.norm(name, width, epsilon)?);
    let pooled = attended(&mut graph, weights, sizes, &x)?;
    let token = graph.list(&[1]);
    graph.node("Squeeze", &[&pooled, &token], "embedding", vec![]);
    Ok(finish_image(graph, sizes.size_px, width))
}

/// The head: a learned query attends to all patches, then a feed-forward part: `[n, 1, width]`.
fn attended(graph: &mut Graph, weights: &mut Weights, sizes: &Vision, x: &str) -> Result<String> {
    let transformer = &sizes.transformer;
    let (width, hidden) = (transformer.width, transformer.hidden);
    let at = |name: &str| format!("vision.head.{name}");
    let probe = weights.take(&at("probe"), &[1, 1, width])?;
    let probe = graph.float(&at("probe"), &[1, 1, width], &probe);
    let mut project = |x: &str, name: &str| -> Result<String> {
        let name = at(&format!("attention.{name}"));
        let linear = weights.linear(&name, width, width, true)?;
        Ok(graph.linear(x, &name, &linear))
    };
    let query = project(&probe, "q_proj")?;
    let key = project(x, "k_proj")?;
    let value = project(x, "v_proj")?;
    let heads = transformer.heads;
    let name = at("attention");
    let context = graph.attention(
        &name,
        [&query, &key, &value],
        heads,
        Some(heads.scale()),
        None,
    );
    let name = at("attention.out_proj");
    let attended = graph.linear(&context, &name, &weights.linear(&name, width, width, true)?);
    let name = at("layernorm");
    let norm = weights.norm(&name, width, transformer.epsilon)?;
    let y = graph.layer_norm(&attended, &name, &norm);
    let name = at("mlp.fc1");
    let up = graph.linear(&y, &name, &weights.linear(&name, width, hidden, true)?);
    let up = graph.activation(&up, &at("mlp.activation"), transformer.activation);
    let name = at("mlp.fc2");
    let down = graph.linear(&up, &name, &weights.linear(&name, hidden, width, true)?);
    Ok(graph.node("Add", &[&attended, &down], &at("output"), vec![]))
}

/// `input_ids`, `attention_mask [n, positions] i64` → `embedding [n, dim] f32`. The mask is taken
/// and not looked at.
///
/// # Errors
/// A weight that is missing or does not fit.
pub fn text(weights: &mut Weights, sizes: &Text, dim: usize, store: Store) -> Result<Model> {
    let transformer = &sizes.transformer;
    let (width, positions) = (transformer.width, sizes.positions);
    let mut graph = Graph::new(store);
    let name = "text.embeddings.token_embedding.weight";
    let tokens = words(&mut graph, weights, name, width)?;
    let name = "text.embeddings.position_embedding.weight";
    let table = weights.take(name, &[positions, width])?;
    let table = graph.matrix("text.positions", &[1, positions, width], &table);
    let x = graph.node("Add", &[&tokens, &table], "text.embedded", vec![]);
    let x = pre_norm(&mut graph, weights, "text", transformer, x, None)?;
    let last = graph.index(signed(positions) - 1);
    let last = graph.node("Gather", &[&x, &last], "text.last", vec![int("axis", 1)]);
    // Every token would be normalised alone: the order of choosing and normalising is free.
    let name = "text.final_layer_norm";
    let norm = weights.norm(name, width, transformer.epsilon)?;
    let pooled = graph.layer_norm(&last, name, &norm);
    let head = weights.linear("text.head", width, dim, true)?;
    graph.linear(&pooled, "embedding", &head);
    Ok(finish_text(graph, dim))
}
