use std::num::NonZeroUsize;

use super::*;
use crate::encoder::int8::kernels::{Context, Isa};
use crate::encoder::int8::recognise::fixtures::*;
use crate::encoder::int8::recognise::{Options, recognise};

/// The graph of a fixture with fused operators, for texts of [`LENGTH`].
fn recognised(name: &str, context: &Arc<Context>) -> TypedModel {
    let (model, symbols) = load(&format!("{name}.onnx"));
    let (model, _) = recognise(model, symbols.clone(), context, &Options::default()).unwrap();
    of_length(&model, &symbols)
}

fn program(name: &str, threads: usize) -> Program {
    let threads = NonZeroUsize::new(threads).unwrap();
    let context = Arc::new(Context::new(Isa::detect(), threads));
    Program::new(recognised(name, &context)).unwrap()
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

#[test]
fn towers_that_pool_one_token_compute_that_one_and_get_the_same_bits() {
    // Tokens, and whether their embedding is made of the first alone.
    for (name, tokens, one) in [
        ("vit.script", 17, true),
        ("vit.dynamo", 17, true),
        ("clip-vision.script", 17, true),
        ("clip-vision.dynamo", 17, true),
        // The normalisation of all tokens stands before the choice; batch and tokens are swapped.
        ("open-clip.script", 17, true),
        ("open-clip.dynamo", 17, true),
        ("bert.script", LENGTH, true),
        ("bert.dynamo", LENGTH, true),
        // An attention pool, a mean, the token with the largest id.
        ("siglip.script", 16, false),
        ("siglip.dynamo", 16, false),
        ("xlm-roberta.script", LENGTH, false),
        ("clip-text.script", LENGTH, false),
        ("clip-text.dynamo", LENGTH, false),
    ] {
        let whole = recognised(name, &context());
        let program = Program::new(whole.clone()).unwrap();
        let macs = workload(&whole).unwrap().int8_macs - program.workload().int8_macs;
        // Of the last layer: query, output projection, both products of attention, up and down.
        let token = 2 * 32 * 32 + 2 * tokens * 32 + 2 * 32 * 64;
        let saved = if one { (tokens - 1) * token } else { 0 };
        assert_eq!(macs, saved as u64, "{name}");
        let whole = TypedSimplePlan::new(whole.into_optimized().unwrap()).unwrap();
        for input in inputs(name) {
            let output = program.run(vec![input.clone()]).unwrap().remove(0);
            assert_eq!(
                output,
                whole.run(input).unwrap()[0].clone().into_tensor(),
                "{name}"
            );
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
    for name in [
        "vit.script",
        "vit.dynamo",
        "siglip.dynamo",
        "clip-vision.script",
    ] {
        let program = program(name, 2);
        assert!(program.takes_pictures(), "{name}");
        let graph = recognised(name, &context());
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
