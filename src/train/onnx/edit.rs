//! Changes to a graph that was read: a linear map after its output.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, type_proto};

use super::graph::{Model, Store, signed, tensor};
use super::read::floats;

/// The graph's output, by [`crate::bundle::Manifest`]'s contract.
const OUTPUT: &str = "embedding";

/// Where a change was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Into the constant weights of the graph's last product.
    Folded,
    /// As one more product behind the graph's output.
    Appended,
    /// Into all of the graph's weights.
    Throughout,
    /// The graph stayed as it was.
    Nowhere,
}

/// A square matrix `[D, D]`, row-major, that is applied to the embedding: `x` becomes `A·x`.
#[derive(Clone, Debug)]
pub struct Map {
    dim: usize,
    rows: Vec<f32>,
}

impl Map {
    /// From row-major values.
    ///
    /// # Errors
    /// Not `dim²` finite values.
    pub fn new(dim: usize, rows: Vec<f32>) -> Result<Self> {
        ensure!(rows.len() == dim * dim, "a map has {dim}² values");
        ensure!(rows.iter().all(|v| v.is_finite()), "a map is finite");
        Ok(Self { dim, rows })
    }

    /// `A·x`, summed in f64.
    ///
    /// # Panics
    /// When `x` has not `D` values.
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        assert_eq!(x.len(), self.dim, "a vector of the map's space");
        #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
        let product = |row: &[f32]| {
            let terms = row
                .iter()
                .zip(x)
                .map(|(a, b)| f64::from(*a) * f64::from(*b));
            terms.sum::<f64>() as f32
        };
        self.rows.chunks_exact(self.dim).map(product).collect()
    }

    /// `Aᵀ`, row-major: what stands right of a row vector.
    fn transposed(&self) -> Vec<f32> {
        let d = self.dim;
        (0..d * d).map(|i| self.rows[i % d * d + i / d]).collect()
    }
}

/// Reads an ONNX file and puts `map` behind its output. Weights that a map is folded into are stored
/// as f32, so that nothing but the map changes; the others stay as they are.
///
/// # Errors
/// A file that is no ONNX graph with the output `embedding`.
pub fn with_map(bytes: Vec<u8>, map: &Map) -> Result<(Model, Placed)> {
    let mut model = ModelProto::decode(&bytes[..]).context("no ONNX file")?;
    drop(bytes);
    let mut graph = model.graph.take().context("an ONNX file without a graph")?;
    let outputs: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    ensure!(
        outputs.contains(&OUTPUT),
        "the graph gives {outputs:?}, not {OUTPUT:?}"
    );
    let placed = if fold(&mut graph, map)? {
        Placed::Folded
    } else {
        append(&mut graph, &[map.dim; 2], &map.transposed());
        Placed::Appended
    };
    Ok((Model::from_parts(model, graph), placed))
}

/// Reads an ONNX file and puts one more product `x·W`, `W [inputs, outputs]`, behind its output, which
/// has then `outputs` values.
///
/// # Errors
/// A file that is no ONNX graph with the output `embedding`, or values that do not fill `W`.
pub fn with_projection(
    bytes: &[u8],
    [inputs, outputs]: [usize; 2],
    values: &[f32],
) -> Result<Model> {
    ensure!(
        values.len() == inputs * outputs,
        "a projection has {inputs}×{outputs} values"
    );
    let mut model = ModelProto::decode(bytes).context("no ONNX file")?;
    let mut graph = model.graph.take().context("an ONNX file without a graph")?;
    ensure!(
        graph.node.iter().any(|node| node.output == [OUTPUT]),
        "no node of the graph gives {OUTPUT:?}"
    );
    append(&mut graph, &[inputs, outputs], values);
    let of_output = graph.output.iter_mut().filter(|port| port.name == OUTPUT);
    for dim in of_output.filter_map(|port| match &mut port.r#type.as_mut()?.value {
        Some(type_proto::Value::TensorType(kind)) => kind.shape.as_mut()?.dim.last_mut(),
        _ => None,
    }) {
        dim.value = Some(dimension::Value::DimValue(signed(outputs)));
    }
    Ok(Model::from_parts(model, graph))
}

/// A constant: an initializer, or one that is cast to f32.
struct Constant {
    dims: Vec<usize>,
    values: Vec<f32>,
}

/// Multiplies the map into the last product, where the output is `x·W`, `x·W + c` or a `Gemm` of
/// constant weights.
fn fold(graph: &mut GraphProto, map: &Map) -> Result<bool> {
    let producers: HashMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)))
        .collect();
    let Some(last) = producers.get(OUTPUT).copied() else {
        bail!("no node of the graph gives {OUTPUT:?}");
    };
    let mut changed: Vec<(usize, usize, Constant)> = Vec::new();
    let node = &graph.node[last];
    let product = match node.op_type.as_str() {
        "MatMul" => last,
        "Gemm" if plain_gemm(node) => {
            if node.input.get(2).is_some_and(|name| !name.is_empty()) {
                let Some(bias) = constant(graph, &producers, &node.input[2]) else {
                    return Ok(false);
                };
                let Some(bias) = mapped_bias(&bias, map) else {
                    return Ok(false);
                };
                changed.push((last, 2, bias));
            }
            last
        }
        "Add" if node.input.len() == 2 => {
            let product_of = |side: usize| {
                let index = *producers.get(node.input[side].as_str())?;
                let only = used(graph, &node.input[side]) == 1;
                (only && graph.node[index].op_type == "MatMul").then_some(index)
            };
            let found = [0, 1].into_iter().find_map(|side| {
                let bias = constant(graph, &producers, &node.input[1 - side])?;
                Some((product_of(side)?, 1 - side, mapped_bias(&bias, map)?))
            });
            let Some((product, side, bias)) = found else {
                return Ok(false);
            };
            changed.push((last, side, bias));
            product
        }
        _ => return Ok(false),
    };
    let Some(weight) = graph.node[product].input.get(1) else {
        return Ok(false);
    };
    // Nothing else may see the output before the map.
    let seen = used(graph, OUTPUT) > 0;
    let Some(weight) = constant(graph, &producers, weight).filter(|_| !seen) else {
        return Ok(false);
    };
    let [inputs, dim] = weight.dims[..] else {
        return Ok(false);
    };
    if dim != map.dim {
        return Ok(false);
    }
    // (x·W)·Aᵀ = x·(W·Aᵀ): every row of W is mapped.
    let values = weight
        .values
        .chunks_exact(dim)
        .flat_map(|row| map.apply(row));
    let weight = Constant {
        dims: vec![inputs, dim],
        values: values.collect(),
    };
    changed.push((product, 1, weight));
    for (node, input, constant) in changed {
        let name = free_name(
            graph,
            &format!("{}.refreshed", graph.node[node].input[input]),
        );
        graph
            .initializer
            .push(float(&name, &constant.dims, &constant.values));
        let before = std::mem::replace(&mut graph.node[node].input[input], name);
        forget(graph, &before);
    }
    Ok(true)
}

/// `Gemm` of `x·W + c`, nothing transposed or scaled.
fn plain_gemm(node: &NodeProto) -> bool {
    node.attribute.iter().all(|a| match a.name.as_str() {
        "alpha" | "beta" => a.f == 1.0,
        "transA" | "transB" => a.i == 0,
        _ => false,
    })
}

/// A bias of `D` values, mapped.
fn mapped_bias(bias: &Constant, map: &Map) -> Option<Constant> {
    let fits = bias.values.len() == map.dim && bias.dims.last() == Some(&map.dim);
    fits.then(|| Constant {
        dims: bias.dims.clone(),
        values: map.apply(&bias.values),
    })
}

fn constant(graph: &GraphProto, producers: &HashMap<&str, usize>, name: &str) -> Option<Constant> {
    let stored = |name: &str| graph.initializer.iter().find(|t| t.name == name);
    let direct = stored(name);
    let cast = || {
        let node = &graph.node[*producers.get(name)?];
        (node.op_type == "Cast").then(|| stored(node.input.first()?))?
    };
    let found = direct.or_else(cast)?;
    let dims: Vec<usize> = found
        .dims
        .iter()
        .map(|d| usize::try_from(*d))
        .collect::<Result<_, _>>()
        .ok()?;
    let count = dims
        .iter()
        .try_fold(1usize, |count, d| count.checked_mul(*d))?;
    let values = floats(found)?;
    (values.len() == count && values.iter().all(|v| v.is_finite()))
        .then_some(Constant { dims, values })
}

/// Renames the output everywhere and multiplies it behind with a weight `[inputs, outputs]`.
fn append(graph: &mut GraphProto, dims: &[usize; 2], values: &[f32]) {
    let before = free_name(graph, &format!("{OUTPUT}.before"));
    let rename = |name: &mut String| {
        if name == OUTPUT {
            name.clone_from(&before);
        }
    };
    for node in &mut graph.node {
        node.input.iter_mut().for_each(rename);
        node.output.iter_mut().for_each(rename);
    }
    graph.value_info.retain(|info| info.name != OUTPUT);
    let weight = free_name(graph, "refresh.weight");
    graph.initializer.push(float(&weight, dims, values));
    graph.node.push(NodeProto {
        op_type: "MatMul".to_owned(),
        name: free_name(graph, "refresh"),
        input: vec![before, weight],
        output: vec![OUTPUT.to_owned()],
        ..NodeProto::default()
    });
}

/// How many inputs of nodes are called so.
fn used(graph: &GraphProto, name: &str) -> usize {
    graph
        .node
        .iter()
        .flat_map(|node| &node.input)
        .filter(|n| *n == name)
        .count()
}

/// Drops a constant that nothing uses any more.
fn forget(graph: &mut GraphProto, name: &str) {
    if used(graph, name) > 0 {
        return;
    }
    graph.initializer.retain(|t| t.name != name);
    let cast = graph
        .node
        .iter()
        .position(|n| n.op_type == "Cast" && n.output == [name]);
    if let Some(cast) = cast {
        let node = graph.node.remove(cast);
        if let Some(stored) = node.input.first() {
            forget(graph, stored);
        }
    }
}

/// `wanted`, or with a number behind it where that is taken.
fn free_name(graph: &GraphProto, wanted: &str) -> String {
    let taken = |name: &str| {
        let nodes = graph.node.iter();
        let mut names = nodes.flat_map(|n| n.input.iter().chain(&n.output).chain([&n.name]));
        names.any(|n| n == name) || graph.initializer.iter().any(|t| t.name == name)
    };
    let numbered = (2u32..).map(|n| format!("{wanted}.{n}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or_default()
}

fn float(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    tensor(name, dims, DataType::Float, Store::Float.bytes(values))
}

#[cfg(test)]
mod tests;
