//! Writes the tower as `text.onnx`: matrices as IEEE half cast to f32 on load, the embedding table
//! as one byte a weight with a scale a row (its rows are gathered first, then scaled).

use anyhow::{Context, Result, ensure};
use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use tract_onnx::prelude::f16;

use super::tower::{LAYER_NORM_EPSILON, MASKED_SCORE, Tower};
use super::vocabulary::PAD_ID;
use super::{EMBEDDING_DIM, MAX_TOKENS, Work, write_atomically};

/// Operator set: the first with `LayerNormalization`.
const OPSET: i64 = 17;

#[derive(Default)]
struct Graph {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

fn signed(value: usize) -> i64 {
    value.cast_signed() as i64
}

impl Graph {
    fn weight(&mut self, name: &str, dims: &[usize], kind: DataType, raw: Vec<u8>) -> String {
        self.weights.push(TensorProto {
            name: name.to_owned(),
            dims: dims.iter().copied().map(signed).collect(),
            data_type: kind as i32,
            raw_data: raw,
            ..TensorProto::default()
        });
        name.to_owned()
    }

    fn float(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.weight(
            name,
            dims,
            DataType::Float,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    fn half(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let raw = values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        let stored = self.weight(&format!("{name}.f16"), dims, DataType::Float16, raw);
        self.node(
            "Cast",
            &[&stored],
            name,
            vec![int("to", DataType::Float as i64)],
        )
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.weight(
            name,
            &[values.len()],
            DataType::Int64,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) -> String {
        self.nodes.push(NodeProto {
            op_type: op.to_owned(),
            name: output.to_owned(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
        output.to_owned()
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i,
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

fn float_attribute(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Float as i32,
        f,
        ..AttributeProto::default()
    }
}

fn value(name: &str, kind: DataType, dims: &[Result<usize, &str>]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|d| Dimension {
            value: Some(match d {
                Ok(size) => dimension::Value::DimValue(signed(*size)),
                Err(symbol) => dimension::Value::DimParam((*symbol).to_owned()),
            }),
            ..Dimension::default()
        })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: kind as i32,
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

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
    let per_head = width / heads;
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
    let mut g = Graph::default();
    let first = g.integers("axis.first", &[0]);
    let second = g.integers("axis.second", &[1]);
    let middle = g.integers("axes.heads", &[1, 2]);
    let one = g.float("one", &[], &[1.0]);

    let (bytes, scales) = quantize_rows(&find("embedding")?.2, width);
    let table = g.weight(
        "embedding.bytes",
        &[shape.vocabulary, width],
        DataType::Int8,
        bytes,
    );
    let scales = g.float("embedding.scales", &[shape.vocabulary, 1], &scales);
    let rows = g.node(
        "Gather",
        &[&table, "input_ids"],
        "tokens.bytes",
        vec![int("axis", 0)],
    );
    let rows = g.node(
        "Cast",
        &[&rows],
        "tokens.cast",
        vec![int("to", DataType::Float as i64)],
    );
    let scale = g.node(
        "Gather",
        &[&scales, "input_ids"],
        "tokens.scales",
        vec![int("axis", 0)],
    );
    let tokens = g.node("Mul", &[&rows, &scale], "tokens", vec![]);
    let position = find("position")?;
    let position = g.half("position", &position.1, &position.2);
    let dims = g.node("Shape", &["input_ids"], "input.shape", vec![]);
    let two = g.integers("two", &[2]);
    let length = g.node(
        "Slice",
        &[&dims, &second, &two, &first],
        "input.length",
        vec![],
    );
    let position = g.node(
        "Slice",
        &[&position, &first, &length, &first],
        "position.used",
        vec![],
    );
    let mut x = g.node("Add", &[&tokens, &position], "embedded", vec![]);

    let mask = g.node(
        "Cast",
        &["attention_mask"],
        "mask",
        vec![int("to", DataType::Float as i64)],
    );
    let missing = g.node("Sub", &[&one, &mask], "mask.missing", vec![]);
    let score = g.float("mask.score", &[], &[MASKED_SCORE]);
    let bias = g.node("Mul", &[&missing, &score], "mask.scores", vec![]);
    let bias = g.node("Unsqueeze", &[&bias, &middle], "mask.bias", vec![]);
    let split = g.integers("shape.split", &[0, 0, signed(heads), signed(per_head)]);
    let joined = g.integers("shape.joined", &[0, 0, signed(width)]);

    for layer in 0..shape.layers {
        let at = |name: &str| format!("layer{layer}.{name}");
        let norm = |g: &mut Graph, x: &str, half: &str| -> Result<String> {
            let weight = find(&at(&format!("{half}.norm.weight")))?;
            let bias = find(&at(&format!("{half}.norm.bias")))?;
            let weight = g.float(&weight.0, &weight.1, &weight.2);
            let bias = g.float(&bias.0, &bias.1, &bias.2);
            let attributes = vec![
                int("axis", -1),
                float_attribute("epsilon", LAYER_NORM_EPSILON),
            ];
            Ok(g.node(
                "LayerNormalization",
                &[x, &weight, &bias],
                &at(&format!("{half}.norm")),
                attributes,
            ))
        };
        let y = norm(&mut g, &x, "attention")?;
        let (_, dims, qkv) = find(&at("attention.qkv.weight"))?;
        ensure!(
            dims[..] == [width, 3 * width],
            "attention of layer {layer} is {dims:?}"
        );
        let qkv_bias = &find(&at("attention.qkv.bias"))?.2;
        let mut parts = Vec::new();
        #[expect(clippy::cast_precision_loss, reason = "tens of values a head")]
        let scaled = 1.0 / (per_head as f32).sqrt();
        for (index, name) in ["query", "key", "value"].into_iter().enumerate() {
            // The scale of the scores goes into the query.
            let factor = if index == 0 { scaled } else { 1.0 };
            let columns = index * width..(index + 1) * width;
            let weight: Vec<f32> = qkv
                .chunks_exact(3 * width)
                .flat_map(|row| &row[columns.clone()])
                .map(|v| v * factor)
                .collect();
            let bias: Vec<f32> = qkv_bias[columns].iter().map(|v| v * factor).collect();
            let weight = g.half(&at(&format!("{name}.weight")), &[width, width], &weight);
            let bias = g.float(&at(&format!("{name}.bias")), &[width], &bias);
            let product = g.node(
                "MatMul",
                &[&y, &weight],
                &at(&format!("{name}.product")),
                vec![],
            );
            let sum = g.node("Add", &[&product, &bias], &at(name), vec![]);
            let heads = g.node(
                "Reshape",
                &[&sum, &split],
                &at(&format!("{name}.split")),
                vec![],
            );
            let order = if name == "key" {
                [0, 2, 3, 1]
            } else {
                [0, 2, 1, 3]
            };
            parts.push(g.node(
                "Transpose",
                &[&heads],
                &at(&format!("{name}.heads")),
                vec![ints("perm", &order)],
            ));
        }
        let scores = g.node("MatMul", &[&parts[0], &parts[1]], &at("scores"), vec![]);
        let scores = g.node("Add", &[&scores, &bias], &at("scores.masked"), vec![]);
        let weights = g.node("Softmax", &[&scores], &at("weights"), vec![int("axis", -1)]);
        let context = g.node(
            "MatMul",
            &[&weights, &parts[2]],
            &at("context.heads"),
            vec![],
        );
        let context = g.node(
            "Transpose",
            &[&context],
            &at("context.order"),
            vec![ints("perm", &[0, 2, 1, 3])],
        );
        let context = g.node("Reshape", &[&context, &joined], &at("context"), vec![]);
        let linear = |g: &mut Graph, x: &str, name: &str| -> Result<String> {
            let (weight, bias) = (
                find(&at(&format!("{name}.weight")))?,
                find(&at(&format!("{name}.bias")))?,
            );
            let weight = g.half(&weight.0, &weight.1, &weight.2);
            let bias = g.float(&bias.0, &bias.1, &bias.2);
            let product = g.node(
                "MatMul",
                &[x, &weight],
                &at(&format!("{name}.product")),
                vec![],
            );
            Ok(g.node("Add", &[&product, &bias], &at(name), vec![]))
        };
        let out = linear(&mut g, &context, "attention.output")?;
        x = g.node("Add", &[&x, &out], &at("attended"), vec![]);
        let y = norm(&mut g, &x, "feed_forward")?;
        let up = linear(&mut g, &y, "feed_forward.up")?;
        let up = g.node("Relu", &[&up], &at("feed_forward.relu"), vec![]);
        let down = linear(&mut g, &up, "feed_forward.down")?;
        x = g.node("Add", &[&x, &down], &at("output"), vec![]);
    }

    let rows = g.node("Unsqueeze", &[&mask, &second], "mask.rows", vec![]);
    let sum = g.node("MatMul", &[&rows, &x], "pooled.sum", vec![]);
    let sum = g.node("Squeeze", &[&sum, &second], "pooled.flat", vec![]);
    let count = g.node(
        "ReduceSum",
        &[&mask, &second],
        "pooled.count",
        vec![int("keepdims", 1)],
    );
    let mean = g.node("Div", &[&sum, &count], "pooled", vec![]);
    let projection = find("projection")?;
    let projection = g.half("projection", &projection.1, &projection.2);
    g.node("MatMul", &[&mean, &projection], "embedding", vec![]);

    let graph = GraphProto {
        name: "vedetta-text".to_owned(),
        node: g.nodes,
        initializer: g.weights,
        input: ["input_ids", "attention_mask"]
            .map(|name| value(name, DataType::Int64, &[Err("n"), Err("T")]))
            .to_vec(),
        output: vec![value(
            "embedding",
            DataType::Float,
            &[Err("n"), Ok(EMBEDDING_DIM)],
        )],
        ..GraphProto::default()
    };
    Ok(ModelProto {
        ir_version: 8,
        producer_name: "vedetta-train".to_owned(),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec())
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
