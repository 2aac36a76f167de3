//! Writes the tower as `text.onnx`: matrices as IEEE half cast to f32 on load, the embedding table
//! as one byte a weight with a scale a row (its rows are gathered first, then scaled).

use anyhow::{Context, Result, bail, ensure};
use tract_onnx::pb::tensor_proto::DataType;

use super::tower::{LAYER_NORM_EPSILON, Tower};
use super::vocabulary::PAD_ID;
use super::{EMBEDDING_DIM, MAX_TOKENS, Work, write_atomically};
use crate::train::onnx::layers::{Activation, Heads, Linear, Norm};
use crate::train::onnx::{Dim, Graph, Port, Store, int};

/// Rows of a table as signed bytes with a scale each: `value ≈ byte · scale`.
fn quantize_rows(table: &[f32], width: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut scales) = (Vec::with_capacity(table.len()), Vec::new());
    for row in table.chunks_exact(width) {
        let largest = row.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "between -127 and 127 by the scale"
        )]
        bytes.extend(
            row.iter()
                .map(|v| ((v / scale).round() as i8).cast_unsigned()),
        );
        scales.push(scale);
    }
    (bytes, scales)
}

/// The tower as ONNX: `input_ids [n, T] i64`, `attention_mask [n, T] i64` → `embedding [n, D] f32`
/// (not normalised), any `n`, `T` up to [`MAX_TOKENS`]. What is padding does not matter.
///
/// # Errors
/// A tower whose parameters do not fit its shape.
pub fn to_onnx(tower: &Tower) -> Result<Vec<u8>> {
    let shape = tower.shape;
    let (width, heads) = (shape.width, shape.heads);
    let mut parameters = Vec::new();
    for ((name, dims), var) in shape.parameters().into_iter().zip(&tower.vars) {
        parameters.push((name, dims, var.flatten_all()?.to_vec1::<f32>()?));
    }
    let find = |name: &str| -> Result<&(String, Vec<usize>, Vec<f32>)> {
        parameters
            .iter()
            .find(|(have, ..)| have == name)
            .with_context(|| format!("no parameter {name}"))
    };
    let values = |name: &str| Ok::<_, anyhow::Error>(find(name)?.2.clone());
    let mut g = Graph::new(Store::Half);

    let (bytes, scales) = quantize_rows(&find("embedding")?.2, width);
    let table = [shape.vocabulary, width];
    let table = g.weight("embedding.bytes", &table, DataType::Int8, bytes);
    let scales = g.float("embedding.scales", &[shape.vocabulary, 1], &scales);
    let gather = |g: &mut Graph, table: &str, name: &str| {
        g.node("Gather", &[table, "input_ids"], name, vec![int("axis", 0)])
    };
    let rows = gather(&mut g, &table, "tokens.bytes");
    let rows = g.cast(&rows, DataType::Float, "tokens.cast");
    let scale = gather(&mut g, &scales, "tokens.scales");
    let tokens = g.node("Mul", &[&rows, &scale], "tokens", vec![]);
    let position = find("position")?;
    let position = g.matrix("position", &position.1, &position.2);
    let length = g.length();
    let position = g.rows(&position, &length, "position.used");
    let mut x = g.node("Add", &[&tokens, &position], "embedded", vec![]);

    let mask = g.mask();
    let bias = g.mask_bias(&mask);
    let heads = Heads {
        count: heads,
        width: width / heads,
    };
    let linear = |name: &str| -> Result<Linear> {
        let (_, dims, weight) = find(&format!("{name}.weight"))?;
        let [inputs, outputs] = dims[..] else {
            bail!("{name} is {dims:?}")
        };
        Ok(Linear {
            weight: weight.clone(),
            inputs,
            outputs,
            bias: Some(values(&format!("{name}.bias"))?),
        })
    };
    let norm = |name: &str| -> Result<Norm> {
        Ok(Norm {
            weight: values(&format!("{name}.weight"))?,
            bias: values(&format!("{name}.bias"))?,
            epsilon: LAYER_NORM_EPSILON,
        })
    };
    for layer in 0..shape.layers {
        let at = |name: &str| format!("layer{layer}.{name}");
        let name = at("attention.norm");
        let y = g.layer_norm(&x, &name, &norm(&name)?);
        let qkv = linear(&at("attention.qkv"))?;
        ensure!(
            (qkv.inputs, qkv.outputs) == (width, 3 * width),
            "attention of layer {layer} does not fit"
        );
        let mut parts = Vec::new();
        for (index, name) in ["query", "key", "value"].into_iter().enumerate() {
            // The scale of the scores goes into the query.
            let factor = if index == 0 { heads.scale() } else { 1.0 };
            let part = third(&qkv, index, factor);
            parts.push(g.linear(&y, &at(name), &part));
        }
        let parts = [&*parts[0], &*parts[1], &*parts[2]];
        let context = g.attention(&format!("layer{layer}"), parts, heads, None, Some(&bias));
        let name = at("attention.output");
        let out = g.linear(&context, &name, &linear(&name)?);
        x = g.node("Add", &[&x, &out], &at("attended"), vec![]);
        let name = at("feed_forward.norm");
        let y = g.layer_norm(&x, &name, &norm(&name)?);
        let name = at("feed_forward.up");
        let up = g.linear(&y, &name, &linear(&name)?);
        let up = g.activation(&up, &at("feed_forward.relu"), Activation::Relu);
        let name = at("feed_forward.down");
        let down = g.linear(&up, &name, &linear(&name)?);
        x = g.node("Add", &[&x, &down], &at("output"), vec![]);
    }

    let mean = g.masked_mean(&x, &mask, "pooled");
    let projection = Linear {
        weight: values("projection")?,
        inputs: width,
        outputs: EMBEDDING_DIM,
        bias: None,
    };
    g.linear(&mean, "embedding", &projection);
    let inputs = ["input_ids", "attention_mask"].map(Port::tokens);
    let output = Port::float("embedding", &[Dim::Open("n"), Dim::Size(EMBEDDING_DIM)]);
    Ok(g.finish("vedetta-text", &inputs, &output).into_bytes())
}

/// One of the three matrices that stand side by side in `qkv`, times `factor`.
fn third(qkv: &Linear, index: usize, factor: f32) -> Linear {
    let width = qkv.outputs / 3;
    let columns = index * width..(index + 1) * width;
    let scaled = |values: &[f32]| -> Vec<f32> {
        let columns = &values[columns.clone()];
        columns.iter().map(|v| v * factor).collect()
    };
    Linear {
        weight: qkv
            .weight
            .chunks_exact(qkv.outputs)
            .flat_map(scaled)
            .collect(),
        inputs: qkv.inputs,
        outputs: width,
        bias: qkv.bias.as_deref().map(scaled),
    }
}

/// Writes `text/text.onnx` and `text/text.toml` from the trained tower.
///
/// # Errors
/// The step `text` has not run, or the folder cannot be written.
pub fn export(work: &Work) -> Result<()> {
    let bytes = to_onnx(&Tower::load(&work.tower())?)?;
    log::info!("text.onnx: {} bytes", bytes.len());
    write_atomically(&work.onnx(), &bytes)?;
    let part = format!("max_tokens = {MAX_TOKENS}\npadding = \"longest\"\npad_id = {PAD_ID}\n");
    write_atomically(&work.manifest_part(), part.as_bytes())
}

#[cfg(test)]
mod tests;
