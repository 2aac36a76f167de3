use std::num::NonZeroUsize;
use std::path::Path;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SymbolValues, TDim, ToDim, TypedSimplePlan};

use super::*;
use crate::encoder::int8::kernels::Isa;
use crate::encoder::int8::program::Program;
use crate::encoder::tract::graph::{image_input, text_inputs, typed};

const SIZE: usize = 32;
const LENGTH: usize = 12;

fn context() -> Arc<Context> {
    Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN))
}

fn parse(name: &str) -> InferenceModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/int8")
        .join(name);
    tract_onnx::onnx().model_for_path(path).unwrap()
}

/// The typed graph of a fixture, and a value for the number of tokens.
fn load(name: &str) -> (TypedModel, SymbolValues) {
    let model = parse(name);
    if is_vision(name) {
        let typed = typed(model, &[image_input(SIZE)]).unwrap();
        return (typed, SymbolValues::default());
    }
    let tokens = model.symbols.sym("tokens");
    // CLIP's position table has one length.
    let length: TDim = match name.starts_with("clip-text") {
        true => LENGTH.to_dim(),
        false => tokens.clone().into(),
    };
    let typed = typed(model, &text_inputs(length)).unwrap();
    (typed, SymbolValues::default().with(&tokens, 6))
}

fn is_vision(name: &str) -> bool {
    ["vit", "clip-vision", "siglip", "open-clip"]
        .iter()
        .any(|tower| name.starts_with(tower))
}

/// The inputs of `make.py`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "f64 rounded as make.py rounds it"
)]
fn inputs(name: &str) -> Vec<TVec<TValue>> {
    if is_vision(name) {
        return [0.0, 1.0]
            .into_iter()
            .map(|phase: f64| {
                let pixels: Vec<f32> = (0..3 * SIZE * SIZE)
                    .map(|i| i as f64)
                    .map(|i| 1.5 * (0.37 * i + phase).sin() * (0.011 * i * (1.0 + phase)).cos())
                    .map(|v| v as f32)
                    .collect();
                tvec!(
                    Tensor::from_shape(&[1, 3, SIZE, SIZE], &pixels)
                        .unwrap()
                        .into()
                )
            })
            .collect();
    }
    let mut long = vec![1_i64];
    long.extend((0..10).map(|i| (7 * i + 3) % 46 + 2));
    long.push(49);
    let short = vec![1, 9, 30, 17, 49, 0, 0, 0, 0, 0, 0, 0];
    [(long, 12), (short, 5)]
        .into_iter()
        .map(|(ids, used)| {
            let mask: Vec<i64> = (0..12).map(|i| i64::from(i < used)).collect();
            let row = |v: &[i64]| Tensor::from_shape(&[1, 12], v).unwrap().into();
            tvec!(row(&ids), row(&mask))
        })
        .collect()
}

fn run(model: &TypedModel, symbols: &SymbolValues, input: TVec<TValue>) -> Vec<f32> {
    let length = symbols
        .to_dim_map()
        .into_keys()
        .map(|s| (s, LENGTH.to_dim()))
        .collect();
    let plan = model
        .set_symbols(&length)
        .unwrap()
        .into_optimized()
        .unwrap();
    let plan = TypedSimplePlan::new(plan).unwrap();
    let output = plan.run(input).unwrap().remove(0);
    output
        .try_as_plain_ram()
        .unwrap()
        .as_slice::<f32>()
        .unwrap()
        .to_vec()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
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

fn program(name: &str, threads: usize) -> Program {
    let (model, symbols) = load(&format!("{name}.onnx"));
    let context = Arc::new(Context::new(
        Isa::detect(),
        NonZeroUsize::new(threads).unwrap(),
    ));
    let (model, _) = recognise(model, symbols.clone(), &context, &Options::default()).unwrap();
    let length = symbols
        .to_dim_map()
        .into_keys()
        .map(|s| (s, LENGTH.to_dim()))
        .collect();
    Program::new(model.set_symbols(&length).unwrap()).unwrap()
}

#[test]
fn a_batch_is_its_singles_bit_for_bit_with_any_number_of_threads() {
    for name in [
        "vit.script",
        "clip-text.dynamo",
        "bert.script",
        "siglip.dynamo",
    ] {
        let one = program(name, 1);
        let singles: Vec<Tensor> = inputs(name)
            .into_iter()
            .map(|input| one.run(vec![input]).unwrap().remove(0))
            .collect();
        let batch = inputs(name).into_iter().cycle().take(5).collect::<Vec<_>>();
        for threads in [1, 2, 3] {
            let outputs = program(name, threads).run(batch.clone()).unwrap();
            for (output, single) in outputs.iter().zip(singles.iter().cycle()) {
                assert_eq!(output, single, "{name} with {threads} threads");
            }
        }
    }
}

/// The pictures among the inputs of a vision tower.
fn pixels(inputs: &[TVec<TValue>]) -> Vec<&[f32]> {
    let all = inputs.iter().map(|input| input[0].try_as_plain_ram());
    all.map(|picture| picture.unwrap().as_slice().unwrap())
        .collect()
}

#[test]
fn pictures_are_read_where_they_lie_and_give_what_the_whole_graph_gives() {
    for (name, direct) in [
        ("vit.script", true),
        ("vit.dynamo", true),
        ("siglip.dynamo", true),
        // A cast stands between, of f32 to f32.
        ("clip-vision.script", false),
    ] {
        let program = program(name, 2);
        assert_eq!(program.takes_pictures(), direct, "{name}");
        let (model, symbols) = load(&format!("{name}.onnx"));
        let (graph, _) = recognise(model, symbols, &context(), &Options::default()).unwrap();
        let graph = TypedSimplePlan::new(graph.into_optimized().unwrap()).unwrap();
        let (inputs, square) = (inputs(name), [1, 3, SIZE, SIZE]);
        let pictures = pixels(&inputs);
        // More than one pass of patches takes, then fewer: what an earlier call left does not show.
        for count in [40, 2, 0, 1] {
            let some: Vec<&[f32]> = pictures.iter().copied().cycle().take(count).collect();
            let outputs = program.run_pictures(&square, &some).unwrap();
            assert_eq!(outputs.len(), count);
            for (output, input) in outputs.iter().zip(inputs.iter().cycle()) {
                let whole = graph.run(input.clone()).unwrap().remove(0).into_tensor();
                assert_eq!(output, &whole, "{name}");
            }
        }
        let flat = [1, 3, SIZE / 2, SIZE * 2];
        assert!(program.run_pictures(&flat, &pictures).is_err(), "{name}");
        let mixed = [pictures[0], &pictures[1][1..]];
        assert!(program.run_pictures(&square, &mixed).is_err(), "{name}");
        let flat = Tensor::from_shape(&flat, pictures[0]).unwrap();
        assert!(program.run(vec![tvec!(flat.into())]).is_err(), "{name}");
        assert!(program.run(vec![tvec!()]).is_err(), "{name}");
    }
}

#[test]
fn pictures_that_are_not_cut_into_patches_first_take_the_other_way() {
    let options = Options {
        float_patches: true,
        ..Options::default()
    };
    let (model, symbols) = load("vit.script.onnx");
    let (model, _) = recognise(model, symbols, &context(), &options).unwrap();
    let program = Program::new(model).unwrap();
    assert!(!program.takes_pictures() && program.is_fused());
    let inputs = inputs("vit.script");
    let pictures = pixels(&inputs);
    let outputs = program
        .run_pictures(&[1, 3, SIZE, SIZE], &pictures)
        .unwrap();
    assert_eq!(outputs, program.run(inputs).unwrap());
}

#[test]
fn what_is_masked_does_not_matter() {
    for name in ["bert.script", "xlm-roberta.script", "bert.dynamo"] {
        let program = program(name, 1);
        let mut short = inputs(name).remove(1);
        let plain = program.run(vec![short.clone()]).unwrap();
        let mut ids = (*short[0]).clone();
        ids.try_as_plain_ram_mut()
            .unwrap()
            .as_slice_mut::<i64>()
            .unwrap()[8] = 33;
        short[0] = ids.into();
        let output = program.run(vec![short]).unwrap();
        let [a, b] = [&plain[0], &output[0]].map(|t| t.try_as_plain_ram().unwrap());
        let [a, b] = [a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap()];
        assert!(cosine(a, b) > 0.999_99, "{name}: {}", cosine(a, b));
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
