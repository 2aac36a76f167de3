//! Operators as a tower's graph names them, checked once when it is read.

use anyhow::{Context, Result, bail, ensure};
use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

/// A pointwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointwise {
    Relu,
    Tanh,
    Sigmoid,
    Erf,
    Sqrt,
    Neg,
}

/// Two values, broadcast against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    MatMul,
    /// `x·W + c`.
    Gemm,
    Arithmetic(Arithmetic),
    /// To a whole power between 1 and 4.
    Pow,
    Pointwise(Pointwise),
    Softmax {
        axis: i64,
    },
    /// Over the last axis.
    LayerNorm {
        epsilon: f64,
    },
    Reshape,
    Flatten,
    Transpose(Vec<usize>),
    Gather {
        axis: i64,
    },
    Slice,
    Concat {
        axis: i64,
    },
    Shape,
    /// Between integers and floats; whether the result is float.
    Cast {
        float: bool,
    },
    Unsqueeze,
    Squeeze,
    ReduceSum {
        keep: bool,
    },
    GlobalAveragePool,
    Equal,
    ArgMax {
        axis: i64,
        keep: bool,
    },
    /// With zeros.
    Pad,
    /// A convolution whose stride is its kernel's edge.
    Patches {
        edge: usize,
    },
    Identity,
}

/// The integer attribute `name`.
fn int(node: &NodeProto, name: &str, usual: i64) -> i64 {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.map_or(usual, |a| a.i)
}

fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.map_or(&[], |a| &a.ints)
}

impl Op {
    /// What `node` does.
    ///
    /// # Errors
    /// An operator that cannot be learnt through.
    pub fn read(node: &NodeProto) -> Result<Self> {
        let keep = int(node, "keepdims", 1) == 1;
        let axis = |usual| int(node, "axis", usual);
        Ok(match node.op_type.as_str() {
            "MatMul" => Self::MatMul,
            "Gemm" => {
                let plain = node.attribute.iter().all(|a| match a.name.as_str() {
                    "alpha" | "beta" => a.f == 1.0,
                    "transA" | "transB" => a.i == 0,
                    _ => false,
                });
                ensure!(plain, "a scaled or transposed Gemm");
                Self::Gemm
            }
            "Add" => Self::Arithmetic(Arithmetic::Add),
            "Sub" => Self::Arithmetic(Arithmetic::Sub),
            "Mul" => Self::Arithmetic(Arithmetic::Mul),
            "Div" => Self::Arithmetic(Arithmetic::Div),
            "Pow" => Self::Pow,
            "Relu" => Self::Pointwise(Pointwise::Relu),
            "Tanh" => Self::Pointwise(Pointwise::Tanh),
            "Sigmoid" => Self::Pointwise(Pointwise::Sigmoid),
            "Erf" => Self::Pointwise(Pointwise::Erf),
            "Sqrt" => Self::Pointwise(Pointwise::Sqrt),
            "Neg" => Self::Pointwise(Pointwise::Neg),
            "Softmax" => Self::Softmax { axis: axis(-1) },
            "LayerNormalization" => {
                ensure!(
                    axis(-1) == -1,
                    "a normalisation of other axes than the last"
                );
                let found = node.attribute.iter().find(|a| a.name == "epsilon");
                Self::LayerNorm {
                    epsilon: f64::from(found.map_or(1e-5, |a| a.f)),
                }
            }
            "Reshape" => Self::Reshape,
            "Flatten" => {
                ensure!(axis(1) == 1, "Flatten at another axis than 1");
                Self::Flatten
            }
            "Transpose" => {
                let order = ints(node, "perm").iter().map(|p| usize::try_from(*p));
                let order: Vec<usize> = order.collect::<Result<_, _>>().context("perm")?;
                ensure!(!order.is_empty(), "Transpose without an order");
                Self::Transpose(order)
            }
            "Gather" => Self::Gather { axis: axis(0) },
            "Slice" => Self::Slice,
            "Concat" => Self::Concat { axis: axis(0) },
            "Shape" => Self::Shape,
            "Cast" => {
                let to = i32::try_from(int(node, "to", 0))?;
                let float = [DataType::Float, DataType::Float16];
                let whole = [DataType::Int64, DataType::Int32];
                ensure!(
                    float.iter().chain(&whole).any(|kind| *kind as i32 == to),
                    "a cast to type {to}"
                );
                Self::Cast {
                    float: float.iter().any(|kind| *kind as i32 == to),
                }
            }
            "Unsqueeze" => Self::Unsqueeze,
            "Squeeze" => Self::Squeeze,
            "ReduceSum" => Self::ReduceSum { keep },
            "GlobalAveragePool" => Self::GlobalAveragePool,
            "Equal" => Self::Equal,
            "ArgMax" => {
                ensure!(int(node, "select_last_index", 0) == 0, "ArgMax of the last");
                Self::ArgMax {
                    axis: axis(0),
                    keep,
                }
            }
            "Pad" => Self::Pad,
            "Conv" => Self::Patches { edge: patch(node)? },
            "Identity" => Self::Identity,
            other => bail!("an operator {other}"),
        })
    }
}

/// Edge of the patches that a convolution takes apart.
fn patch(node: &NodeProto) -> Result<usize> {
    let kernel = ints(node, "kernel_shape");
    let [edge, other] = kernel[..] else {
        bail!("a convolution of {kernel:?}")
    };
    let strides: &[i64] = match ints(node, "strides") {
        [] => &[1, 1],
        strides => strides,
    };
    let plain = int(node, "group", 1) == 1
        && ints(node, "pads").iter().all(|p| *p == 0)
        && ints(node, "dilations").iter().all(|d| *d == 1);
    ensure!(
        edge == other && edge > 0 && *strides == [edge; 2] && plain,
        "a convolution that is not one into patches"
    );
    Ok(usize::try_from(edge)?)
}
