use std::num::NonZeroUsize;

use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::Reducer;

use super::*;
use crate::encoder::int8::kernels::{Context, Isa};
use crate::encoder::int8::sublayer::tests::{WIDTH, body, layers, plain_norm, waves};
use crate::encoder::int8::sublayer::{Body, Placement, Sublayer};

const TOKENS: usize = 6;

/// An attention and a feed-forward sublayer.
fn sublayers() -> Sublayers {
    let all = [Body::Attention(body()), Body::FeedForward(layers())];
    let all = all.map(|body| Arc::new(Sublayer::new(plain_norm(), Placement::Pre, body).unwrap()));
    let context = Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN));
    Sublayers::new(context, all.to_vec())
}

/// Fused sublayers over sequences of [`TOKENS`], and what `rest` makes of them. Returns which token is
/// computed alone.
fn narrowed(
    sequences: usize,
    rest: impl Fn(&mut TypedModel, OutletId) -> TractResult<TVec<OutletId>>,
) -> Option<Wanted> {
    let shape = [sequences, TOKENS, WIDTH];
    let mut model = TypedModel::default();
    let x = model
        .add_source("x", f32::datum_type().fact(shape))
        .unwrap();
    let fused = model.wire_node("fused", sublayers(), &[x]).unwrap()[0];
    let outputs = rest(&mut model, fused).unwrap();
    model.select_output_outlets(&outputs).unwrap();
    let mut after = model.clone();
    narrow(&mut after).unwrap();
    let values = waves(sequences * TOKENS * WIDTH, 0.9, 1.0);
    let input = Tensor::from_shape(&shape, &values).unwrap();
    let run = |model: &TypedModel| {
        let plan = TypedSimplePlan::new(model.clone()).unwrap();
        plan.run(tvec!(input.clone().into_tvalue())).unwrap()
    };
    assert_eq!(run(&model), run(&after));
    let mut wanted = after
        .nodes()
        .iter()
        .filter_map(|node| node.op_as::<Sublayers>());
    wanted.next().unwrap().wanted()
}

fn token(model: &mut TypedModel, from: OutletId, axis: usize, at: usize) -> TractResult<OutletId> {
    let name = format!("token.{}.{}.{axis}.{at}", from.node, model.nodes().len());
    Ok(model.wire_node(name, Slice::new(axis, at, at + 1), &[from])?[0])
}

/// Divides by the root of the squares' mean, then multiplies: a normalisation of each token.
fn normalised(model: &mut TypedModel, x: OutletId, gains: &[usize]) -> TractResult<OutletId> {
    let squares = model.wire_node("squares", math::square(), &[x])?[0];
    let reduce = Reduce::new(tvec!(2), Reducer::Sum);
    let sum = model.wire_node("sum", reduce, &[squares])?[0];
    let root = model.wire_node("root", math::rsqrt(), &[sum])?[0];
    let scaled = model.wire_node("scaled", math::mul(), &[x, root])?[0];
    let values = waves(gains.iter().product(), 0.2, 1.0);
    let gains = model.add_const("gains", Tensor::from_shape(gains, &values)?)?;
    Ok(model.wire_node("gained", math::mul(), &[scaled, gains])?[0])
}

#[test]
fn a_token_that_is_all_that_is_taken_is_computed_alone() {
    let at = |axis, token| Some(Wanted { axis, token });
    let slice = narrowed(1, |model, x| Ok(tvec!(token(model, x, 1, 2)?)));
    assert_eq!(slice, at(1, 2));
    let gather = narrowed(1, |model, x| {
        let index = model.add_const("index", Tensor::from(5_i64))?;
        model.wire_node("gather", Gather::new(1), &[x, index])
    });
    assert_eq!(gather, at(1, 5));
    let last = narrowed(1, |model, x| {
        let index = model.add_const("index", Tensor::from(-1_i64))?;
        model.wire_node("gather", Gather::new(1), &[x, index])
    });
    assert_eq!(last, at(1, 5));
    let twice = narrowed(1, |model, x| {
        let both = [token(model, x, 1, 4)?, token(model, x, 1, 4)?];
        model.wire_node("sum", math::add(), &both)
    });
    assert_eq!(twice, at(1, 4));
    let normalised = narrowed(1, |model, x| {
        let x = normalised(model, x, &[1, 1, WIDTH])?;
        Ok(tvec!(token(model, x, 1, 0)?))
    });
    assert_eq!(normalised, at(1, 0));
    let moved = narrowed(1, |model, x| {
        let x = model.wire_node("moved", AxisOp::Move(1, 2), &[x])?[0];
        Ok(tvec!(token(model, x, 2, 3)?))
    });
    assert_eq!(moved, at(1, 3));
}

#[test]
fn where_other_tokens_matter_all_are_computed() {
    let whole = narrowed(1, |_, x| Ok(tvec!(x)));
    assert_eq!(whole, None);
    let also = narrowed(1, |model, x| Ok(tvec!(token(model, x, 1, 0)?, x)));
    assert_eq!(also, None);
    let channel = narrowed(1, |model, x| Ok(tvec!(token(model, x, 2, 0)?)));
    assert_eq!(channel, None);
    let two = narrowed(1, |model, x| {
        model.wire_node("two", Slice::new(1, 0, 2), &[x])
    });
    assert_eq!(two, None);
    let different = narrowed(1, |model, x| {
        let both = [token(model, x, 1, 0)?, token(model, x, 1, 1)?];
        model.wire_node("sum", math::add(), &both)
    });
    assert_eq!(different, None);
    let mean = narrowed(1, |model, x| {
        let reduce = Reduce::new(tvec!(1), Reducer::Sum);
        let sum = model.wire_node("sum", reduce, &[x])?[0];
        Ok(tvec!(token(model, sum, 1, 0)?))
    });
    assert_eq!(mean, None);
    let places = narrowed(1, |model, x| {
        let x = normalised(model, x, &[1, TOKENS, WIDTH])?;
        Ok(tvec!(token(model, x, 1, 0)?))
    });
    assert_eq!(places, None);
    let reshaped = narrowed(1, |model, x| {
        let halves = AxisOp::Reshape(1, tvec!(TOKENS.to_dim()), tvec!(2.to_dim(), 3.to_dim()));
        let x = model.wire_node("halves", halves, &[x])?[0];
        Ok(tvec!(token(model, x, 1, 0)?))
    });
    assert_eq!(reshaped, None);
    let crossed = narrowed(1, |model, x| {
        let row = model.wire_node("row", AxisOp::Add(1), &[x])?[0];
        let column = model.wire_node("column", AxisOp::Add(2), &[x])?[0];
        let pairs = model.wire_node("pairs", math::mul(), &[row, column])?[0];
        Ok(tvec!(token(model, pairs, 1, 0)?))
    });
    assert_eq!(crossed, None);
    // A choice that goes back into what it was taken from.
    let gated = narrowed(1, |model, x| {
        let first = token(model, x, 1, 0)?;
        let sum = model.wire_node("sum", math::add(), &[x, first])?[0];
        Ok(tvec!(token(model, sum, 1, 0)?))
    });
    assert_eq!(gated, None);
    // All leading axes together are the tokens of one sequence.
    let sequences = narrowed(2, |model, x| Ok(tvec!(token(model, x, 1, 0)?)));
    assert_eq!(sequences, None);
}
