//! Reads a tower back from the `text.onnx` that [`export`](mod@super::export) wrote.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};

use super::tower::{Shape, Tower};
use super::{EMBEDDING_DIM, MAX_TOKENS};
use crate::train::onnx::{Weights, layers};

/// Attention heads of every tower that was exported; the file does not say.
const HEADS: usize = 4;

/// The tower of a `text.onnx`, as exact as the file: half matrices, byte rows of the embedding.
///
/// # Errors
/// A file that is not of this architecture.
pub fn from_onnx(bytes: &[u8]) -> Result<Tower> {
    let weights = Weights::read(bytes)?;
    let (table, rows) = weights.get("embedding.bytes")?;
    let (_, scales) = weights.get("embedding.scales")?;
    let &[vocabulary, width] = table else {
        anyhow::bail!("an embedding of shape {table:?}")
    };
    ensure!(
        scales.len() == vocabulary && width > 0 && width.is_multiple_of(HEADS),
        "an embedding of shape {table:?} with {} scales",
        scales.len()
    );
    let layers = (0..)
        .take_while(|layer| weights.get(&format!("layer{layer}.query.weight")).is_ok())
        .count();
    let hidden = match layers {
        0 => 0,
        _ => weights.get("layer0.feed_forward.up.bias")?.1.len(),
    };
    let shape = Shape {
        vocabulary,
        width,
        layers,
        heads: HEADS,
        hidden,
    };
    let heads = layers::Heads {
        count: HEADS,
        width: width / HEADS,
    };
    let mut vars = Vec::new();
    for (name, dims) in shape.parameters() {
        let values = match name.as_str() {
            "embedding" => rows
                .chunks_exact(width)
                .zip(scales)
                .flat_map(|(row, scale)| row.iter().map(move |v| v * scale))
                .collect(),
            // Earlier exports called it by its name here.
            "projection" => weights
                .get("embedding.weight")
                .or_else(|_| weights.get("projection"))?
                .1
                .to_vec(),
            name if name.contains("attention.qkv") => joined(&weights, name, heads.scale())?,
            name => weights.get(name)?.1.to_vec(),
        };
        ensure!(
            values.len() == dims.iter().product::<usize>(),
            "{name} does not fit {dims:?}: a tower of another width than {EMBEDDING_DIM} or length than {MAX_TOKENS}"
        );
        vars.push(Var::from_tensor(&Tensor::from_vec(
            values,
            dims,
            &Device::Cpu,
        )?)?);
    }
    Ok(Tower { shape, vars })
}

/// `layerN.attention.qkv.weight` or `.bias`: query, key and value side by side, the scale taken out
/// of the query again.
fn joined(weights: &Weights, name: &str, scale: f32) -> Result<Vec<f32>> {
    let part = |part: &str| weights.get(&name.replace("attention.qkv", part));
    let (dims, query) = part("query")?;
    let (key, value) = (part("key")?.1, part("value")?.1);
    let width = *dims.last().context("a matrix without columns")?;
    ensure!(
        width > 0 && query.len() == key.len() && key.len() == value.len(),
        "{name}: query, key and value differ"
    );
    let rows = query
        .chunks_exact(width)
        .zip(key.chunks_exact(width))
        .zip(value.chunks_exact(width));
    Ok(rows
        .flat_map(|((q, k), v)| {
            let query = q.iter().map(move |value| value / scale);
            query.chain(k.iter().copied()).chain(v.iter().copied())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::text::export::to_onnx;
    use crate::train::text::tower::Batch;

    #[test]
    fn what_was_exported_comes_back() {
        let shape = Shape {
            vocabulary: 40,
            width: EMBEDDING_DIM,
            layers: 2,
            heads: HEADS,
            hidden: 48,
        };
        let tower = Tower::new(shape, 11).unwrap();
        let again = from_onnx(&to_onnx(&tower).unwrap()).unwrap();
        assert_eq!(again.shape, shape);
        let batch = Batch::new(&[&[2, 5, 6, 7, 3], &[2, 9, 3]], 0).unwrap();
        let rows = |tower: &Tower| tower.forward(&batch).unwrap().to_vec2::<f32>().unwrap();
        for (a, b) in rows(&tower).iter().zip(rows(&again)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let cosine = dot(a, &b) / (dot(a, a) * dot(&b, &b)).sqrt();
            assert!(cosine > 0.9999, "half weights and byte rows leave {cosine}");
        }
    }

    #[test]
    fn another_graph_is_refused_by_the_name_of_what_it_lacks() {
        let mut graph = crate::train::onnx::Graph::default();
        let weight = graph.float("weight", &[1], &[1.0]);
        let port = crate::train::onnx::Port::float("x", &[]);
        let output = graph.node("Add", &["x", &weight], "embedding", vec![]);
        let output = crate::train::onnx::Port::float(&output, &[]);
        let bytes = graph.finish("other", &[port], &output).into_bytes();
        let error = from_onnx(&bytes).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("embedding.bytes")));
        assert!(from_onnx(b"no onnx").is_err());
    }
}
