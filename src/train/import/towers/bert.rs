//! BERT and what has its layers: word, position and type embeddings, post-norm layers.

use anyhow::{Result, ensure};

use crate::train::import::config::Text;
use crate::train::import::weights::Weights;
use crate::train::onnx::layers::Activation;
use crate::train::onnx::{Dim, Graph, Model, Port, Store, int};

/// `input_ids`, `attention_mask [n, T] i64` → `embedding [n, dim] f32`: BERT's pooler (the first
/// token through a dense layer and tanh), projected without a bias.
///
/// # Errors
/// A weight that is missing or does not fit.
pub fn pooled(weights: &mut Weights, sizes: &Text, dim: usize, store: Store) -> Result<Model> {
    let width = sizes.transformer.width;
    let mut graph = Graph::new(store);
    let mask = graph.mask();
    let x = layers(&mut graph, weights, sizes, 0, &mask)?;
    let first = graph.index(0);
    let first = graph.node("Gather", &[&x, &first], "text.first", vec![int("axis", 1)]);
    let name = "text.pooler.dense";
    let pooled = graph.linear(&first, name, &weights.linear(name, width, width, true)?);
    let pooled = graph.activation(&pooled, "text.pooler", Activation::Tanh);
    let projection = weights.linear("text_projection", width, dim, false)?;
    graph.linear(&pooled, "embedding", &projection);
    Ok(finish(graph, dim))
}

/// What follows the mean of the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// `text_projection` with a bias (M-CLIP).
    Biased,
    /// `text_projection.0`, GELU, `text_projection.2`, without biases (open_clip); the width between.
    Mlp(usize),
}

/// `input_ids`, `attention_mask [n, T] i64` → `embedding [n, dim] f32` for RoBERTa, which counts
/// positions from behind its padding token: the mean of the tokens, projected.
///
/// # Errors
/// A weight that is missing or does not fit.
pub fn mean(
    weights: &mut Weights,
    sizes: &Text,
    dim: usize,
    projection: Projection,
    store: Store,
) -> Result<Model> {
    let width = sizes.transformer.width;
    let mut graph = Graph::new(store);
    let mask = graph.mask();
    let x = layers(&mut graph, weights, sizes, ROBERTA_FIRST_POSITION, &mask)?;
    let mean = graph.masked_mean(&x, &mask, "text.pooled");
    match projection {
        Projection::Biased => {
            let linear = weights.linear("text_projection", width, dim, true)?;
            graph.linear(&mean, "embedding", &linear);
        }
        Projection::Mlp(between) => {
            let name = "text_projection.0";
            let linear = weights.linear(name, width, between, false)?;
            let x = graph.linear(&mean, name, &linear);
            let x = graph.activation(&x, "text_projection.1", Activation::Gelu);
            let linear = weights.linear("text_projection.2", between, dim, false)?;
            graph.linear(&x, "embedding", &linear);
        }
    }
    Ok(finish(graph, dim))
}

/// RoBERTa's first token stands behind the position of its padding token, 1.
pub const ROBERTA_FIRST_POSITION: usize = 2;

/// Embeddings and layers: `[n, T, width]`. The first token stands at row `first` of the positions.
pub(super) fn layers(
    graph: &mut Graph,
    weights: &mut Weights,
    sizes: &Text,
    first: usize,
    mask: &str,
) -> Result<String> {
    let transformer = &sizes.transformer;
    let (width, hidden, epsilon) = (transformer.width, transformer.hidden, transformer.epsilon);
    let tokens = words(
        graph,
        weights,
        "text.embeddings.word_embeddings.weight",
        width,
    )?;

    let name = "text.embeddings.position_embeddings.weight";
    let mut positions = weights.take(name, &[sizes.positions, width])?;
    ensure!(first < sizes.positions, "config.json: too few positions");
    positions.drain(..first * width);
    // Every token is of the first type.
    let name = "text.embeddings.token_type_embeddings.weight";
    let types = match weights.shape(name)? {
        [types, _] => *types,
        _ => 0,
    };
    let types = weights.take(name, &[types, width])?;
    for row in positions.chunks_exact_mut(width) {
        row.iter_mut().zip(&types).for_each(|(p, t)| *p += t);
    }
    let dims = [sizes.positions - first, width];
    let positions = graph.matrix("text.positions", &dims, &positions);
    let length = graph.length();
    let positions = graph.rows(&positions, &length, "text.positions.used");
    let x = graph.node("Add", &[&tokens, &positions], "text.embedded", vec![]);
    let name = "text.embeddings.LayerNorm";
    let mut x = graph.layer_norm(&x, name, &weights.norm(name, width, epsilon)?);

    let bias = graph.mask_bias(mask);
    for layer in 0..transformer.layers {
        let at = |name: &str| format!("text.encoder.layer.{layer}.{name}");
        let mut project = |name: &str| -> Result<String> {
            let name = at(&format!("attention.self.{name}"));
            let linear = weights.linear(&name, width, width, true)?;
            Ok(graph.linear(&x, &name, &linear))
        };
        let [q, k, v] = [project("query")?, project("key")?, project("value")?];
        let (heads, parts) = (transformer.heads, [q.as_str(), &k, &v]);
        let name = at("attention");
        let context = graph.attention(&name, parts, heads, Some(heads.scale()), Some(&bias));
        let name = at("attention.output.dense");
        let out = graph.linear(&context, &name, &weights.linear(&name, width, width, true)?);
        let sum = graph.node("Add", &[&out, &x], &at("attended"), vec![]);
        let name = at("attention.output.LayerNorm");
        x = graph.layer_norm(&sum, &name, &weights.norm(&name, width, epsilon)?);

        let name = at("intermediate.dense");
        let up = graph.linear(&x, &name, &weights.linear(&name, width, hidden, true)?);
        let up = graph.activation(&up, &at("intermediate"), transformer.activation);
        let name = at("output.dense");
        let down = graph.linear(&up, &name, &weights.linear(&name, hidden, width, true)?);
        let sum = graph.node("Add", &[&down, &x], &at("fed"), vec![]);
        let name = at("output.LayerNorm");
        x = graph.layer_norm(&sum, &name, &weights.norm(&name, width, epsilon)?);
    }
    Ok(x)
}

/// Rows of the embedding table for `input_ids`: `[n, T, width]`. The vocabulary is as large as the
/// table, whatever `config.json` says.
pub(super) fn words(
    graph: &mut Graph,
    weights: &mut Weights,
    name: &str,
    width: usize,
) -> Result<String> {
    let vocabulary = weights.shape(name)?.first().copied().unwrap_or(0);
    let dims = [vocabulary, width];
    let table = weights.take(name, &dims)?;
    let table = graph.matrix("text.words", &dims, &table);
    let axis = vec![int("axis", 0)];
    Ok(graph.node("Gather", &[&table, "input_ids"], "text.tokens", axis))
}

/// The finished text tower.
pub(super) fn finish(graph: Graph, dim: usize) -> Model {
    let inputs = ["input_ids", "attention_mask"].map(Port::tokens);
    let output = Port::float("embedding", &[Dim::Open("n"), Dim::Size(dim)]);
    graph.finish("vedetta-text", &inputs, &output)
}
