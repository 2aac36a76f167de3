//! EfficientNet-Lite0 from the published ONNX, and back into a graph.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use tract_onnx::pb::{ModelProto, NodeProto, TensorProto, tensor_proto::DataType};

use super::graph::{Graph, int, ints, signed};
use crate::train::efficientnet::{Architecture, FEATURES, Kind};

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
                ints("kernel_shape", &[kernel, kernel].map(signed)),
                ints("strides", &[stride, stride].map(signed)),
                ints("dilations", &[1, 1]),
                ints("pads", &[before, before, after, after].map(signed)),
                int("group", signed(groups)),
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
