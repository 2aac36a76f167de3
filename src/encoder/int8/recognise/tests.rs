use std::path::Path;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SymbolValues, TypedSimplePlan};

use super::fixtures::*;
use super::*;
use crate::encoder::tract::graph::{image_input, text_inputs, typed};

fn run(model: &TypedModel, symbols: &SymbolValues, input: TVec<TValue>) -> Vec<f32> {
    let plan = of_length(model, symbols).into_optimized().unwrap();
    let plan = TypedSimplePlan::new(plan).unwrap();
    let output = plan.run(input).unwrap().remove(0);
    output
        .try_as_plain_ram()
        .unwrap()
        .as_slice::<f32>()
        .unwrap()
        .to_vec()
}

/// `sublayers` by fused operator.
fn check(name: &str, sublayers: &[usize]) {
    let references: serde_json::Value = serde_json::from_str(include_str!(
        "../../../../tests/fixtures/int8/reference.json"
    ))
    .unwrap();
    let references: Vec<Vec<f32>> = serde_json::from_value(references[name].clone()).unwrap();
    let (model, symbols) = load(&format!("{name}.onnx"));
    let (model, report) =
        recognise(model, symbols.clone(), &context(), &Options::default()).unwrap();
    let mut worst: f32 = 1.0;
    for (input, reference) in inputs(name).into_iter().zip(&references) {
        let output = run(&model, &symbols, input);
        worst = worst.min(cosine(&output, reference));
    }
    assert_eq!(
        report.found.len(),
        sublayers.iter().sum::<usize>(),
        "{name}: {report:#?}"
    );
    assert_eq!(fused(&model), sublayers, "{name}");
    assert!(worst > 0.999, "{name}: {worst}");
}

/// Sublayers of each fused operator.
fn fused(model: &TypedModel) -> Vec<usize> {
    let operators = model
        .nodes()
        .iter()
        .filter_map(|node| node.op_as::<Sublayers>());
    operators.map(|op| op.sublayers().len()).collect()
}

macro_rules! towers {
    ($($test:ident: $name:literal, $sublayers:tt;)*) => {
        $(#[test] fn $test() { check($name, &$sublayers); })*
    };
}

towers! {
    vit_by_the_old_exporter: "vit.script", [4];
    vit_by_the_new_exporter: "vit.dynamo", [2];
    clip_vision_by_the_old_exporter: "clip-vision.script", [4];
    clip_vision_by_the_new_exporter: "clip-vision.dynamo", [2];
    siglip_by_the_old_exporter: "siglip.script", [4, 1];
    siglip_by_the_new_exporter: "siglip.dynamo", [2, 1];
    open_clip_by_the_old_exporter: "open-clip.script", [4];
    open_clip_by_the_new_exporter: "open-clip.dynamo", [2];
    bert_by_the_old_exporter: "bert.script", [4];
    bert_by_the_new_exporter: "bert.dynamo", [2];
    xlm_roberta_by_the_old_exporter: "xlm-roberta.script", [4];
    clip_text_by_the_old_exporter: "clip-text.script", [4];
    clip_text_by_the_new_exporter: "clip-text.dynamo", [2];
}

#[test]
fn the_products_that_are_left_are_named() {
    let (model, symbols) = load("clip-vision.script.onnx");
    let (_, report) = recognise(model, symbols, &context(), &Options::default()).unwrap();
    // 17 tokens, two layers of four matrices of 32 × 32 and two of 32 × 64, 16 patches of 192.
    assert_eq!(
        report.int8_macs(),
        17 * 2 * (4 * 32 * 32 + 2 * 32 * 64) + 16 * 192 * 32
    );
    let left: Vec<_> = report
        .left
        .iter()
        .map(|left| (left.reason, left.macs))
        .collect();
    assert_eq!(left, [(Reason::Linear, 32 * 16)]);
    assert_eq!(report.float_macs(), 32 * 16);
    let text = report.to_string();
    assert!(
        text.contains("4 of 4 sublayers in int8") && text.contains(&report.left[0].name),
        "{text}"
    );
}

#[test]
fn what_is_kept_float_stays_as_it_is() {
    let name = "bert.script";
    let (float, symbols) = load("bert.script.onnx");
    let all = Options {
        keep_float: (0..4).collect(),
        float_patches: true,
        float_tables: true,
    };
    let (model, report) = recognise(float.clone(), symbols.clone(), &context(), &all).unwrap();
    assert!(report.found.iter().all(|found| found.kept_float), "{name}");
    assert_eq!(report.int8_macs(), 0);
    for input in inputs(name) {
        assert_eq!(
            run(&model, &symbols, input.clone()),
            run(&float, &symbols, input)
        );
    }
    let one = Options {
        keep_float: [1].into(),
        ..Options::default()
    };
    let (model, _) = recognise(float, symbols, &context(), &one).unwrap();
    assert_eq!(fused(&model), [1, 2]);
}

#[test]
fn a_convolutional_tower_is_left_alone_and_says_so() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/image.onnx");
    let model = tract_onnx::onnx().model_for_path(path).unwrap();
    let model = typed(model, &[image_input(224)]).unwrap();
    let symbols = SymbolValues::default();
    let (_, report) = recognise(model, symbols, &context(), &Options::default()).unwrap();
    assert!(report.found.is_empty());
    assert_eq!(report.int8_macs(), 0);
    assert!(report.float_macs() > 300_000_000, "{report}");
    assert!(
        report
            .left
            .iter()
            .any(|left| left.reason == Reason::Convolution)
    );
}

#[test]
fn the_demo_text_tower_is_recognised() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/text.onnx");
    let model = tract_onnx::onnx().model_for_path(path).unwrap();
    let tokens = model.symbols.sym("tokens");
    let symbols = SymbolValues::default().with(&tokens, 6);
    let float = typed(model, &text_inputs(tokens)).unwrap();
    let (model, report) = recognise(
        float.clone(),
        symbols.clone(),
        &context(),
        &Options::default(),
    )
    .unwrap();
    assert!(report.found.len() >= 2, "{report}");
    assert_eq!(fused(&model), [report.found.len()]);
    for input in inputs("demo") {
        let (a, b) = (
            run(&float, &symbols, input.clone()),
            run(&model, &symbols, input),
        );
        assert!(cosine(&a, &b) > 0.999, "{}", cosine(&a, &b));
    }
}

/// `y = f(x)` of each value as a chain of operators, for an activation that is none.
#[test]
fn another_activation_is_left_alone() {
    use tract_onnx::tract_core::ops::{einsum::EinSum, math};
    let mut model = TypedModel::default();
    let x = model
        .add_source("x", f32::datum_type().fact([1, 6, 32]))
        .unwrap();
    let matrix = |n: usize, k: usize| {
        let values: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.7).sin() * 0.2).collect();
        Tensor::from_shape(&[1, k, n], &values).unwrap()
    };
    let product = || EinSum::new("amk,akn->amn".parse().unwrap(), f32::datum_type());
    let up = model.add_const("up", matrix(48, 32)).unwrap();
    let down = model.add_const("down", matrix(32, 48)).unwrap();
    let mut wire = model.wire_node("a", product(), &[x, up]).unwrap()[0];
    wire = model.wire_node("b", math::sin(), &[wire]).unwrap()[0];
    wire = model.wire_node("c", product(), &[wire, down]).unwrap()[0];
    wire = model.wire_node("d", math::add(), &[x, wire]).unwrap()[0];
    model.select_output_outlets(&[wire]).unwrap();
    let symbols = SymbolValues::default();
    let (after, report) =
        recognise(model.clone(), symbols, &context(), &Options::default()).unwrap();
    assert!(report.found.is_empty());
    assert_eq!(report.left.len(), 2);
    assert_eq!(after.nodes().len(), model.nodes().len());
}
