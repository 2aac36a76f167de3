//! The weights of a graph that was read.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};
use tract_onnx::prelude::f16;

/// Constants of an ONNX graph by the name under which nodes use them.
pub struct Weights {
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Weights {
    /// Reads all constants that are f32, half or signed bytes; what is stored and then cast goes by
    /// the name of the cast.
    ///
    /// # Errors
    /// No ONNX file, or a tensor that does not fill its shape.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let model = ModelProto::decode(bytes).context("no ONNX file")?;
        let graph = model.graph.context("an ONNX file without a graph")?;
        let mut tensors = HashMap::new();
        for tensor in &graph.initializer {
            let Some(values) = floats(tensor) else {
                continue;
            };
            let dims = tensor.dims.iter().map(|d| usize::try_from(*d));
            let dims: Vec<usize> = dims
                .collect::<Result<_, _>>()
                .with_context(|| format!("shape of {}", tensor.name))?;
            let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            ensure!(
                count == Some(values.len()),
                "{} does not fill its shape",
                tensor.name
            );
            tensors.insert(tensor.name.clone(), (dims, values));
        }
        for node in graph.node.iter().filter(|node| node.op_type == "Cast") {
            let ([input], [output]) = (&node.input[..], &node.output[..]) else {
                continue;
            };
            if let Some(stored) = tensors.remove(input) {
                tensors.insert(output.clone(), stored);
            }
        }
        Ok(Self { tensors })
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape and values of the constant `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<(&[usize], &[f32])> {
        let (dims, values) = self
            .tensors
            .get(name)
            .with_context(|| format!("no weights called {name}"))?;
        Ok((dims, values))
    }
}

/// Values as f32; `None` for other kinds of numbers.
pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let raw = &tensor.raw_data;
    let words = raw.as_chunks::<4>();
    let halves = raw.as_chunks::<2>();
    if tensor.data_type == DataType::Float as i32 {
        if raw.is_empty() {
            return Some(tensor.float_data.clone());
        }
        let values = words.0.iter().map(|b| f32::from_le_bytes(*b));
        return words.1.is_empty().then(|| values.collect());
    }
    if tensor.data_type == DataType::Float16 as i32 && !raw.is_empty() {
        let values = halves.0.iter().map(|b| f16::from_le_bytes(*b).to_f32());
        return halves.1.is_empty().then(|| values.collect());
    }
    if tensor.data_type == DataType::Int8 as i32 && !raw.is_empty() {
        return Some(raw.iter().map(|b| f32::from(b.cast_signed())).collect());
    }
    None
}
