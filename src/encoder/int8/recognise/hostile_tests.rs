//! Graphs made to keep a matcher busy: what is not understood is left alone, soon.

use std::num::NonZeroUsize;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer, Softmax};

use super::*;
use crate::encoder::int8::kernels::Isa;

const WIDTH: usize = 8;

struct Graph {
    model: TypedModel,
    x: OutletId,
    count: usize,
}

impl Graph {
    fn new() -> Self {
        let mut model = TypedModel::default();
        let x = model
            .add_source("x", f32::datum_type().fact([1, 4, WIDTH]))
            .unwrap();
        Self { model, x, count: 0 }
    }

    fn node(&mut self, op: impl Into<Box<dyn TypedOp>>, inputs: &[OutletId]) -> OutletId {
        self.count += 1;
        self.model
            .wire_node(format!("n{}", self.count), op, inputs)
            .unwrap()[0]
    }

    fn constant(&mut self, shape: &[usize], value: f32) -> OutletId {
        let mut tensor = Tensor::zero::<f32>(shape).unwrap();
        tensor.fill_t(value).unwrap();
        self.count += 1;
        self.model
            .add_const(format!("c{}", self.count), tensor)
            .unwrap()
    }

    fn linear(&mut self, x: OutletId, value: f32) -> OutletId {
        let weights = self.constant(&[1, WIDTH, WIDTH], value);
        let product = EinSum::new("amk,akn->amn".parse().unwrap(), f32::datum_type());
        self.node(product, &[x, weights])
    }

    /// Recognises with `output` selected.
    fn finish(mut self, output: OutletId) -> TractResult<Report> {
        self.model.select_output_outlets(&[output]).unwrap();
        let context = Arc::new(Context::new(Isa::Scalar, NonZeroUsize::MIN));
        let symbols = SymbolValues::default();
        Ok(recognise(self.model, symbols, &context, &Options::default())?.1)
    }
}

#[test]
fn a_product_of_a_billion_factors_is_left_alone() {
    let mut g = Graph::new();
    let mut wire = g.x;
    for _ in 0..60 {
        wire = g.node(math::mul(), &[wire, wire]);
    }
    let beta = g.constant(&[1, 1, WIDTH], 0.5);
    wire = g.node(math::add(), &[wire, beta]);
    assert!(g.finish(wire).unwrap().found.is_empty());
}

#[test]
fn an_activation_of_a_thousand_operators_is_left_alone() {
    let mut g = Graph::new();
    let mut wire = g.linear(g.x, 0.1);
    for _ in 0..1000 {
        wire = g.node(math::tanh(), &[wire]);
    }
    wire = g.linear(wire, 0.1);
    wire = g.node(math::add(), &[g.x, wire]);
    let report = g.finish(wire).unwrap();
    assert!(report.found.is_empty());
    assert_eq!(report.left.len(), 2);
}

#[test]
fn a_constant_at_the_end_of_a_long_chain_is_no_weight() {
    let mut g = Graph::new();
    let mut weights = g.constant(&[1, WIDTH, WIDTH], 0.1);
    for _ in 0..3000 {
        weights = g.node(math::neg(), &[weights]);
    }
    let product = EinSum::new("amk,akn->amn".parse().unwrap(), f32::datum_type());
    let mut wire = g.node(product, &[g.x, weights]);
    wire = g.node(math::add(), &[g.x, wire]);
    assert!(g.finish(wire).unwrap().found.is_empty());
}

#[test]
fn masks_upon_masks_are_left_alone() {
    let mut g = Graph::new();
    let scores = EinSum::new("amk,ank->amn".parse().unwrap(), f32::datum_type());
    let mut wire = g.node(scores, &[g.x, g.x]);
    for _ in 0..40 {
        wire = g.node(math::add(), &[wire, wire]);
    }
    let softmax = Softmax {
        axes: tvec![2],
        ..Softmax::default()
    };
    wire = g.node(softmax, &[wire]);
    let context = EinSum::new("amk,akn->amn".parse().unwrap(), f32::datum_type());
    wire = g.node(context, &[wire, g.x]);
    wire = g.linear(wire, 0.1);
    wire = g.node(math::add(), &[g.x, wire]);
    assert!(g.finish(wire).unwrap().found.is_empty());
}

/// `x + down(relu(up(norm(x))))` with these weights.
fn pre_norm(value: f32) -> TractResult<Report> {
    let mut g = Graph::new();
    let count = g.constant(&[1, 1, 1], 1.0 / 8.0);
    let epsilon = g.constant(&[1, 1, 1], 1e-5);
    let zero = g.constant(&[1, 1, 1], 0.0);
    let sum = || Reduce::new(tvec![2], Reducer::Sum);
    let mut mean = g.node(sum(), &[g.x]);
    mean = g.node(math::mul(), &[mean, count]);
    let centred = g.node(math::sub(), &[g.x, mean]);
    let mut deviation = g.node(math::square(), &[centred]);
    deviation = g.node(sum(), &[deviation]);
    deviation = g.node(math::mul(), &[deviation, count]);
    deviation = g.node(math::add(), &[deviation, epsilon]);
    deviation = g.node(math::sqrt(), &[deviation]);
    let mut wire = g.node(math::div(), &[centred, deviation]);
    wire = g.linear(wire, value);
    wire = g.node(math::max(), &[wire, zero]);
    wire = g.linear(wire, 0.1);
    wire = g.node(math::add(), &[wire, g.x]);
    g.finish(wire)
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    assert_eq!(pre_norm(0.1).unwrap().found.len(), 1);
    for value in [f32::NAN, f32::INFINITY] {
        let problem = format!("{:#}", pre_norm(value).unwrap_err());
        assert!(problem.contains("not finite"), "{problem}");
    }
}
