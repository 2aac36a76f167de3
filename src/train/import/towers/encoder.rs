//! The pre-norm transformer layer that CLIP's two towers are made of.

use anyhow::Result;

use crate::train::import::config::Transformer;
use crate::train::import::weights::Weights;
use crate::train::onnx::Graph;

/// Adds `{at}.encoder.layers.0…` to `graph`; `bias`, broadcast to `[n, heads, T, T]`, is added to the scores.
/// `x [n, T, width]` → `[n, T, width]`. Each layer is
/// `x += attention(norm1(x)); x += fc2(activation(fc1(norm2(x))))`.
///
/// # Errors
/// A weight that is missing or does not fit.
pub fn pre_norm(
    graph: &mut Graph,
    weights: &mut Weights,
    at: &str,
    sizes: &Transformer,
    mut x: String,
    bias: Option<&str>,
) -> Result<String> {
    let (width, hidden) = (sizes.width, sizes.hidden);
    for layer in 0..sizes.layers {
        let at = |name: &str| format!("{at}.encoder.layers.{layer}.{name}");
        let name = at("layer_norm1");
        let y = graph.layer_norm(&x, &name, &weights.norm(&name, width, sizes.epsilon)?);
        let mut project = |name: &str| -> Result<String> {
            let name = at(&format!("self_attn.{name}"));
            let linear = weights.linear(&name, width, width, true)?;
            Ok(graph.linear(&y, &name, &linear))
        };
        let [q, k, v] = [project("q_proj")?, project("k_proj")?, project("v_proj")?];
        let scale = Some(sizes.heads.scale());
        let parts = [q.as_str(), &k, &v];
        let context = graph.attention(&at("self_attn"), parts, sizes.heads, scale, bias);
        let name = at("self_attn.out_proj");
        let out = graph.linear(&context, &name, &weights.linear(&name, width, width, true)?);
        x = graph.node("Add", &[&x, &out], &at("attended"), vec![]);

        let name = at("layer_norm2");
        let y = graph.layer_norm(&x, &name, &weights.norm(&name, width, sizes.epsilon)?);
        let name = at("mlp.fc1");
        let up = graph.linear(&y, &name, &weights.linear(&name, width, hidden, true)?);
        let up = graph.activation(&up, &at("mlp.activation"), sizes.activation);
        let name = at("mlp.fc2");
        let down = graph.linear(&up, &name, &weights.linear(&name, hidden, width, true)?);
        x = graph.node("Add", &[&x, &down], &at("output"), vec![]);
    }
    Ok(x)
}
