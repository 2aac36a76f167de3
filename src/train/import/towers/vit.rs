//! CLIP's vision transformer: patches, class token, learned positions, pre-norm layers; the image's
//! embedding is the class token after a last normalisation, projected without a bias.

use anyhow::Result;

use super::encoder::pre_norm;
use crate::train::import::config::Vision;
use crate::train::import::weights::Weights;
use crate::train::onnx::{Dim, Graph, Model, Port, Store, int, ints, signed};

/// `pixel_values [n, 3, S, S] f32` → `embedding [n, dim] f32`.
///
/// # Errors
/// A weight that is missing or does not fit.
pub fn clip(weights: &mut Weights, sizes: &Vision, dim: usize, store: Store) -> Result<Model> {
    let transformer = &sizes.transformer;
    let (width, epsilon) = (transformer.width, transformer.epsilon);
    let mut graph = Graph::new(store);
    let mut tokens = patches(&mut graph, weights, sizes, false)?;

    // Room for the class token, which comes with the positions.
    let front = graph.list(&[0, 1, 0, 0, 0, 0]);
    tokens = graph.node("Pad", &[&tokens, &front], "vision.tokens", vec![]);
    let count = sizes.grid() * sizes.grid() + 1;
    let class = weights.take("vision.embeddings.class_embedding", &[width])?;
    let name = "vision.embeddings.position_embedding.weight";
    let mut positions = weights.take(name, &[count, width])?;
    for (position, class) in positions.iter_mut().zip(class) {
        *position += class;
    }
    let positions = graph.matrix("vision.positions", &[1, count, width], &positions);
    let x = graph.node("Add", &[&tokens, &positions], "vision.embedded", vec![]);

    let name = "vision.pre_layrnorm";
    let x = graph.layer_norm(&x, name, &weights.norm(name, width, epsilon)?);
    let x = pre_norm(&mut graph, weights, "vision", transformer, x, None)?;
    let first = graph.index(0);
    let class = graph.node(
        "Gather",
        &[&x, &first],
        "vision.class",
        vec![int("axis", 1)],
    );
    let name = "vision.post_layernorm";
    let pooled = graph.layer_norm(&class, name, &weights.norm(name, width, epsilon)?);
    let projection = weights.linear("visual_projection", width, dim, false)?;
    graph.linear(&pooled, "embedding", &projection);
    Ok(finish(graph, sizes.size_px, dim))
}

/// `pixel_values` → `[n, patches, width]`: a convolution whose stride is its size.
pub(super) fn patches(
    graph: &mut Graph,
    weights: &mut Weights,
    sizes: &Vision,
    biased: bool,
) -> Result<String> {
    let (width, patch) = (sizes.transformer.width, sizes.patch_px);
    let name = "vision.embeddings.patch_embedding";
    let dims = [width, 3, patch, patch];
    let kernel = weights.take(&format!("{name}.weight"), &dims)?;
    let mut inputs = vec![
        "pixel_values".to_owned(),
        graph.matrix(&format!("{name}.weight"), &dims, &kernel),
    ];
    if biased {
        let bias = weights.take(&format!("{name}.bias"), &[width])?;
        inputs.push(graph.float(&format!("{name}.bias"), &[width], &bias));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let edge = [signed(patch); 2];
    let attributes = vec![ints("kernel_shape", &edge), ints("strides", &edge)];
    let x = graph.node("Conv", &inputs, name, attributes);
    let flat = graph.list(&[0, 0, -1]);
    let x = graph.node("Reshape", &[&x, &flat], "vision.patches.flat", vec![]);
    let order = vec![ints("perm", &[0, 2, 1])];
    Ok(graph.node("Transpose", &[&x], "vision.patches", order))
}

/// The finished image tower.
pub(super) fn finish(graph: Graph, size_px: usize, dim: usize) -> Model {
    let n = Dim::Open("n");
    let size = Dim::Size(size_px);
    let input = Port::float("pixel_values", &[n, Dim::Size(3), size, size]);
    let output = Port::float("embedding", &[n, Dim::Size(dim)]);
    graph.finish("vedetta-image", &[input], &output)
}
