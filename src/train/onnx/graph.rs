//! One writer of ONNX files.
//!
//! Weights are moved in, kept once, and written out one by one, so that a tower of several hundred
//! megabytes is never in memory twice.

use std::io::{self, Write};

use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
};
use tract_onnx::prelude::f16;

/// Operator set: the first with `LayerNormalization`.
const OPSET: i64 = 17;

/// File format of ONNX 1.12, which introduced [`OPSET`].
const IR_VERSION: i64 = 8;

/// How matrices are stored. Computing is done in f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// As they are.
    #[default]
    Float,
    /// IEEE half, cast to f32 on load.
    Half,
}

impl Store {
    /// Values as bytes of a tensor, little-endian.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Float => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Half => values
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect(),
        }
    }
}

/// A constant from its bytes, little-endian.
pub fn tensor(name: &str, dims: &[usize], kind: DataType, raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().copied().map(signed).collect(),
        data_type: kind as i32,
        raw_data: raw,
        ..TensorProto::default()
    }
}

/// One dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Dim {
    /// Fixed.
    Size(usize),
    /// Open, with a name.
    Open(&'static str),
}

/// An input or output: name, element type, shape.
#[derive(Clone, Debug)]
pub struct Port {
    name: String,
    kind: DataType,
    shape: Vec<Dim>,
}

impl Port {
    /// `name [shape] f32`.
    pub fn float(name: &str, shape: &[Dim]) -> Self {
        Self {
            name: name.to_owned(),
            kind: DataType::Float,
            shape: shape.to_vec(),
        }
    }

    /// `name [n, T] i64`.
    pub fn tokens(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: DataType::Int64,
            shape: vec![Dim::Open("n"), Dim::Open("T")],
        }
    }

    fn encode(&self) -> ValueInfoProto {
        let dim = self.shape.iter().map(|d| Dimension {
            value: Some(match d {
                Dim::Size(size) => dimension::Value::DimValue(signed(*size)),
                Dim::Open(symbol) => dimension::Value::DimParam((*symbol).to_owned()),
            }),
            ..Dimension::default()
        });
        let tensor = type_proto::Tensor {
            elem_type: self.kind as i32,
            shape: Some(TensorShapeProto { dim: dim.collect() }),
        };
        ValueInfoProto {
            name: self.name.clone(),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
                ..TypeProto::default()
            }),
            ..ValueInfoProto::default()
        }
    }
}

/// Collects nodes and weights of a graph.
#[derive(Default)]
pub struct Graph {
    store: Store,
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

impl Graph {
    /// An empty graph whose [matrices](Self::matrix) are stored as `store` says.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            ..Self::default()
        }
    }

    /// Whether a weight of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.weights.iter().any(|have| have.name == name)
    }

    /// Adds a weight from its bytes, little-endian; returns its name.
    ///
    /// # Panics
    /// When the name is taken.
    pub fn weight(&mut self, name: &str, dims: &[usize], kind: DataType, raw: Vec<u8>) -> String {
        assert!(!self.has(name), "{name} twice");
        self.weights.push(tensor(name, dims, kind, raw));
        name.to_owned()
    }

    /// Adds an f32 weight; returns its name.
    ///
    /// # Panics
    /// When `values` do not fill `dims`.
    pub fn float(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        check(name, dims, values);
        self.weight(name, dims, DataType::Float, Store::Float.bytes(values))
    }

    /// Adds a weight stored as IEEE half and cast to f32 on load; returns its name.
    ///
    /// # Panics
    /// When `values` do not fill `dims`.
    pub fn half(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        check(name, dims, values);
        let raw = Store::Half.bytes(values);
        let stored = self.weight(&format!("{name}.f16"), dims, DataType::Float16, raw);
        self.cast(&stored, DataType::Float, name)
    }

    /// Adds a matrix, stored as the graph's [`Store`] says; returns its name.
    ///
    /// # Panics
    /// When `values` do not fill `dims`.
    pub fn matrix(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        match self.store {
            Store::Float => self.float(name, dims, values),
            Store::Half => self.half(name, dims, values),
        }
    }

    /// Adds a list of i64; returns its name.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.weight(name, &[values.len()], DataType::Int64, raw)
    }

    /// Adds a node with one output; returns the output's name.
    pub fn node(
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

    /// Adds a `Cast`; returns the output's name.
    pub fn cast(&mut self, input: &str, to: DataType, output: &str) -> String {
        self.node("Cast", &[input], output, vec![int("to", to as i64)])
    }

    /// The finished model, which gives `output`.
    pub fn finish(self, name: &str, inputs: &[Port], output: &Port) -> Model {
        let graph = GraphProto {
            name: name.to_owned(),
            node: self.nodes,
            input: inputs.iter().map(Port::encode).collect(),
            output: vec![output.encode()],
            ..GraphProto::default()
        };
        let head = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "vedetta-train".to_owned(),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPSET,
            }],
            ..ModelProto::default()
        };
        Model {
            head,
            graph: graph.encode_to_vec(),
            weights: self.weights,
        }
    }
}

fn check(name: &str, dims: &[usize], values: &[f32]) {
    assert_eq!(
        dims.iter().product::<usize>(),
        values.len(),
        "shape of {name}"
    );
}

/// Protobuf key of a length-delimited field.
const fn key(field: u8) -> u8 {
    field << 3 | 2
}

/// `ModelProto.graph`.
const GRAPH: u8 = key(7);
/// `GraphProto.initializer`.
const INITIALIZER: u8 = key(5);

/// A finished ONNX file, not yet written.
pub struct Model {
    /// Everything but the graph.
    head: ModelProto,
    /// The graph without its weights, encoded.
    graph: Vec<u8>,
    weights: Vec<TensorProto>,
}

impl Model {
    /// A model that was read: `head` without its graph, and the graph.
    pub(in crate::train) fn from_parts(head: ModelProto, mut graph: GraphProto) -> Self {
        let weights = std::mem::take(&mut graph.initializer);
        Self {
            head,
            graph: graph.encode_to_vec(),
            weights,
        }
    }

    /// Length of the file's graph in bytes. A parser of protobuf refuses 2 GiB.
    pub fn graph_bytes(&self) -> usize {
        let weights = self.weights.iter().map(|weight| {
            let length = weight.encoded_len();
            1 + prost::length_delimiter_len(length) + length
        });
        self.graph.len() + weights.sum::<usize>()
    }

    /// Refuses numbers that became larger than IEEE half holds when they were stored.
    ///
    /// # Errors
    /// The first such weight by its name.
    pub fn check(&self) -> anyhow::Result<()> {
        for weight in &self.weights {
            let half = weight.data_type == DataType::Float16 as i32;
            let (halves, _) = weight.raw_data.as_chunks::<2>();
            let finite = || halves.iter().all(|v| f16::from_le_bytes(*v).is_finite());
            anyhow::ensure!(
                !half || finite(),
                "{} holds numbers beyond 65504, the largest of f16; store it with --precision f32",
                weight.name.strip_suffix(".f16").unwrap_or(&weight.name)
            );
        }
        Ok(())
    }

    /// Writes the file and drops each weight once it is written.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.head.encode_to_vec())?;
        let mut delimiter = vec![GRAPH];
        prost::encode_length_delimiter(self.graph_bytes(), &mut delimiter)
            .map_err(io::Error::other)?;
        out.write_all(&delimiter)?;
        out.write_all(&self.graph)?;
        for weight in self.weights {
            out.write_all(&[INITIALIZER])?;
            out.write_all(&weight.encode_length_delimited_to_vec())?;
        }
        Ok(())
    }

    /// The file in memory.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.graph_bytes() + 64);
        self.write(&mut bytes).expect("a Vec takes every byte");
        bytes
    }
}

/// A size as ONNX has it.
pub fn signed(value: usize) -> i64 {
    value.cast_signed() as i64
}

/// An integer attribute.
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i,
        ..AttributeProto::default()
    }
}

/// An attribute with a list of integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

/// A floating-point attribute.
pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Float as i32,
        f,
        ..AttributeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubled() -> Graph {
        let mut graph = Graph::new(Store::Half);
        let two = graph.matrix("two", &[1, 1], &[2.0]);
        graph.node("MatMul", &["x", &two], "embedding", vec![]);
        graph
    }

    fn ports() -> (Port, Port) {
        let shape = [Dim::Open("n"), Dim::Size(1)];
        (Port::float("x", &shape), Port::float("embedding", &shape))
    }

    #[test]
    fn the_written_file_is_what_prost_would_write_field_by_field() {
        let (input, output) = ports();
        let bytes = doubled().finish("double", &[input], &output).into_bytes();
        let model = ModelProto::decode(&bytes[..]).unwrap();
        assert_eq!(model.encoded_len(), bytes.len());
        assert_eq!(model.ir_version, IR_VERSION);
        assert_eq!(model.opset_import[0].version, OPSET);
        let graph = model.graph.unwrap();
        let names: Vec<&str> = graph.initializer.iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["two.f16"]);
        assert_eq!(
            graph.initializer[0].raw_data,
            f16::from_f32(2.0).to_le_bytes()
        );
        let ops: Vec<&str> = graph.node.iter().map(|n| n.op_type.as_str()).collect();
        assert_eq!(ops, ["Cast", "MatMul"]);
        assert_eq!(graph.input[0].name, "x");
        assert_eq!(graph.output[0].name, "embedding");
    }

    #[test]
    fn the_length_is_known_before_writing() {
        let (input, output) = ports();
        let model = doubled().finish("double", &[input], &output);
        let graph = model.graph_bytes();
        let bytes = model.into_bytes();
        let decoded = ModelProto::decode(&bytes[..]).unwrap();
        assert_eq!(decoded.graph.unwrap().encoded_len(), graph);
    }

    #[test]
    #[should_panic(expected = "two twice")]
    fn a_name_is_given_once() {
        let mut graph = Graph::default();
        graph.float("two", &[1], &[2.0]);
        graph.float("two", &[1], &[2.0]);
    }
}
