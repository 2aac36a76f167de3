//! A new tower begins with weights of its teacher's where both have one of that name and shape.
//!
//! Of more layers than the student has, evenly spread ones are taken, the first and the last among them
//! (as in Wu et al., TinyCLIP, ICCV 2023, where whole layers are inherited).

use anyhow::{Context, Result};
use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};

use crate::train::onnx::{Model, Store, Weights};

/// Learned positions of tokens: a shorter table is the beginning of a longer one.
const POSITIONS: &str = "text.positions";

/// How much was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// Weights taken from the teacher.
    pub taken: usize,
    /// All weights.
    pub of: usize,
}

/// Takes over what fits.
///
/// # Errors
/// A model that is none.
pub fn inherit(model: Model, teacher: &Weights) -> Result<(Model, Inherited)> {
    let mut head = ModelProto::decode(&model.into_bytes()[..]).context("no ONNX file")?;
    let mut graph = head.graph.take().context("an ONNX file without a graph")?;
    let names = || graph.initializer.iter().map(|t| t.name.as_str());
    let own = names().filter_map(|name| Some(number(name)?.1)).max();
    let theirs = teacher
        .names()
        .filter_map(|name| Some(number(name)?.1))
        .max();
    let (own, theirs) = (own.unwrap_or(0), theirs.unwrap_or(0));
    let mut found = Inherited { taken: 0, of: 0 };
    for tensor in &mut graph.initializer {
        let float = tensor.data_type == DataType::Float as i32;
        let half = tensor.data_type == DataType::Float16 as i32;
        if tensor.dims.is_empty() || !(float || half) {
            continue;
        }
        found.of += 1;
        let name = tensor.name.strip_suffix(".f16").unwrap_or(&tensor.name);
        let name = match number(name) {
            Some((before, layer, behind)) => {
                format!("{before}{}{behind}", spread(layer, own, theirs))
            }
            None => name.to_owned(),
        };
        if let Some(values) = fitting(tensor, &name, teacher) {
            let store = if half { Store::Half } else { Store::Float };
            tensor.raw_data = store.bytes(values);
            found.taken += 1;
        }
    }
    Ok((Model::from_parts(head, graph), found))
}

/// The teacher's values, where they have the shape of `tensor`.
fn fitting<'a>(tensor: &TensorProto, name: &str, teacher: &'a Weights) -> Option<&'a [f32]> {
    let (dims, values) = teacher.get(name).ok()?;
    let own: Vec<usize> = tensor
        .dims
        .iter()
        .map(|d| usize::try_from(*d))
        .collect::<Result<_, _>>()
        .ok()?;
    if own == dims {
        return Some(values);
    }
    match (&own[..], dims) {
        ([rows, width], [more, same]) if name == POSITIONS && width == same && rows <= more => {
            values.get(..rows * width)
        }
        _ => None,
    }
}

/// The number of the layer in a weight's name, and what stands before and behind it.
fn number(name: &str) -> Option<(&str, usize, &str)> {
    let mut start = 0;
    for part in name.split('.') {
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            let (before, rest) = name.split_at(start);
            let (digits, behind) = rest.split_at(part.len());
            return Some((before, digits.parse().ok()?, behind));
        }
        start += part.len() + 1;
    }
    None
}

/// The teacher's layer for the student's, both counted from 0 to `own` and to `theirs`.
fn spread(layer: usize, own: usize, theirs: usize) -> usize {
    if own == 0 {
        return 0;
    }
    (layer * theirs + own / 2) / own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_spread_from_the_first_to_the_last() {
        let spread = |own, theirs| {
            (0..=own)
                .map(|i| spread(i, own, theirs))
                .collect::<Vec<_>>()
        };
        assert_eq!(spread(3, 11), [0, 4, 7, 11]);
        assert_eq!(spread(11, 11), (0..=11).collect::<Vec<_>>());
        assert_eq!(spread(0, 11), [0]);
    }

    #[test]
    fn a_layer_is_known_by_its_number() {
        let name = "vision.encoder.layers.10.mlp.fc1.weight";
        let found = number(name).unwrap();
        assert_eq!(found, ("vision.encoder.layers.", 10, ".mlp.fc1.weight"));
        assert_eq!(number("vision.positions"), None);
    }
}
