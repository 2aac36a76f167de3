use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{SymbolValues, ToDim};

use super::*;
use crate::bundle::Shared;
use crate::encoder::int8::kernels::{Context, Isa};
use crate::encoder::int8::program::Program;
use crate::encoder::int8::recognise::{Options, recognise};
use crate::encoder::tract::graph::{image_input, text_inputs, typed};

fn context() -> Arc<Context> {
    Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN))
}

fn recognised(name: &str) -> TypedModel {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/int8");
    let model = tract_onnx::onnx()
        .model_for_path(folder.join(name))
        .unwrap();
    let (model, symbols) = if name.starts_with("vit") {
        (
            typed(model, &[image_input(32)]).unwrap(),
            SymbolValues::default(),
        )
    } else {
        let tokens = model.symbols.sym("tokens");
        let symbols = SymbolValues::default().with(&tokens, 6);
        (typed(model, &text_inputs(tokens)).unwrap(), symbols)
    };
    recognise(model, symbols, &context(), &Options::default())
        .unwrap()
        .0
}

fn packed(model: &TypedModel) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(model, &mut bytes).unwrap();
    bytes
}

fn shared(bytes: Vec<u8>) -> Shared {
    Arc::new(bytes)
}

fn problem(bytes: Vec<u8>) -> String {
    read(shared(bytes), &context()).unwrap_err().to_string()
}

static VIT: LazyLock<Vec<u8>> = LazyLock::new(|| packed(&recognised("vit.dynamo.onnx")));

fn picture() -> TVec<TValue> {
    let pixels: Vec<f32> = (0..3 * 32 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
    tvec!(Tensor::from_shape(&[1, 3, 32, 32], &pixels).unwrap().into())
}

#[test]
fn a_packed_image_tower_gives_the_same_bits() {
    let before = Program::new(recognised("vit.dynamo.onnx")).unwrap();
    let (after, _) = read(shared(VIT.clone()), &context()).unwrap();
    let after = Program::new(after).unwrap();
    assert!(after.is_fused());
    let run = |program: &Program| program.run(vec![picture()]).unwrap().remove(0);
    assert_eq!(run(&before), run(&after));
}

#[test]
fn a_packed_text_tower_takes_any_length_and_gives_the_same_bits() {
    let model = recognised("bert.script.onnx");
    let (read, _) = read(shared(packed(&model)), &context()).unwrap();
    for length in [4, 9] {
        let run = |model: &TypedModel| {
            let tokens = model.symbols.get("tokens").unwrap();
            let subs = [(tokens, length.to_dim())].into_iter().collect();
            let program = Program::new(model.set_symbols(&subs).unwrap()).unwrap();
            let ids: Vec<i64> = (0..).map(|i| i * 3 + 1).take(length).collect();
            let mask: Vec<i64> = (0..length).map(|i| i64::from(i < 3)).collect();
            let row = |v: &[i64]| Tensor::from_shape(&[1, length], v).unwrap().into();
            program
                .run(vec![tvec!(row(&ids), row(&mask))])
                .unwrap()
                .remove(0)
        };
        assert_eq!(run(&model), run(&read));
    }
}

#[test]
fn packing_twice_gives_the_same_file() {
    assert!(packed(&recognised("vit.dynamo.onnx")) == *VIT);
}

#[test]
fn every_part_starts_on_a_cache_line() {
    let size = u32::from_le_bytes(VIT[12..16].try_into().unwrap()) as usize;
    assert_eq!((PREFIX + size) % ALIGNMENT, 0);
    let header: header::Header = serde_json::from_slice(&VIT[PREFIX..PREFIX + size]).unwrap();
    assert_eq!(header.sublayers.len(), 2);
    assert_eq!(header.patches.len(), 1);
    assert_eq!(header.graph.offset % 64, 0);
    // Weights in the order of their use, nothing between them.
    let mut end = 0;
    for linear in header.linears() {
        assert_eq!(linear.weights.offset, end);
        end = (linear.weights.offset + linear.weights.bytes).next_multiple_of(64);
    }
    assert!(header.graph.offset >= end);
    assert_eq!(header.patches[0].linear.weights.offset % 64, 0);
}

#[test]
fn another_version_says_what_to_do() {
    let mut bytes = VIT.clone();
    bytes[8] = 1;
    let problem = problem(bytes);
    assert!(
        problem.contains("version 1") && problem.contains("quantize again"),
        "{problem}"
    );
}

#[test]
fn what_is_no_packed_tower_is_refused() {
    assert!(problem(Vec::new()).contains("not a packed tower"));
    assert!(problem(b"ONNX, or anything else".to_vec()).contains("not a packed tower"));
    let mut cut = VIT.clone();
    cut.truncate(VIT.len() - 64);
    assert!(problem(cut).contains("does not lie in a file of"));
}

/// Replaces `from` by `to`, of the same length, in the header.
fn edited(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = VIT
        .windows(from.len())
        .position(|w| w == from.as_bytes())
        .unwrap();
    let mut bytes = VIT.clone();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn a_header_that_does_not_fit_is_refused() {
    for (from, to) in [
        ("\"heads\":4", "\"heads\":5"),
        ("\"n\":32,\"k\":64", "\"n\":32,\"k\":65"),
        ("\"picture\":[32,32]", "\"picture\":[32,33]"),
        ("\"layout\":\"n64k4\"", "\"layout\":\"n64k8\""),
        ("\"offset\":0,", "\"offset\":8,"),
        ("\"norm\"", "\"nrom\""),
    ] {
        let problem = problem(edited(from, to));
        assert!(problem.contains("packed tower"), "{from}: {problem}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = VIT.clone();
        let most = if in_header { 4096 } else { bytes.len() };
        for (place, value) in changes {
            bytes[place.index(most)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(VIT.len()));
        }
        let file = shared(bytes);
        let fits = check(&file).is_ok();
        prop_assert!(fits || read(file, &context()).is_err());
    }
}
