//! The towers that `tests/fixtures/int8/make.py` exports, and what it runs them on.

use std::num::NonZeroUsize;
use std::path::Path;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SymbolValues, TDim, ToDim};

use super::*;
use crate::encoder::int8::kernels::Isa;
use crate::encoder::tract::graph::{image_input, text_inputs, typed};

/// Pixels of a side.
pub const SIZE: usize = 32;
/// Tokens of a text.
pub const LENGTH: usize = 12;

pub fn context() -> Arc<Context> {
    Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN))
}

pub fn parse(name: &str) -> InferenceModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/int8")
        .join(name);
    tract_onnx::onnx().model_for_path(path).unwrap()
}

/// The typed graph of a fixture, and a value for the number of tokens.
pub fn load(name: &str) -> (TypedModel, SymbolValues) {
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

/// The graph for texts of [`LENGTH`]; that of a vision tower as it is.
pub fn of_length(model: &TypedModel, symbols: &SymbolValues) -> TypedModel {
    let tokens = symbols.to_dim_map().into_keys();
    let lengths = tokens.map(|symbol| (symbol, LENGTH.to_dim())).collect();
    model.set_symbols(&lengths).unwrap()
}

pub fn is_vision(name: &str) -> bool {
    ["vit", "clip-vision", "siglip", "open-clip"]
        .iter()
        .any(|tower| name.starts_with(tower))
}

/// The inputs of `make.py`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "f64 rounded as make.py rounds it"
)]
pub fn inputs(name: &str) -> Vec<TVec<TValue>> {
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

pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
