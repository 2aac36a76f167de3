//! Joins neighbouring fused operators, so that a tower's sublayers are one operator and their
//! values stay in its buffers.

use tract_onnx::tract_core::internal::*;

use crate::encoder::int8::op::Sublayers;

/// Joins until nothing is left to join.
pub(super) fn merge(model: &mut TypedModel) -> TractResult<()> {
    while let Some(patch) = next(model)? {
        patch.apply(model)?;
        model.compact()?;
    }
    Ok(())
}

fn next(model: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
    for node in model.nodes() {
        let Some(second) = node.op_as::<Sublayers>() else {
            continue;
        };
        let before = node.inputs[0];
        let previous = model.node(before.node);
        let Some(first) = previous.op_as::<Sublayers>() else {
            continue;
        };
        let used_once = model.outlet_successors(before).len() == 1
            && !model.output_outlets()?.contains(&before);
        let masks = [previous.inputs.get(1), node.inputs.get(1)];
        let mask = match masks {
            [Some(a), Some(b)] if a != b => continue,
            [a, b] => a.or(b),
        };
        if !used_once {
            continue;
        }
        let mut inputs = vec![previous.inputs[0]];
        inputs.extend(mask);
        let joined = first.then(second);
        let mut patch = TypedModelPatch::new("join int8 sublayers");
        let taps = patch.taps(model, &inputs)?;
        let wire = patch.wire_node(&node.name, joined, &taps)?[0];
        patch.shunt_outside(model, node.id.into(), wire)?;
        return Ok(Some(patch));
    }
    Ok(None)
}
