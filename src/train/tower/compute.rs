//! The operators, in candle, so that gradients flow through all of them.
//!
//! Layer normalisation and softmax are made of parts: candle's fused ones drop gradients.

use anyhow::{Context, Result, bail, ensure};
use candle_core::{D, DType, Tensor};
use candle_nn::ops::{sigmoid, softmax};

use super::op::{Arithmetic, Op, Pointwise};
use super::value::{Ints, Value};

/// Applies `op`; inputs that are left out are `None`.
pub(super) fn apply(op: &Op, inputs: &[Option<Value>]) -> Result<Value> {
    let input = |i: usize| {
        let value = inputs.get(i).and_then(Option::as_ref);
        value.with_context(|| format!("input {i} is missing"))
    };
    let float = |i: usize| input(i)?.float();
    let ints = |i: usize| input(i)?.ints();
    Ok(match op {
        Op::MatMul => Value::Float(product(float(0)?, float(1)?)?),
        Op::Gemm => {
            let product = product(float(0)?, float(1)?)?;
            Value::Float(match inputs.get(2) {
                Some(Some(bias)) => product.broadcast_add(bias.float()?)?,
                _ => product,
            })
        }
        Op::Arithmetic(which) => Value::Float(arithmetic(*which, float(0)?, float(1)?)?),
        Op::Pow => {
            let (x, power) = (float(0)?, float(1)?.to_dtype(DType::F32)?);
            let power = power.flatten_all()?.to_vec1::<f32>()?;
            let times = [1.0, 2.0, 3.0, 4.0].iter().position(|p| power == [*p]);
            let mut result = x.clone();
            for _ in 0..times.context("a power other than 1 to 4")? {
                result = (result * x)?;
            }
            Value::Float(result)
        }
        Op::Pointwise(which) => Value::Float(pointwise(*which, float(0)?)?),
        Op::Softmax { axis } => {
            let x = float(0)?;
            let axis = self::axis(*axis, x.rank())?;
            let weights = softmax(&x.to_dtype(exact(x.dtype()))?, axis)?;
            Value::Float(weights.to_dtype(x.dtype())?)
        }
        Op::LayerNorm { epsilon } => {
            let bias = inputs.get(2).and_then(Option::as_ref);
            let bias = bias.map(Value::float).transpose()?;
            Value::Float(layer_norm(float(0)?, float(1)?, bias, *epsilon)?)
        }
        Op::Reshape => reshape(input(0)?, &ints(1)?.values)?,
        Op::Flatten => {
            let first = *input(0)?.dims().first().context("a number")?;
            reshape(input(0)?, &[i64::try_from(first)?, -1])?
        }
        Op::Transpose(order) => Value::Float(float(0)?.permute(order.as_slice())?.contiguous()?),
        Op::Gather { axis } => gather(input(0)?, ints(1)?, *axis)?,
        Op::Slice => slice(inputs)?,
        Op::Concat { axis } => concat(inputs, *axis)?,
        Op::Shape => {
            let dims = input(0)?.dims().iter().map(|d| i64::try_from(*d));
            Value::Ints(Ints::list(dims.collect::<Result<_, _>>()?))
        }
        Op::Cast { float: true } => input(0)?.clone(),
        Op::Cast { float: false } => Value::Ints(ints(0)?.clone()),
        Op::Unsqueeze | Op::Squeeze => {
            let axes = inputs.get(1).and_then(Option::as_ref);
            let axes = axes.map(Value::ints).transpose()?;
            axes_changed(input(0)?, *op == Op::Unsqueeze, axes)?
        }
        Op::ReduceSum { keep } => {
            let x = float(0)?;
            let axes = ints(1)?.values.iter().map(|a| self::axis(*a, x.rank()));
            let axes: Vec<usize> = axes.collect::<Result<_>>()?;
            Value::Float(if *keep {
                x.sum_keepdim(axes)?
            } else {
                x.sum(axes)?
            })
        }
        Op::GlobalAveragePool => Value::Float(float(0)?.mean_keepdim((2, 3))?),
        Op::Equal => Value::Ints(ints(0)?.equal(ints(1)?)?),
        Op::ArgMax { axis, keep } => argmax(input(0)?, *axis, *keep)?,
        Op::Pad => pad(float(0)?, ints(1)?)?,
        Op::Patches { edge } => {
            let bias = inputs.get(2).and_then(Option::as_ref);
            let bias = bias.map(Value::float).transpose()?;
            Value::Float(patches(float(0)?, float(1)?, bias, *edge)?)
        }
        Op::Identity => input(0)?.clone(),
    })
}

/// The kind that sums over many values are taken in, and embeddings given.
pub(super) fn exact(kind: DType) -> DType {
    if kind == DType::F64 { kind } else { DType::F32 }
}

/// `axis`, which may count from the end.
fn axis(axis: i64, rank: usize) -> Result<usize> {
    let rank = i64::try_from(rank)?;
    let at = if axis < 0 { axis + rank } else { axis };
    ensure!((0..rank).contains(&at), "axis {axis} of {rank}");
    Ok(usize::try_from(at)?)
}

/// A product of matrices, batched where they are; a weight `[k, m]` takes rows of any shape.
pub(super) fn product(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if y.rank() == 2 && x.rank() > 2 {
        let mut dims = x.dims().to_vec();
        let inner = dims.pop().context("rows")?;
        let rows = x.reshape(((), inner))?.matmul(y)?;
        dims.push(y.dim(1)?);
        return Ok(rows.reshape(dims)?);
    }
    Ok(x.contiguous()?.broadcast_matmul(&y.contiguous()?)?)
}

fn arithmetic(which: Arithmetic, x: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
    match which {
        Arithmetic::Add => x.broadcast_add(y),
        Arithmetic::Sub => x.broadcast_sub(y),
        Arithmetic::Mul => x.broadcast_mul(y),
        Arithmetic::Div => x.broadcast_div(y),
    }
}

fn pointwise(which: Pointwise, x: &Tensor) -> candle_core::Result<Tensor> {
    match which {
        Pointwise::Relu => x.relu(),
        Pointwise::Tanh => x.tanh(),
        Pointwise::Sigmoid => sigmoid(x),
        Pointwise::Erf => x.erf(),
        Pointwise::Sqrt => x.sqrt(),
        Pointwise::Neg => x.neg(),
    }
}

/// `(x − mean)/√(variance + ε)·weight + bias` over the last axis, in f32 at least.
fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epsilon: f64,
) -> candle_core::Result<Tensor> {
    let kind = x.dtype();
    let inner = exact(kind);
    let x = x.to_dtype(inner)?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + epsilon)?.sqrt()?)?;
    let scaled = normal.broadcast_mul(&weight.to_dtype(inner)?)?;
    match bias {
        Some(bias) => scaled.broadcast_add(&bias.to_dtype(inner)?)?,
        None => scaled,
    }
    .to_dtype(kind)
}

/// 0 keeps an axis, −1 takes what is left.
fn reshape(value: &Value, wanted: &[i64]) -> Result<Value> {
    let from = value.dims();
    let count: usize = from.iter().product();
    let mut dims = Vec::with_capacity(wanted.len());
    for (index, size) in wanted.iter().enumerate() {
        dims.push(match size {
            0 => *from.get(index).context("an axis that is not there")?,
            -1 => 0,
            size => usize::try_from(*size).context("a shape")?,
        });
    }
    if let Some(open) = wanted.iter().position(|size| *size == -1) {
        let others = dims.iter().enumerate().filter(|(i, _)| *i != open);
        let known: usize = others.map(|(_, size)| *size).product();
        dims[open] = count / known.max(1);
    }
    ensure!(
        dims.iter().product::<usize>() == count,
        "{from:?} as {wanted:?}"
    );
    Ok(match value {
        Value::Float(tensor) => Value::Float(tensor.reshape(dims)?),
        Value::Ints(ints) => Value::Ints(Ints {
            dims,
            values: ints.values.clone(),
        }),
    })
}

fn gather(from: &Value, at: &Ints, along: i64) -> Result<Value> {
    let along = axis(along, from.dims().len())?;
    let rows = at.positions(from.dims()[along])?;
    match from {
        Value::Float(table) => {
            let mut dims = table.dims().to_vec();
            drop(dims.splice(along..=along, at.dims.iter().copied()));
            if let [row] = rows[..] {
                let row = table.narrow(along, usize::try_from(row)?, 1)?;
                return Ok(Value::Float(row.contiguous()?.reshape(dims)?));
            }
            let rows = Tensor::new(rows, table.device())?;
            let chosen = table.contiguous()?.index_select(&rows, along)?;
            Ok(Value::Float(chosen.reshape(dims)?))
        }
        Value::Ints(ints) => {
            ensure!(ints.dims.len() == 1, "a choice among integers of two axes");
            let rows = rows.iter().map(|row| usize::try_from(*row));
            let rows: Vec<usize> = rows.collect::<Result<_, _>>()?;
            Ok(Value::Ints(Ints {
                dims: at.dims.clone(),
                values: rows.into_iter().map(|row| ints.values[row]).collect(),
            }))
        }
    }
}

/// `data, starts, ends, axes, steps`; steps of 1.
fn slice(inputs: &[Option<Value>]) -> Result<Value> {
    let value = inputs.first().cloned().flatten().context("no input")?;
    let list = |i: usize| {
        let found = inputs.get(i).and_then(Option::as_ref);
        found.map(|value| Ok::<_, anyhow::Error>(value.ints()?.values.clone()))
    };
    let starts = list(1).context("no starts")??;
    let ends = list(2).context("no ends")??;
    let axes = match list(3) {
        Some(axes) => axes?,
        None => (0..).take(starts.len()).collect(),
    };
    let steps = list(4).transpose()?.unwrap_or_default();
    ensure!(steps.iter().all(|step| *step == 1), "a slice in steps");
    ensure!(
        starts.len() == ends.len() && starts.len() == axes.len(),
        "a slice of unlike lists"
    );
    let mut value = value;
    for ((start, end), along) in starts.into_iter().zip(ends).zip(axes) {
        let along = axis(along, value.dims().len())?;
        let size = i64::try_from(value.dims()[along])?;
        let place = |at: i64| if at < 0 { at + size } else { at }.clamp(0, size);
        let (start, end) = (place(start), place(end));
        ensure!(start < end, "a slice of nothing");
        let (start, end) = (usize::try_from(start)?, usize::try_from(end)?);
        value = match value {
            Value::Float(tensor) => Value::Float(tensor.narrow(along, start, end - start)?),
            Value::Ints(ints) => {
                ensure!(along == 0, "a slice of integers along axis {along}");
                Value::Ints(ints.slice(start, end)?)
            }
        };
    }
    Ok(value)
}

fn concat(inputs: &[Option<Value>], along: i64) -> Result<Value> {
    let parts: Vec<&Value> = inputs.iter().flatten().collect();
    match parts.first().context("nothing to join")? {
        Value::Float(first) => {
            let along = axis(along, first.rank())?;
            let parts: Vec<&Tensor> = parts.iter().map(|p| p.float()).collect::<Result<_>>()?;
            Ok(Value::Float(Tensor::cat(&parts, along)?))
        }
        Value::Ints(first) => {
            ensure!(first.dims.len() == 1, "integers of two axes are joined");
            let mut values = Vec::new();
            for part in parts {
                values.extend(&part.ints()?.values);
            }
            Ok(Value::Ints(Ints::list(values)))
        }
    }
}

/// New axes of length 1, or those taken out.
fn axes_changed(value: &Value, add: bool, axes: Option<&Ints>) -> Result<Value> {
    let mut dims: Vec<i64> = value
        .dims()
        .iter()
        .map(|d| i64::try_from(*d))
        .collect::<Result<_, _>>()?;
    if add {
        let axes = &axes.context("no axes")?.values;
        let rank = dims.len() + axes.len();
        let mut places: Vec<usize> = axes.iter().map(|a| axis(*a, rank)).collect::<Result<_>>()?;
        places.sort_unstable();
        for place in places {
            dims.insert(place.min(dims.len()), 1);
        }
    } else {
        let places: Vec<usize> = match axes {
            Some(axes) => {
                let places = axes.values.iter().map(|a| axis(*a, dims.len()));
                places.collect::<Result<_>>()?
            }
            None => (0..dims.len()).filter(|i| dims[*i] == 1).collect(),
        };
        ensure!(
            places.iter().all(|place| dims[*place] == 1),
            "an axis that is not 1 is squeezed"
        );
        let mut index = 0;
        dims.retain(|_| {
            index += 1;
            !places.contains(&(index - 1))
        });
    }
    // A 0 would mean the axis that was there.
    ensure!(!dims.contains(&0), "an empty value");
    reshape(value, &dims)
}

/// The first of the largest.
fn argmax(x: &Value, along: i64, keep: bool) -> Result<Value> {
    ensure!(
        x.dims().len() == 2 && axis(along, 2)? == 1,
        "ArgMax of other than rows"
    );
    let places: Vec<usize> = match x {
        Value::Float(x) => {
            let rows = x.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?;
            let first = |row: &Vec<f32>| {
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter().position(|v| *v == most).unwrap_or(0)
            };
            rows.iter().map(first).collect()
        }
        Value::Ints(x) => {
            let first = |row: &[i64]| {
                let most = row.iter().max();
                row.iter().position(|v| Some(v) == most).unwrap_or(0)
            };
            x.values.chunks(x.dims[1].max(1)).map(first).collect()
        }
    };
    let values: Vec<i64> = places
        .into_iter()
        .map(i64::try_from)
        .collect::<Result<_, _>>()?;
    let mut dims = vec![values.len()];
    dims.extend(keep.then_some(1));
    Ok(Value::Ints(Ints { dims, values }))
}

/// Zeros before and behind every axis.
fn pad(x: &Tensor, pads: &Ints) -> Result<Value> {
    let rank = x.rank();
    ensure!(pads.values.len() == 2 * rank, "pads of another rank");
    let mut x = x.clone();
    for along in 0..rank {
        let before = usize::try_from(pads.values[along]).context("a pad")?;
        let behind = usize::try_from(pads.values[rank + along]).context("a pad")?;
        if before + behind > 0 {
            x = x.pad_with_zeros(along, before, behind)?;
        }
    }
    Ok(Value::Float(x))
}

/// `x [n, C, H, W]` and a kernel `[D, C, edge, edge]` → `[n, D, H/edge, W/edge]`: every patch is one
/// row of a product.
fn patches(x: &Tensor, kernel: &Tensor, bias: Option<&Tensor>, edge: usize) -> Result<Tensor> {
    let [n, channels, height, width] = x.dims()[..] else {
        bail!("a picture of {:?}", x.dims())
    };
    let (rows, columns) = (height / edge, width / edge);
    ensure!(rows > 0 && columns > 0, "a picture smaller than a patch");
    let outputs = kernel.dim(0)?;
    let x = x.narrow(2, 0, rows * edge)?.narrow(3, 0, columns * edge)?;
    let x = x
        .contiguous()?
        .reshape(vec![n, channels, rows, edge, columns, edge])?
        .permute(vec![0, 2, 4, 1, 3, 5])?
        .contiguous()?
        .reshape((n * rows * columns, channels * edge * edge))?;
    let kernel = kernel.reshape((outputs, ()))?;
    let mut y = x.matmul(&kernel.t()?)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(bias)?;
    }
    let y = y.reshape((n, rows * columns, outputs))?.transpose(1, 2)?;
    Ok(y.contiguous()?.reshape((n, outputs, rows, columns))?)
}
