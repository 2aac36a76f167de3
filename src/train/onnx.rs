//! Reading weights out of ONNX and writing the image tower as ONNX, with tract's protobuf types.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, tensor_shape_proto, type_proto,
};
use tract_onnx::prelude::f16;

use super::efficientnet::{Architecture, FEATURES, Kind};

/// Weights of EfficientNet-Lite0 as published, with its ImageNet classifier.
pub struct Pretrained {
    /// Parameters of [`Architecture::lite0`].
    pub tower: Vec<f32>,
    /// `[1280, 1000]`, row-major: ready to stand right in a product.
    pub classifier: Vec<f32>,
    /// `[1000]`.
    pub classifier_bias: Vec<f32>,
}

/// Reads the published ONNX.
///
/// # Errors
/// A file that is not EfficientNet-Lite0.
pub fn read_lite0(path: &Path) -> Result<Pretrained> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let model = ModelProto::decode(&bytes[..]).with_context(|| path.display().to_string())?;
    let graph = model.graph.context("an ONNX file without a graph")?;
    let initializers: HashMap<&str, &TensorProto> = graph
        .initializer
        .iter()
        .map(|t| (t.name.as_str(), t))
        .collect();
    let tensor = |name: &str| -> Result<(Vec<i64>, Vec<f32>)> {
        let t = initializers
            .get(name)
            .with_context(|| format!("no weights called {name}"))?;
        Ok((t.dims.clone(), floats(t)?))
    };
    let net = Architecture::lite0();
    let mut tower = vec![0.0; net.parameters];
    let convolutions: Vec<&NodeProto> = graph.node.iter().filter(|n| n.op_type == "Conv").collect();
    ensure!(
        convolutions.len() == net.layers.len(),
        "{} convolutions instead of {}",
        convolutions.len(),
        net.layers.len()
    );
    for (layer, node) in net.layers.iter().zip(convolutions) {
        let [_, weight, bias] = &node.input[..] else {
            bail!("a convolution without bias")
        };
        let (_, weight) = tensor(weight)?;
        let (_, bias) = tensor(bias)?;
        ensure!(
            weight.len() == layer.weight.len() && bias.len() == layer.outputs,
            "{layer:?} does not fit the file"
        );
        let out = &mut tower[layer.weight.clone()];
        // ONNX has [out, in / groups, h, w]; here the output channel comes last.
        let per_output = weight.len() / layer.outputs;
        let (inputs, taps) = match layer.kind {
            Kind::Stem => (layer.inputs, 9),
            Kind::Depthwise { kernel, .. } => (1, kernel * kernel),
            Kind::Pointwise => (layer.inputs, 1),
        };
        for o in 0..layer.outputs {
            for i in 0..inputs {
                for t in 0..taps {
                    out[(t * inputs + i) * layer.outputs + o] =
                        weight[o * per_output + i * taps + t];
                }
            }
        }
        tower[layer.bias.clone()].copy_from_slice(&bias);
    }
    let gemm = graph
        .node
        .iter()
        .find(|n| n.op_type == "Gemm")
        .context("no classifier")?;
    let [_, weight, bias] = &gemm.input[..] else {
        bail!("a classifier without bias")
    };
    let (dims, weight) = tensor(weight)?;
    ensure!(dims == [1000, 1280], "classifier of shape {dims:?}");
    let mut classifier = vec![0.0; weight.len()];
    for o in 0..1000 {
        for i in 0..FEATURES {
            classifier[i * 1000 + o] = weight[o * FEATURES + i];
        }
    }
    Ok(Pretrained {
        tower,
        classifier,
        classifier_bias: tensor(bias)?.1,
    })
}

fn floats(t: &TensorProto) -> Result<Vec<f32>> {
    ensure!(
        t.data_type == DataType::Float as i32,
        "{} is not float",
        t.name
    );
    if !t.float_data.is_empty() {
        return Ok(t.float_data.clone());
    }
    Ok(t.raw_data
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect())
}

/// Collects nodes and weights of a graph with one input and one output.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Graph {
    /// Adds a weight stored as IEEE half and cast to f32 on load; returns its name.
    pub fn half(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        assert_eq!(
            dims.iter().product::<usize>(),
            values.len(),
            "shape of {name}"
        );
        let raw = values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        self.initializers.push(TensorProto {
            name: format!("{name}.f16"),
            dims: dims.iter().map(|d| d.cast_signed() as i64).collect(),
            data_type: DataType::Float16 as i32,
            raw_data: raw,
            ..TensorProto::default()
        });
        self.node(
            "Cast",
            &[&format!("{name}.f16")],
            name,
            vec![int("to", DataType::Float as i64)],
        )
    }

    /// Adds an f32 constant; returns its name.
    pub fn float(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        assert_eq!(
            dims.iter().product::<usize>(),
            values.len(),
            "shape of {name}"
        );
        self.initializers.push(TensorProto {
            name: name.to_owned(),
            dims: dims.iter().map(|d| d.cast_signed() as i64).collect(),
            data_type: DataType::Float as i32,
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        name.to_owned()
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
            input: inputs.iter().map(|s| (*s).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
        output.to_owned()
    }

    /// The finished file: `input [n, …]` → `output [n, width]`, opset 17.
    pub fn finish(self, name: &str, input: (&str, &[usize]), output: (&str, usize)) -> Vec<u8> {
        let graph = GraphProto {
            name: name.to_owned(),
            node: self.nodes,
            initializer: self.initializers,
            input: vec![value(input.0, input.1)],
            output: vec![value(output.0, &[output.1])],
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: 8,
            producer_name: "vedetta-train".to_owned(),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 17,
            }],
            graph: Some(graph),
            ..ModelProto::default()
        }
        .encode_to_vec()
    }
}

fn value(name: &str, dims: &[usize]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let batch = Dimension {
        value: Some(Value::DimParam("n".to_owned())),
        ..Dimension::default()
    };
    let rest = dims.iter().map(|d| Dimension {
        value: Some(Value::DimValue(d.cast_signed() as i64)),
        ..Dimension::default()
    });
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape: Some(TensorShapeProto {
                    dim: std::iter::once(batch).chain(rest).collect(),
                }),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
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

/// A list of integers.
pub fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.iter().map(|v| v.cast_signed() as i64).collect(),
        ..AttributeProto::default()
    }
}

/// Adds EfficientNet-Lite0 in channel-first form for inputs of `size_px`; returns the name of its
/// pooled features `[n, 1280]`.
pub fn write_lite0(graph: &mut Graph, parameters: &[f32], input: &str, size_px: usize) -> String {
    let net = Architecture::lite0();
    let zero = graph.float("zero", &[], &[0.0]);
    let six = graph.float("six", &[], &[6.0]);
    let mut names = vec![input.to_owned()];
    let mut side = size_px;
    for (index, layer) in net.layers.iter().enumerate() {
        let (inputs, kernel, stride, groups) = match layer.kind {
            Kind::Stem => (layer.inputs, 3, 2, 1),
            Kind::Depthwise { kernel, stride } => (1, kernel, stride, layer.outputs),
            Kind::Pointwise => (layer.inputs, 1, 1, 1),
        };
        let taps = kernel * kernel;
        let stored = &parameters[layer.weight.clone()];
        let mut weight = vec![0.0; stored.len()];
        for o in 0..layer.outputs {
            for i in 0..inputs {
                for t in 0..taps {
                    weight[(o * inputs + i) * taps + t] =
                        stored[(t * inputs + i) * layer.outputs + o];
                }
            }
        }
        let name = format!("block{}.{index}", layer.block);
        let weight = graph.half(
            &format!("{name}.weight"),
            &[layer.outputs, inputs, kernel, kernel],
            &weight,
        );
        let bias = graph.float(
            &format!("{name}.bias"),
            &[layer.outputs],
            &parameters[layer.bias.clone()],
        );
        let out_side = side.div_ceil(stride);
        let pad = ((out_side - 1) * stride + kernel).saturating_sub(side);
        let (before, after) = (pad / 2, pad - pad / 2);
        let mut y = graph.node(
            "Conv",
            &[&names[index], &weight, &bias],
            &format!("{name}.conv"),
            vec![
                ints("kernel_shape", &[kernel, kernel]),
                ints("strides", &[stride, stride]),
                ints("dilations", &[1, 1]),
                ints("pads", &[before, before, after, after]),
                int("group", groups.cast_signed() as i64),
            ],
        );
        if layer.relu6 {
            y = graph.node(
                "Clip",
                &[&y, &zero, &six],
                &format!("{name}.clip"),
                Vec::new(),
            );
        }
        if let Some(source) = layer.residual {
            y = graph.node(
                "Add",
                &[&y, &names[source]],
                &format!("{name}.add"),
                Vec::new(),
            );
        }
        names.push(y);
        side = out_side;
    }
    let last = &names[net.layers.len()];
    graph.node(
        "ReduceMean",
        &[last],
        "features",
        vec![ints("axes", &[2, 3]), int("keepdims", 0)],
    )
}
