//! Products with a constant matrix over the last axis.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::einsum::EinSum;

use super::reader::Reader;
use crate::encoder::int8::kernels::MAX_K;

/// `y = x · Wᵀ + b` over the last axis of `x`, as found in a graph.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    /// `x`, `[…, k]`.
    pub input: OutletId,
    /// `y`, `[…, n]`, bias included.
    pub output: OutletId,
    /// Output channels.
    pub n: usize,
    /// Input channels.
    pub k: usize,
    /// Rows of `x` under the reader's symbols.
    pub rows: usize,
    weights: Arc<Tensor>,
    n_axis: usize,
    k_axis: usize,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// The matrix, `[n, k]` row-major: one row per output channel.
    pub fn weights(&self) -> TractResult<Vec<f32>> {
        let view = self.weights.to_plain_array_view::<f32>()?;
        let mut order: Vec<usize> = (0..view.ndim())
            .filter(|axis| ![self.n_axis, self.k_axis].contains(axis))
            .collect();
        order.extend([self.n_axis, self.k_axis]);
        Ok(view.permuted_axes(order).iter().copied().collect())
    }

    /// `n` values.
    pub fn bias(&self) -> Vec<f32> {
        self.bias.clone().unwrap_or_else(|| vec![0.0; self.n])
    }
}

impl Reader<'_> {
    /// A product with a constant matrix, and the bias added to it if there is one.
    pub fn linear(&self, outlet: OutletId) -> Option<Linear> {
        if let Some(product) = self.product(outlet) {
            return Some(product);
        }
        let (a, b) = self.sum(outlet)?;
        [(a, b), (b, a)].into_iter().find_map(|(x, bias)| {
            let mut linear = self.product(self.base(x))?;
            // The channels have to be the last axis where the bias is added, too.
            if self.shape(outlet)?.last() != Some(&linear.n) {
                return None;
            }
            linear.bias = Some(self.vector(bias, linear.n)?);
            linear.output = outlet;
            Some(linear)
        })
    }

    fn product(&self, outlet: OutletId) -> Option<Linear> {
        let (op, inputs) = self.op::<EinSum>(outlet)?;
        if inputs.len() != 2 || op.q_params.is_some() || op.operating_dt != f32::datum_type() {
            return None;
        }
        let (x, w) = match (self.constant(inputs[0]), self.constant(inputs[1])) {
            (None, Some(_)) => (0, 1),
            (Some(_), None) => (1, 0),
            _ => return None,
        };
        let weights = self.constant(inputs[w])?;
        if weights.datum_type() != f32::datum_type() {
            return None;
        }
        let (x_shape, y_shape) = (self.shape(inputs[x])?, self.shape(outlet)?);
        let (mut n_axis, mut k_axis) = (None, None);
        let mut kept = Vec::new();
        for axis in op.axes.iter_all_axes() {
            let at = |axes: &TVec<usize>| match axes[..] {
                [] => Some(None),
                [one] => Some(Some(one)),
                _ => None,
            };
            let (in_x, in_w) = (at(&axis.inputs[x])?, at(&axis.inputs[w])?);
            match (in_x, in_w, at(&axis.outputs[0])?) {
                (Some(from), Some(w), None) if weights.shape()[w] == x_shape[from] => {
                    if k_axis.replace(w).is_some() || from + 1 != x_shape.len() {
                        return None;
                    }
                }
                (None, Some(w), Some(to)) if weights.shape()[w] != 1 || to + 1 == y_shape.len() => {
                    if n_axis.replace(w).is_some() || to + 1 != y_shape.len() {
                        return None;
                    }
                }
                (Some(from), w, Some(to)) if w.is_none_or(|w| weights.shape()[w] == 1) => {
                    kept.push((from, to));
                }
                (None, Some(w), None | Some(_)) if weights.shape()[w] == 1 => {}
                _ => return None,
            }
        }
        kept.sort_unstable();
        if !kept.is_sorted_by_key(|(_, to)| *to) {
            return None;
        }
        let (n_axis, k_axis) = (n_axis?, k_axis?);
        let (n, k) = (weights.shape()[n_axis], weights.shape()[k_axis]);
        if weights.len() != n.checked_mul(k)? || n == 0 || k == 0 || k > MAX_K {
            return None;
        }
        Some(Linear {
            input: inputs[x],
            output: outlet,
            n,
            k,
            rows: x_shape.iter().product::<usize>() / k,
            weights,
            n_axis,
            k_axis,
            bias: None,
        })
    }
}
