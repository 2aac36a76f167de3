//! Activations, recognised by their values: whatever operators an exporter wrote, a function of one
//! number is known by what it gives on a grid.

use std::collections::HashMap;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::change_axes::AxisOp;

use super::linear::Linear;
use super::reader::Reader;
use crate::encoder::int8::kernels::Activation;

/// Most operators of one activation.
const MAX_OPERATORS: usize = 32;

/// Largest difference on the grid. The two forms of GELU differ by 5e-4.
const TOLERANCE: f64 = 2e-5;

/// Points of the grid, from −10 to 10.
const POINTS: u16 = 801;

/// The function, in f64: the definition each kernel approximates.
fn value(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
    }
}

/// The error function by its Maclaurin series, below 1e-10 for |x| ≤ 4; ±1 beyond.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum() * (1.0 - 1.5e-8);
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

impl Reader<'_> {
    /// The linear layer and the activation between it and `outlet`.
    pub fn activated(&self, outlet: OutletId) -> Option<(Linear, Activation)> {
        let (linear, cone) = self.cone(outlet)?;
        let grid: Vec<f32> = (0..POINTS).map(|i| (f32::from(i) - 400.0) / 40.0).collect();
        let values = self.on_grid(&cone, linear.output, &grid)?;
        if self.shape(outlet)?.last() != Some(&linear.n) {
            return None;
        }
        let activation = Activation::ALL.into_iter().find(|known| {
            grid.iter().zip(&values).all(|(x, y)| {
                let wanted = value(*known, f64::from(*x));
                (f64::from(*y) - wanted).abs() <= TOLERANCE * wanted.abs().max(1.0)
            })
        })?;
        Some((linear, activation))
    }

    /// The operators between `outlet` and the one linear layer they all start from, in an order in
    /// which they can be evaluated.
    fn cone(&self, outlet: OutletId) -> Option<(Linear, Vec<OutletId>)> {
        let mut found: Option<Linear> = None;
        let (mut order, mut open) = (Vec::new(), vec![(outlet, false)]);
        while let Some((outlet, done)) = open.pop() {
            if done {
                order.push(outlet);
                continue;
            }
            if order.contains(&outlet) || self.scalar(outlet).is_some() {
                continue;
            }
            if let Some(have) = &found
                && have.output == outlet
            {
                continue;
            }
            if let Some(linear) = self.linear(outlet) {
                if found.replace(linear).is_some() {
                    return None;
                }
                continue;
            }
            if order.len() + open.len() > MAX_OPERATORS || !self.is_of_each_value(outlet) {
                return None;
            }
            open.push((outlet, true));
            open.extend(self.node(outlet).inputs.iter().map(|input| (*input, false)));
        }
        Some((found?, order))
    }

    fn is_of_each_value(&self, outlet: OutletId) -> bool {
        use tract_onnx::tract_core::ops::binary::TypedBinOp;
        use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
        use tract_onnx::tract_core::ops::logic::Iff;
        let node = self.node(outlet);
        node.op_is::<TypedBinOp>()
            || node.op_is::<ElementWiseOp>()
            || node.op_is::<Iff>()
            || node.op_is::<Cast>()
            || (node.op_is::<AxisOp>() && self.base(outlet) != outlet)
    }

    fn on_grid(&self, cone: &[OutletId], leaf: OutletId, grid: &[f32]) -> Option<Vec<f32>> {
        let mut values: HashMap<OutletId, TValue> = HashMap::new();
        values.insert(
            leaf,
            Tensor::from_shape(&[grid.len()], grid).ok()?.into_tvalue(),
        );
        let mut last = leaf;
        for outlet in cone {
            let node = self.node(*outlet);
            let inputs = node
                .inputs
                .iter()
                .map(|input| {
                    values.get(input).cloned().or_else(|| {
                        let constant = self.constant(*input)?.as_ref().clone();
                        Some(constant.into_shape(&[1]).ok()?.into_tvalue())
                    })
                })
                .collect::<Option<TVec<TValue>>>()?;
            let value = if node.op_is::<AxisOp>() {
                inputs[0].clone()
            } else {
                node.op.eval_out_of_plan(inputs).ok()??.into_iter().next()?
            };
            values.insert(*outlet, value);
            last = *outlet;
        }
        let value = &values[&last];
        let value = value.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?;
        (value.len() == grid.len()).then(|| value.to_vec())
    }
}
