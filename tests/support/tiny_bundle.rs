//! A bundle of a few kilobytes that really runs: `image.onnx` finds the mean colour of a 32 px
//! picture, `text.onnx` looks colour words up, and both land in the same 4-d space, so that a red
//! picture is closest to "rosso". Weights are stored as f16 and cast, as the demo bundle's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prost::Message;
use sha2::{Digest, Sha256};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto;
use tract_onnx::pb::*;
use tract_onnx::prelude::f16;
use vedetta::bundle::manifest::*;

/// Edge length of the image input.
pub const SIZE_PX: usize = 32;

/// Embedding dimension.
pub const DIM: usize = 4;

/// The words the text tower knows, by token id, and their embeddings.
pub const WORDS: [(&str, [f32; DIM]); 6] = [
    ("[PAD]", [9.0, 9.0, 9.0, 9.0]),
    ("[UNK]", [0.1, 0.1, 0.1, 1.0]),
    ("rosso", [1.0, -1.0, -1.0, 0.0]),
    ("verde", [-1.0, 1.0, -1.0, 0.0]),
    ("blu", [-1.0, -1.0, 1.0, 0.0]),
    ("giallo", [1.0, 1.0, -1.0, 0.0]),
];

/// Files by name; change one before [`write`] to make a broken bundle.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of a good bundle.
pub fn files() -> Files {
    let files = [
        (
            "image.onnx",
            image_graph(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        ),
        ("text.onnx", text_graph()),
        ("tokenizer.json", tokenizer().into_bytes()),
        ("LICENSES.md", b"Made for tests, CC0.\n".to_vec()),
    ];
    files.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}

/// The manifest that fits `files`.
pub fn manifest(files: &Files) -> Manifest {
    let listed = |bytes: &Vec<u8>| File {
        sha256: Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
        bytes: bytes.len() as u64,
    };
    Manifest {
        schema: SCHEMA,
        name: "tiny".to_owned(),
        version: "1.0.0".to_owned(),
        minimum_vedetta: "0.1.0".to_owned(),
        language: "it".to_owned(),
        embedding_dim: DIM,
        image: Image {
            size_px: SIZE_PX,
            resize: Resize::Bicubic,
            crop: Crop::Center,
            mean: [0.5; 3],
            std: [0.5; 3],
            channels: Channels::Rgb,
        },
        text: Text {
            max_tokens: 8,
            padding: Padding::MaxLength,
            pad_id: 0,
        },
        scoring: Scoring { logit_scale: 10.0 },
        precision: Precision {
            image: "f16".to_owned(),
            text: "f16".to_owned(),
        },
        files: files
            .iter()
            .map(|(name, bytes)| (name.clone(), listed(bytes)))
            .collect(),
        evaluation: BTreeMap::from([("colours_top1".to_owned(), 1.0)]),
        provenance: Provenance {
            command: "tests/support/tiny_bundle.rs".to_owned(),
            sources: vec!["nothing, CC0".to_owned()],
        },
    }
}

/// Writes `files` and `manifest` as a bundle directory.
pub fn write(directory: &Path, files: &Files, manifest: &Manifest) {
    fs::create_dir_all(directory).unwrap();
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
    fs::write(
        directory.join("bundle.toml"),
        toml::to_string(manifest).unwrap(),
    )
    .unwrap();
}

/// Writes a good bundle.
pub fn write_good(directory: &Path) {
    let files = files();
    write(directory, &files, &manifest(&files));
}

/// A whitespace tokenizer over [`WORDS`] that lower-cases.
fn tokenizer() -> String {
    let vocab: BTreeMap<&str, usize> = WORDS.iter().enumerate().map(|(id, w)| (w.0, id)).collect();
    serde_json::json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 0, "content": "[PAD]", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false
        }],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    })
    .to_string()
}

/// Mean over height and width, a 1×1 convolution with `mix` (3×3), a zero fourth value.
pub fn image_graph(mix: &[f32; 9]) -> Vec<u8> {
    let nodes = vec![
        as_float("mix16", "mix"),
        node("Conv", &["pixel_values", "mix"], "mixed", vec![]),
        node("GlobalAveragePool", &["mixed"], "pooled", vec![]),
        node("Flatten", &["pooled"], "colour", vec![]),
        as_float("out16", "out"),
        node("MatMul", &["colour", "out"], "embedding", vec![]),
    ];
    let weights = vec![
        half("mix16", &[3, 3, 1, 1], mix),
        half("out16", &[3, DIM], &widen()),
    ];
    model(nodes, weights, vec![pixels()])
}

/// [`image_graph`] of plain colours that is no number where a colour is dark: it draws roots.
pub fn image_graph_of_bright_pictures() -> Vec<u8> {
    let nodes = vec![
        node("GlobalAveragePool", &["pixel_values"], "pooled", vec![]),
        node("Sqrt", &["pooled"], "roots", vec![]),
        node("Flatten", &["roots"], "colour", vec![]),
        as_float("out16", "out"),
        node("MatMul", &["colour", "out"], "embedding", vec![]),
    ];
    let weights = vec![half("out16", &[3, DIM], &widen())];
    model(nodes, weights, vec![pixels()])
}

/// [`image_graph`] of plain colours that gets there by 2.5 billion multiplications: pictures of 96
/// channels go through thirty convolutions that change nothing.
pub fn image_graph_that_is_slow() -> Vec<u8> {
    const CHANNELS: usize = 96;
    let mut nodes = vec![
        as_float("first16", "first"),
        as_float("middle16", "middle"),
        as_float("out16", "out"),
        node("Conv", &["pixel_values", "first"], "c0", vec![]),
    ];
    for n in 0..30 {
        let (from, to) = (format!("c{n}"), format!("c{}", n + 1));
        let pads = vec![ints("pads", &[1; 4])];
        nodes.push(node("Conv", &[&from, "middle"], &to, pads));
    }
    nodes.push(node("GlobalAveragePool", &["c30"], "pooled", vec![]));
    nodes.push(node("Flatten", &["pooled"], "colours", vec![]));
    nodes.push(node("MatMul", &["colours", "out"], "embedding", vec![]));
    let mut first = vec![0.0; CHANNELS * 3];
    let mut middle = vec![0.0; CHANNELS * CHANNELS * 9];
    let mut out = vec![0.0; CHANNELS * DIM];
    (0..3).for_each(|i| first[i * 3 + i] = 1.0);
    (0..CHANNELS).for_each(|i| middle[(i * CHANNELS + i) * 9 + 4] = 1.0);
    (0..3).for_each(|i| out[i * DIM + i] = 1.0);
    let weights = vec![
        half("first16", &[CHANNELS, 3, 1, 1], &first),
        half("middle16", &[CHANNELS, CHANNELS, 3, 3], &middle),
        half("out16", &[CHANNELS, DIM], &out),
    ];
    model(nodes, weights, vec![pixels()])
}

/// From three colours to an embedding.
fn widen() -> [f32; 3 * DIM] {
    let mut widen = [0.0; 3 * DIM];
    for i in 0..3 {
        widen[i * DIM + i] = 1.0;
    }
    widen
}

/// The input of an image tower.
fn pixels() -> ValueInfoProto {
    let size = Some(SIZE_PX);
    value(
        "pixel_values",
        DataType::Float,
        &[None, Some(3), size, size],
    )
}

/// Looks every id up, averages where the mask is 1.
fn text_graph() -> Vec<u8> {
    let nodes = vec![
        as_float("table16", "table"),
        node("Gather", &["table", "input_ids"], "looked_up", vec![]),
        as_float("attention_mask", "mask"),
        node("Unsqueeze", &["mask", "last"], "weight", vec![]),
        node("Mul", &["looked_up", "weight"], "masked", vec![]),
        node(
            "ReduceSum",
            &["masked", "tokens"],
            "embedding",
            vec![int("keepdims", 0)],
        ),
    ];
    let table: Vec<f32> = WORDS.iter().flat_map(|w| w.1).collect();
    let weights = vec![
        half("table16", &[WORDS.len(), DIM], &table),
        axes("last", 2),
        axes("tokens", 1),
    ];
    let ids = |name| value(name, DataType::Int64, &[None, None]);
    model(
        nodes,
        weights,
        vec![ids("input_ids"), ids("attention_mask")],
    )
}

fn model(
    node: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
    input: Vec<ValueInfoProto>,
) -> Vec<u8> {
    let output = vec![value("embedding", DataType::Float, &[None, Some(DIM)])];
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(GraphProto {
            name: "tiny".to_owned(),
            node,
            initializer,
            input,
            output,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

fn as_float(from: &str, name: &str) -> NodeProto {
    let to = vec![int("to", DataType::Float as i64)];
    node("Cast", &[from], name, to)
}

fn node(op: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        name: output.to_owned(),
        input: input.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: attribute_proto::AttributeType::Int as i32,
        i,
        ..AttributeProto::default()
    }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: attribute_proto::AttributeType::Ints as i32,
        ints: ints.to_vec(),
        ..AttributeProto::default()
    }
}

fn half(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    let raw_data = values
        .iter()
        .flat_map(|v| f16::from_f32(*v).to_le_bytes())
        .collect();
    tensor(name, dims, DataType::Float16, raw_data)
}

fn axes(name: &str, axis: i64) -> TensorProto {
    tensor(name, &[1], DataType::Int64, axis.to_le_bytes().to_vec())
}

fn tensor(name: &str, dims: &[usize], kind: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|d| i64::try_from(*d).unwrap()).collect(),
        data_type: kind as i32,
        raw_data,
        ..TensorProto::default()
    }
}

/// `None` is the batch or token dimension.
fn value(name: &str, kind: DataType, dims: &[Option<usize>]) -> ValueInfoProto {
    let dim = |(index, size): (usize, &Option<usize>)| Dimension {
        denotation: String::new(),
        value: Some(match size {
            Some(size) => dimension::Value::DimValue(i64::try_from(*size).unwrap()),
            None => dimension::Value::DimParam(["n", "t"][index].to_owned()),
        }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            denotation: String::new(),
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: kind as i32,
                shape: Some(TensorShapeProto {
                    dim: dims.iter().enumerate().map(dim).collect(),
                }),
            })),
        }),
        ..ValueInfoProto::default()
    }
}
