//! Self attention: `softmax(scale · Q Kᵀ + mask) V`, whatever the layout of its heads.
//!
//! Layouts are not matched, they are computed: positions are sent through the reshapes and
//! transposes, and what comes out says which channel of which head each value is.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::logic::Iff;
use tract_onnx::tract_core::ops::math::IsNan;
use tract_onnx::tract_core::ops::nn::{Softmax, SoftmaxKind};

use super::linear::Linear;
use super::mask::{Mask, Term, Use};
use super::product::Product;
use super::reader::{Path, Reader};

/// Most masks added one after another.
const MAX_TERMS: usize = 4;

/// What a masked score is filled with at most.
const BLOCKED: f32 = -1e4;

/// Query, key or value: the linear layer, and the channel of it that each channel of each head is.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    pub linear: Linear,
    /// `[heads · dim]`.
    pub channels: Vec<usize>,
    factor: f32,
}

/// Self attention between its projections and its output projection.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    /// Query, key, value.
    pub projections: [Projection; 3],
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
    /// Factor of the products of query and key.
    pub scale: f32,
    pub mask: Mask,
    /// `[heads · dim]`: the channel of the context that each input of the output projection is.
    pub context: Vec<usize>,
}

/// What is between the product of query and key and the softmax.
struct Scores {
    path: Path,
    terms: Vec<Term>,
}

impl Reader<'_> {
    /// Self attention whose result, through views, is the input of `out`.
    pub fn attention(&self, out: &Linear) -> Option<Attention> {
        let context = self.path(out.input);
        if context.factor != 1.0 {
            return None;
        }
        let weighted = self.batched(context.source)?;
        let (softmax, weights, weighted) = match self.softmax(weighted.a) {
            Some((softmax, weights)) => (softmax, weights, weighted),
            None => {
                let weighted = weighted.exchanged();
                let (softmax, weights) = self.softmax(weighted.a)?;
                (softmax, weights, weighted)
            }
        };
        let scores = self.scores(self.node(softmax).inputs[0], MAX_TERMS)?;
        let product = self.batched(scores.path.source)?;
        [product.exchanged(), product].iter().find_map(|product| {
            let numbers = self.score_numbers(product, softmax, &scores, &weights, &weighted)?;
            self.heads(out, &context, product, &weighted, &scores, numbers)
        })
    }

    /// The softmax that `outlet` is, possibly guarded against rows that are all masked.
    fn softmax(&self, outlet: OutletId) -> Option<(OutletId, Path)> {
        let mut path = self.path(outlet);
        if let Some((_, inputs)) = self.op::<Iff>(path.source) {
            let (test, tested) = self.op::<ElementWiseOp>(self.base(inputs[0]))?;
            if !test.0.is::<IsNan>() || !self.same(tested[0], inputs[2]) {
                return None;
            }
            path = self.path(inputs[2]).then(path);
        }
        let (softmax, _) = self.op::<Softmax>(path.source)?;
        let plain = softmax.kind == SoftmaxKind::Softmax && softmax.axes.len() == 1;
        (plain && path.factor == 1.0).then_some((path.source, path))
    }

    /// Walks back from the softmax to the product of query and key.
    fn scores(&self, sink: OutletId, depth: usize) -> Option<Scores> {
        let path = self.path(sink);
        if self.batched(path.source).is_some() {
            let terms = Vec::new();
            return Some(Scores { path, terms });
        }
        if depth == 0 || path.factor != 1.0 {
            return None;
        }
        let (inner, mask, how) = if let Some((a, b)) = self.sum(path.source) {
            [(a, b), (b, a)]
                .into_iter()
                .find_map(|(data, mask)| Some((self.scores(data, depth - 1)?, mask, Use::Added)))?
        } else {
            let (_, inputs) = self.op::<Iff>(path.source)?;
            let filled = |keep: OutletId, fill: OutletId, kept_where: bool| {
                let fill = self.constant(fill)?.cast_to_scalar::<f32>().ok();
                let fill = fill.filter(|fill| *fill <= BLOCKED)?;
                let how = Use::Selects { kept_where, fill };
                Some((self.scores(keep, depth - 1)?, inputs[0], how))
            };
            filled(inputs[1], inputs[2], true).or_else(|| filled(inputs[2], inputs[1], false))?
        };
        let mut terms = inner.terms;
        terms.push(Term {
            mask,
            how,
            path: inner.path.clone(),
        });
        Some(Scores {
            path: inner.path.then(path),
            terms,
        })
    }

    /// Numbers the scores by head, query and key, checks that the softmax runs over the keys and
    /// that the weights reach the values with these roles.
    fn score_numbers(
        &self,
        product: &Product,
        softmax: OutletId,
        scores: &Scores,
        weights: &Path,
        weighted: &Product,
    ) -> Option<Tensor> {
        let shape = self.shape(scores.path.source)?;
        let [heads, queries, keys] = product.sizes(&shape);
        let numbers = product.numbered(&shape)?;
        let at_softmax = self.replay(&scores.path, numbers.clone())?;
        let (op, _) = self.op::<Softmax>(softmax)?;
        if queries != keys || queries < 2 || key_axis(&at_softmax)? != op.axes[0] {
            return None;
        }
        let read = weighted.read_a(&self.replay(weights, at_softmax)?)?;
        let in_order = read.len() == heads * queries * keys
            && read
                .iter()
                .zip(0_i64..)
                .all(|(have, wanted)| *have == wanted);
        in_order.then_some(numbers)
    }

    fn heads(
        &self,
        out: &Linear,
        context: &Path,
        product: &Product,
        weighted: &Product,
        scores: &Scores,
        numbers: Tensor,
    ) -> Option<Attention> {
        let [heads, rows, _] = product.sizes(&self.shape(scores.path.source)?);
        let shape = self.shape(context.source)?;
        let [value_heads, value_rows, dim] = weighted.sizes(&shape);
        if (value_heads, value_rows) != (heads, rows) || out.k != heads * dim {
            return None;
        }
        let query = self.projection(product.a, heads, rows, |x| product.read_a(x))?;
        let key = self.projection(product.b, heads, rows, |x| product.read_b(x))?;
        let value =
            self.projection(weighted.b, heads, rows, |x| weighted.read_b_summed_first(x))?;
        let even = [&query, &key]
            .iter()
            .all(|p| p.channels.len() == heads * dim);
        let scale = scores.path.factor * query.factor * key.factor;
        if !even || value.factor != 1.0 || !scale.is_finite() {
            return None;
        }
        // Head by head in memory, row by row for the output projection.
        let at_out = self.replay(context, weighted.numbered(&shape)?)?;
        let at_out = at_out
            .try_as_plain_ram()
            .ok()?
            .as_slice::<i64>()
            .ok()?
            .to_vec();
        let mut channels = Vec::with_capacity(heads * dim);
        for (index, position) in at_out.iter().enumerate() {
            let position = usize::try_from(*position).ok()?;
            let (head, row, channel) = (
                position / (rows * dim),
                position / dim % rows,
                position % dim,
            );
            let channel = head * dim + channel;
            match (row, index % out.k) {
                (row, _) if row != index / out.k => return None,
                (0, _) => channels.push(channel),
                (_, input) if channels[input] != channel => return None,
                _ => {}
            }
        }
        Some(Attention {
            mask: self.mask(&scores.terms, &numbers, heads, rows)?,
            projections: [query, key, value],
            heads,
            dim,
            scale,
            context: channels,
        })
    }

    /// The linear layer behind an operand, which `read` orders as `[heads, row, channel]`.
    fn projection(
        &self,
        operand: OutletId,
        heads: usize,
        rows: usize,
        read: impl Fn(&Tensor) -> Option<Vec<i64>>,
    ) -> Option<Projection> {
        let path = self.path(operand);
        let linear = self.linear(path.source)?;
        let positions = read(&self.positions(&path)?)?;
        let dim = positions.len() / (heads * rows);
        if dim == 0 || positions.len() != heads * rows * dim || linear.rows != rows {
            return None;
        }
        let mut channels = vec![usize::MAX; heads * dim];
        for (index, position) in positions.iter().enumerate() {
            let position = usize::try_from(*position).ok()?;
            let (head, row, channel) = (index / (rows * dim), index / dim % rows, index % dim);
            let (from_row, from) = (position / linear.n, position % linear.n);
            let slot = &mut channels[head * dim + channel];
            if from_row != row || !(*slot == from || *slot == usize::MAX) {
                return None;
            }
            *slot = from;
        }
        Some(Projection {
            linear,
            channels,
            factor: path.factor,
        })
    }
}

/// The axis along which positions `[heads, query, key]` go from key to key.
pub(super) fn key_axis(positions: &Tensor) -> Option<usize> {
    let view = positions.to_plain_array_view::<i64>().ok()?;
    let first = *view.iter().next()?;
    (0..view.ndim()).find(|axis| {
        let mut index = vec![0; view.ndim()];
        index[*axis] = 1;
        view.get(&index[..]).is_some_and(|next| *next == first + 1)
    })
}
