use std::num::NonZeroUsize;
use std::path::Path;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SymbolValues, TDim, ToDim};

use super::*;
use crate::encoder::int8::kernels::Isa;
use crate::encoder::tract::graph::{Input, typed};

const SIZE: usize = 32;
const LENGTH: usize = 12;

fn context() -> Arc<Context> {
    Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN))
}

fn parse(name: &str) -> InferenceModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/int8").join(name);
    tract_onnx::onnx().model_for_path(path).unwrap()
}

/// The typed graph of a fixture, and a value for the number of tokens.
fn load(name: &str) -> (TypedModel, SymbolValues) {
    let model = parse(name);
    if is_vision(name) {
        let shape = [1, 3, SIZE, SIZE].map(|d| d.to_dim()).to_vec();
        let input = Input {
            name: "pixel_values",
            kind: f32::datum_type(),
            shape,
        };
        return (typed(model, &[input]).unwrap(), SymbolValues::default());
    }
    let tokens = model.symbols.sym("tokens");
    let length: TDim = match name.starts_with("clip-text") {
        true => LENGTH.to_dim(),
        false => tokens.clone().into(),
    };
    let input = |name| Input {
        name,
        kind: i64::datum_type(),
        shape: vec![1.to_dim(), length.clone()],
    };
    let inputs = [input("input_ids"), input("attention_mask")];
    (typed(model, &inputs).unwrap(), SymbolValues::default().with(&tokens, 6))
}

fn is_vision(name: &str) -> bool {
    ["vit", "clip-vision", "siglip", "open-clip"].iter().any(|tower| name.starts_with(tower))
}

/// The inputs of `make.py`.
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
                tvec!(Tensor::from_shape(&[1, 3, SIZE, SIZE], &pixels).unwrap().into())
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
    let length = symbols.to_dim_map().into_keys().map(|s| (s, LENGTH.to_dim())).collect();
    let plan = model.set_symbols(&length).unwrap().into_optimized().unwrap();
    let plan = TypedSimplePlan::new(plan).unwrap();
    let output = plan.run(input).unwrap().remove(0);
    output.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn check(name: &str, sublayers: usize) {
    let references: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/fixtures/int8/reference.json")).unwrap();
    let references: Vec<Vec<f32>> = serde_json::from_value(references[name].clone()).unwrap();
    let (model, symbols) = load(&format!("{name}.onnx"));
    let float = model.clone();
    let (model, report) =
        recognise(model, symbols.clone(), &context(), &Options::default()).unwrap();
    println!("{name}: {report}");
    let mut worst: f32 = 1.0;
    for (input, reference) in inputs(name).into_iter().zip(&references) {
        let tract = run(&float, &symbols, input.clone());
        println!("   float {}", cosine(&tract, reference));
        let output = run(&model, &symbols, input);
        worst = worst.min(cosine(&output, reference));
    }
    println!("   int8 {worst}");
    assert_eq!(report.found.len(), sublayers, "{name}: {report:#?}");
    let fused = model.nodes().iter().filter(|node| node.op_is::<Sublayers>()).count();
    assert_eq!(fused, 1, "{name}: the sublayers are not one operator");
    assert!(worst > 0.999, "{name}: {worst}");
}

macro_rules! towers {
    ($($test:ident: $name:literal, $sublayers:literal;)*) => {
        $(#[test] fn $test() { check($name, $sublayers); })*
    };
}

towers! {
    vit_by_the_old_exporter: "vit.script", 4;
    vit_by_the_new_exporter: "vit.dynamo", 2;
    clip_vision_by_the_old_exporter: "clip-vision.script", 4;
    clip_vision_by_the_new_exporter: "clip-vision.dynamo", 2;
    siglip_by_the_old_exporter: "siglip.script", 4;
    siglip_by_the_new_exporter: "siglip.dynamo", 2;
    open_clip_by_the_old_exporter: "open-clip.script", 4;
    open_clip_by_the_new_exporter: "open-clip.dynamo", 2;
    bert_by_the_old_exporter: "bert.script", 4;
    bert_by_the_new_exporter: "bert.dynamo", 2;
    xlm_roberta_by_the_old_exporter: "xlm-roberta.script", 4;
    xlm_roberta_by_the_new_exporter: "xlm-roberta.dynamo", 2;
    clip_text_by_the_old_exporter: "clip-text.script", 4;
    clip_text_by_the_new_exporter: "clip-text.dynamo", 2;
}
