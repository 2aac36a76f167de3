//! Products of two tensors that both depend on the input, batched over heads.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::einsum::EinSum;

use super::reader::Reader;

/// `C[…, a's row, b's row] = Σ A[…, a's row, i] · B[…, b's row, i]`, axes in any order.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub a: OutletId,
    pub b: OutletId,
    /// Batch axes in A, B and C, in C's order.
    batch: Vec<[usize; 3]>,
    /// The summed axis in A and in B.
    summed: [usize; 2],
    /// A's own axis, in A and in C.
    a_row: [usize; 2],
    /// B's own axis, in B and in C.
    b_row: [usize; 2],
}

impl Product {
    /// The same product with the operands' roles exchanged.
    pub fn exchanged(&self) -> Self {
        Self {
            a: self.b,
            b: self.a,
            batch: self.batch.iter().map(|[a, b, c]| [*b, *a, *c]).collect(),
            summed: [self.summed[1], self.summed[0]],
            a_row: self.b_row,
            b_row: self.a_row,
        }
    }

    fn batch_of(&self, operand: usize) -> Vec<usize> {
        self.batch.iter().map(|axes| axes[operand]).collect()
    }

    /// A tensor of A's shape, read as `[heads, row, summed]`.
    pub fn read_a(&self, a: &Tensor) -> Option<Vec<i64>> {
        read(a, &self.batch_of(0), self.a_row[0], self.summed[0])
    }

    /// A tensor of B's shape, read as `[heads, row, summed]`.
    pub fn read_b(&self, b: &Tensor) -> Option<Vec<i64>> {
        read(b, &self.batch_of(1), self.b_row[0], self.summed[1])
    }

    /// A tensor of B's shape, read as `[heads, summed, row]`.
    pub fn read_b_summed_first(&self, b: &Tensor) -> Option<Vec<i64>> {
        read(b, &self.batch_of(1), self.summed[1], self.b_row[0])
    }

    /// Heads, A's rows and B's rows of a result of this shape.
    pub fn sizes(&self, shape: &[usize]) -> [usize; 3] {
        let heads = self.batch.iter().map(|[.., c]| shape[*c]).product();
        [heads, shape[self.a_row[1]], shape[self.b_row[1]]]
    }

    /// A tensor of the result's shape whose values are their positions in `[heads, a's row, b's
    /// row]`.
    pub fn numbered(&self, shape: &[usize]) -> Option<Tensor> {
        let mut order = self.batch_of(2);
        order.extend([self.a_row[1], self.b_row[1]]);
        let mut back = vec![0; order.len()];
        for (position, axis) in order.iter().enumerate() {
            back[*axis] = position;
        }
        let logical: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
        let numbers = super::reader::numbered(&logical)?;
        numbers.permute_axes(&back).ok()
    }
}

fn read(tensor: &Tensor, batch: &[usize], first: usize, second: usize) -> Option<Vec<i64>> {
    let mut order = batch.to_vec();
    order.extend([first, second]);
    let view = tensor.to_plain_array_view::<i64>().ok()?;
    (view.ndim() == order.len()).then(|| view.permuted_axes(order).iter().copied().collect())
}

impl Reader<'_> {
    /// A batched product of two tensors, neither of them constant.
    pub fn batched(&self, outlet: OutletId) -> Option<Product> {
        let (op, inputs) = self.op::<EinSum>(outlet)?;
        let floats = op.q_params.is_none() && op.operating_dt == f32::datum_type();
        if !floats || inputs.len() != 2 || inputs.iter().any(|x| self.constant(*x).is_some()) {
            return None;
        }
        let (mut batch, mut summed, mut a_row, mut b_row) = (Vec::new(), None, None, None);
        for axis in op.axes.iter_all_axes() {
            let taken = match (
                &axis.inputs[0][..],
                &axis.inputs[1][..],
                &axis.outputs[0][..],
            ) {
                ([a], [b], [c]) => {
                    batch.push([*a, *b, *c]);
                    None
                }
                ([a], [b], []) => summed.replace([*a, *b]),
                ([a], [], [c]) => a_row.replace([*a, *c]),
                ([], [b], [c]) => b_row.replace([*b, *c]),
                _ => return None,
            };
            if taken.is_some() {
                return None;
            }
        }
        batch.sort_unstable_by_key(|[.., c]| *c);
        Some(Product {
            a: inputs[0],
            b: inputs[1],
            batch,
            summed: summed?,
            a_row: a_row?,
            b_row: b_row?,
        })
    }
}
