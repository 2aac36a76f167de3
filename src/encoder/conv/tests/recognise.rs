//! What the recogniser takes, what it leaves, and that neither changes a result.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::Approximation;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::math::{add, div, max, min};
use tract_onnx::tract_core::ops::nn::{DataFormat, Reduce, Reducer};

use super::random::values;
use crate::encoder::conv::kernels::Kernels;
use crate::encoder::conv::recognise::{Report, replace_towers};

/// A graph under construction.
struct Graph {
    model: TypedModel,
    seed: u64,
}

/// Geometry of a convolution.
struct Geometry {
    size: usize,
    stride: usize,
    dilation: usize,
    group: usize,
    padding: PaddingSpec,
}

fn geometry(size: usize, stride: usize, group: usize) -> Geometry {
    Geometry {
        size,
        stride,
        dilation: 1,
        group,
        padding: PaddingSpec::SameUpper,
    }
}

impl Graph {
    fn new(shape: [usize; 4]) -> (Self, OutletId) {
        let mut model = TypedModel::default();
        let input = model.add_source("input", f32::fact(shape)).unwrap();
        (Self { model, seed: 1 }, input)
    }

    fn constant(&mut self, shape: &[usize]) -> OutletId {
        self.seed += 1;
        let len = shape.iter().product();
        let tensor = Tensor::from_shape(shape, &values(self.seed, len)).unwrap();
        let name = format!("constant.{}", self.seed);
        self.model.add_const(name, tensor).unwrap()
    }

    fn conv(&mut self, name: &str, from: OutletId, outputs: usize, g: Geometry) -> OutletId {
        let inputs = self
            .model
            .outlet_fact(from)
            .unwrap()
            .shape
            .as_concrete()
            .unwrap()[1];
        let weights = self.constant(&[outputs, inputs / g.group, g.size, g.size]);
        let bias = self.constant(&[outputs]);
        let spec = PoolSpec::new(
            DataFormat::NCHW,
            tvec![g.size; 2],
            g.padding,
            Some(tvec![g.dilation; 2]),
            Some(tvec![g.stride; 2]),
            inputs,
            outputs,
        );
        let conv = Conv::new(spec, KernelFormat::OIHW, g.group, None);
        self.model
            .wire_node(name, conv, &[from, weights, bias])
            .unwrap()[0]
    }

    fn with_scalar(&mut self, op: TypedBinOp, from: OutletId, value: f32) -> OutletId {
        self.seed += 1;
        let tensor = Tensor::from_shape(&[1, 1, 1, 1], &[value]).unwrap();
        let scalar = self
            .model
            .add_const(format!("scalar.{}", self.seed), tensor)
            .unwrap();
        let name = format!("{}.{}", op.0.name(), self.seed);
        self.model.wire_node(name, op, &[from, scalar]).unwrap()[0]
    }

    fn relu6(&mut self, from: OutletId) -> OutletId {
        let low = self.with_scalar(max(), from, 0.0);
        self.with_scalar(min(), low, 6.0)
    }

    fn add(&mut self, a: OutletId, b: OutletId) -> OutletId {
        self.seed += 1;
        let name = format!("add.{}", self.seed);
        self.model.wire_node(name, add(), &[a, b]).unwrap()[0]
    }

    fn mean(&mut self, from: OutletId) -> OutletId {
        let shape = self.model.outlet_fact(from).unwrap().shape.clone();
        let shape = shape.as_concrete().unwrap();
        let pixels = u16::try_from(shape[2] * shape[3]).unwrap();
        let sum = Reduce::new(tvec![2, 3], Reducer::Sum);
        let sum = self.model.wire_node("sum", sum, &[from]).unwrap()[0];
        self.with_scalar(div(), sum, f32::from(pixels))
    }

    /// Runs the graph as it is and with towers replaced, and compares all outputs.
    fn check(mut self, outputs: &[OutletId]) -> (Report, TypedModel) {
        self.model.select_output_outlets(outputs).unwrap();
        let mut replaced = self.model.clone();
        let report = replace_towers(&mut replaced, Kernels::best()).unwrap();
        let fact = self.model.input_fact(0).unwrap().clone();
        let shape = fact.shape.as_concrete().unwrap();
        let input = values(99, shape.iter().product());
        let input = Tensor::from_shape(shape, &input).unwrap();
        let run = |model: TypedModel| {
            let plan = model.into_optimized().unwrap().into_runnable().unwrap();
            plan.run(tvec!(input.clone().into())).unwrap()
        };
        let expected = run(self.model);
        for (ours, tract) in run(replaced.clone()).iter().zip(&expected) {
            assert_eq!(ours.shape(), tract.shape());
            ours.close_enough(tract, Approximation::Approximate)
                .unwrap();
        }
        (report, replaced)
    }
}

#[test]
fn a_whole_tower_becomes_one_node_and_gives_what_it_gave() {
    let (mut graph, input) = Graph::new([2, 3, 23, 30]);
    let stem = graph.conv("stem", input, 20, geometry(3, 2, 1));
    let stem = graph.relu6(stem);
    let wide = graph.conv("expand", stem, 52, geometry(1, 1, 1));
    let wide = graph.relu6(wide);
    let wide = graph.conv("filter", wide, 52, geometry(5, 1, 52));
    let wide = graph.relu6(wide);
    let narrow = graph.conv("project", wide, 20, geometry(1, 1, 1));
    let sum = graph.add(stem, narrow);
    let down = graph.conv("down", sum, 20, geometry(3, 2, 20));
    let down = graph.with_scalar(max(), down, 0.0);
    let mean = graph.mean(down);
    let (report, model) = graph.check(&[mean]);
    assert_eq!((report.taken, report.left), (5, vec![]));
    assert_eq!(model.nodes().len(), 2, "{model:?}");
}

#[test]
fn a_value_that_others_read_ends_the_segment_and_another_begins() {
    let (mut graph, input) = Graph::new([1, 3, 12, 12]);
    let first = graph.conv("first", input, 20, geometry(3, 1, 1));
    let seen = graph.relu6(first);
    let second = graph.conv("second", seen, 9, geometry(1, 1, 1));
    let (report, _) = graph.check(&[seen, second]);
    assert_eq!((report.taken, report.left), (2, vec![]));
}

#[test]
fn a_clip_is_not_merged_into_a_value_that_is_read_unclipped() {
    let (mut graph, input) = Graph::new([1, 3, 12, 12]);
    let first = graph.conv("first", input, 20, geometry(3, 1, 1));
    let clipped = graph.relu6(first);
    let sum = graph.add(first, clipped);
    let (report, _) = graph.check(&[sum]);
    assert_eq!(report.taken, 1);
}

#[test]
fn a_clip_after_a_sum_stays_in_its_place() {
    let (mut graph, input) = Graph::new([1, 3, 9, 9]);
    let a = graph.conv("a", input, 8, geometry(3, 1, 1));
    let b = graph.conv("b", a, 8, geometry(1, 1, 1));
    let sum = graph.add(a, b);
    let clipped = graph.relu6(sum);
    let last = graph.conv("last", clipped, 8, geometry(1, 1, 1));
    let (report, _) = graph.check(&[last]);
    assert_eq!((report.taken, report.left), (3, vec![]));
}

#[test]
fn what_no_kernel_computes_is_untouched_and_named() {
    let (mut graph, input) = Graph::new([1, 4, 16, 16]);
    let patches = graph.conv("stride of four", input, 8, geometry(4, 4, 1));
    let grouped = graph.conv("two groups", patches, 8, geometry(3, 1, 2));
    let dilated = Geometry {
        dilation: 2,
        ..geometry(3, 1, 1)
    };
    let dilated = graph.conv("dilated", grouped, 8, dilated);
    let alone = graph.conv("depthwise on planes", dilated, 8, geometry(3, 1, 8));
    let before = graph.model.nodes().len();
    let (report, model) = graph.check(&[alone]);
    assert_eq!(report.taken, 0);
    let names = [
        "stride of four",
        "two groups",
        "dilated",
        "depthwise on planes",
    ];
    assert_eq!(report.left, names);
    assert_eq!(model.nodes().len(), before);
}

#[test]
fn a_division_by_anything_but_the_number_of_pixels_is_no_mean() {
    let (mut graph, input) = Graph::new([1, 3, 6, 6]);
    let conv = graph.conv("conv", input, 8, geometry(3, 1, 1));
    let sum = Reduce::new(tvec![2, 3], Reducer::Sum);
    let sum = graph.model.wire_node("sum", sum, &[conv]).unwrap()[0];
    let scaled = graph.with_scalar(div(), sum, 35.0);
    let (report, model) = graph.check(&[scaled]);
    assert_eq!(report.taken, 1);
    let kept = |node: &&TypedNode| node.op_as::<Reduce>().is_some();
    assert_eq!(model.nodes().iter().filter(kept).count(), 1);
}
