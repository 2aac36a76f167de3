//! Attention masks. What a mask does is found by evaluating it: one value for each key whatever the
//! query and the head, or that with all later keys blocked.

use std::collections::HashMap;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::Slice;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::logic::Iff;
use tract_onnx::tract_core::ops::math::add;

use super::attention::key_axis;
use super::reader::{Path, Reader};

/// Scores at or below this are blocked: `exp` gives nothing beside any other.
const BLOCKED: f32 = -1e4;

/// How a mask is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Use {
    /// Added to the scores.
    Added,
    /// Scores are kept where the mask equals `kept_where`, and are `fill` elsewhere.
    Selects { kept_where: bool, fill: f32 },
}

/// A mask between the scores and the softmax.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub mask: OutletId,
    pub how: Use,
    /// From the product of query and key to where the mask is used.
    pub path: Path,
}

/// One value for each key, to be taken from a tensor of the graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Keys {
    pub mask: OutletId,
    pub how: Use,
    /// The axis of the keys.
    pub axis: usize,
    /// Whether the last query's values are meant, as it sees all keys; else all queries' are equal.
    pub of_last: bool,
}

/// What the masks of one attention come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Mask {
    /// A query sees no later key.
    pub causal: bool,
    /// Summed.
    pub keys: Vec<Keys>,
}

impl Reader<'_> {
    /// `numbers`: positions `[heads, query, key]` of the scores.
    pub fn mask(
        &self,
        terms: &[Term],
        numbers: &Tensor,
        heads: usize,
        rows: usize,
    ) -> Option<Mask> {
        let mut mask = Mask::default();
        for term in terms {
            let positions = self.replay(&term.path, numbers.clone())?;
            let axis = key_axis(&positions)?;
            let values = self.mask_values(term.mask)?;
            let found = values
                .iter()
                .map(|value| kind(value, term.how, &positions, heads, rows))
                .collect::<Option<Vec<Kind>>>()?;
            let causal = !found.iter().all(|kind| kind.of_keys);
            if causal && !found.iter().all(|kind| kind.causal) {
                return None;
            }
            mask.causal |= causal;
            if self.constant(term.mask).is_none() || found.iter().any(|kind| kind.blocks_keys) {
                if self.shape(term.mask)?.get(axis) != Some(&rows) {
                    return None;
                }
                // The last of an unknown number of rows cannot be packed.
                let known = || self.model.outlet_fact(term.mask).ok()?.shape.as_concrete();
                if causal && known().is_none() {
                    return None;
                }
                mask.keys.push(Keys {
                    mask: term.mask,
                    how: term.how,
                    axis,
                    of_last: causal,
                });
            }
        }
        Some(mask)
    }

    /// The mask for several inputs: nothing padded, and the end padded.
    fn mask_values(&self, mask: OutletId) -> Option<Vec<Tensor>> {
        if let Some(value) = self.constant(mask) {
            return Some(vec![value.as_ref().clone()]);
        }
        if let Some(known) = self.masks.borrow().get(&mask) {
            return known.clone();
        }
        let values = self.run_mask(mask).ok();
        self.masks.borrow_mut().insert(mask, values.clone());
        values
    }

    fn run_mask(&self, mask: OutletId) -> TractResult<Vec<Tensor>> {
        let mut part = self.model.clone();
        part.select_output_outlets(&[mask])?;
        let subs: HashMap<Symbol, TDim> = self.symbols.to_dim_map();
        let part = part.set_symbols(&subs)?;
        let facts = part
            .input_outlets()?
            .iter()
            .map(|outlet| part.outlet_fact(*outlet).cloned())
            .collect::<TractResult<Vec<_>>>()?;
        let plan = TypedSimplePlan::new(part)?;
        // The first number of three quarters, a half and none of the positions is 0: padding.
        [4_i64, 3, 2]
            .into_iter()
            .map(|quarters| {
                let inputs = facts
                    .iter()
                    .map(|fact| {
                        let shape = fact.shape.as_concrete().context("an unknown shape")?;
                        let width = i64::try_from(shape.last().copied().unwrap_or(1))?;
                        let volume = i64::try_from(shape.iter().product::<usize>())?;
                        let kept = (width * quarters / 4).max(1);
                        let values: Vec<i64> =
                            (0..volume).map(|i| i64::from(i % width < kept)).collect();
                        let tensor = Tensor::from_shape(shape, &values)?;
                        Ok(tensor
                            .cast_to_dt(fact.datum_type)?
                            .into_owned()
                            .into_tvalue())
                    })
                    .collect::<TractResult<TVec<TValue>>>()?;
                Ok(plan.run(inputs)?.remove(0).into_tensor())
            })
            .collect()
    }
}

/// What one value of a mask is.
struct Kind {
    /// Does not depend on the query.
    of_keys: bool,
    /// Blocks later keys, and does not depend on the query otherwise.
    causal: bool,
    /// Is not zero for a key that the last query sees.
    blocks_keys: bool,
}

fn kind(value: &Tensor, how: Use, positions: &Tensor, heads: usize, rows: usize) -> Option<Kind> {
    let added: Vec<f32> = {
        let value = value.broadcast_to_shape(positions.shape()).ok()?;
        match how {
            Use::Added => {
                let value = value.cast_to::<f32>().ok()?;
                value
                    .try_as_plain_ram()
                    .ok()?
                    .as_slice::<f32>()
                    .ok()?
                    .to_vec()
            }
            Use::Selects { kept_where, fill } => {
                let value = value.try_as_plain_ram().ok()?;
                let value = value.as_slice::<bool>().ok()?;
                let added = value
                    .iter()
                    .map(|v| if *v == kept_where { 0.0 } else { fill });
                added.collect()
            }
        }
    };
    let positions = positions
        .try_as_plain_ram()
        .ok()?
        .as_slice::<i64>()
        .ok()?
        .to_vec();
    let mut scores = vec![f32::NAN; heads * rows * rows];
    for (value, position) in added.iter().zip(positions) {
        *scores.get_mut(usize::try_from(position).ok()?)? = *value;
    }
    let last = scores[(rows - 1) * rows..rows * rows].to_vec();
    let same = |a: f32, b: f32| a == b || (a <= BLOCKED && b <= BLOCKED);
    let all = |test: &dyn Fn(usize, usize, f32) -> bool| {
        scores
            .iter()
            .enumerate()
            .all(|(i, value)| test(i / rows % rows, i % rows, *value))
    };
    Some(Kind {
        of_keys: all(&|_, key, value| same(value, last[key])),
        causal: all(&|query, key, value| match key > query {
            true => value <= BLOCKED,
            false => same(value, last[key]),
        }),
        blocks_keys: last.iter().any(|value| *value != 0.0),
    })
}

impl Keys {
    /// Wires `[1, keys] f32`, to be added to the scores.
    pub fn wire(&self, name: &str, patch: &mut TypedModel) -> TractResult<OutletId> {
        let mut wire = self.mask;
        let rank = patch.outlet_fact(wire)?.rank();
        for axis in (0..rank).rev().filter(|axis| *axis != self.axis) {
            let size = patch.outlet_fact(wire)?.shape[axis].clone();
            if size != 1.to_dim() {
                let one = match self.of_last {
                    true => Slice::new(axis, size.clone() - 1, size),
                    false => Slice::new(axis, 0, 1),
                };
                wire = patch.wire_node(format!("{name}.one.{axis}"), one, &[wire])?[0];
            }
            wire = patch.wire_node(format!("{name}.flat.{axis}"), AxisOp::Rm(axis), &[wire])?[0];
        }
        if let Use::Selects { kept_where, fill } = self.how {
            let values = if kept_where { [0.0, fill] } else { [fill, 0.0] };
            let [kept, other] = values.map(|value| tensor1(&[value.max(f32::MIN)]));
            let kept = patch.add_const(format!("{name}.where"), kept)?;
            let other = patch.add_const(format!("{name}.elsewhere"), other)?;
            wire = patch.wire_node(format!("{name}.select"), Iff, &[wire, kept, other])?[0];
        } else if patch.outlet_fact(wire)?.datum_type != f32::datum_type() {
            let to = cast(f32::datum_type());
            wire = patch.wire_node(format!("{name}.cast"), to, &[wire])?[0];
        }
        Ok(patch.wire_node(format!("{name}.row"), AxisOp::Add(0), &[wire])?[0])
    }
}

/// The sum of several key masks.
pub(super) fn wire_sum(
    name: &str,
    patch: &mut TypedModel,
    wires: &[OutletId],
) -> TractResult<OutletId> {
    let mut sum = wires[0];
    for (index, wire) in wires.iter().enumerate().skip(1) {
        sum = patch.wire_node(format!("{name}.sum.{index}"), add(), &[sum, *wire])?[0];
    }
    Ok(sum)
}
