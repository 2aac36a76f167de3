//! Every instruction set against plain loops and against the portable kernels, bit for bit.

use proptest::prelude::*;

use super::random::{Builder, clip, values, window};
use super::{Scoped, bits, reference, run};
use crate::encoder::conv::kernels::Kernels;
use crate::encoder::conv::network::{Network, Window};
use crate::encoder::conv::program::{Program, Step};
use crate::encoder::conv::run::Memory;
use crate::encoder::conv::threads::Single;

/// Checks `network` with every instruction set of this CPU and with 1, 2, 3 and 5 threads.
fn check(network: &Network, seed: u64) -> Result<(), TestCaseError> {
    let input = values(seed, network.input.channels * network.input.pixels());
    let expected = reference::run(network, &input);
    let sets = Kernels::available();
    let portable = run(network, sets.last().unwrap(), &input, &Single);
    for kernels in sets {
        let name = kernels.name;
        let output = run(network, kernels, &input, &Single);
        for (index, (value, expected)) in output.iter().zip(&expected).enumerate() {
            let error = (f64::from(*value) - expected).abs();
            prop_assert!(
                error < 1e-4 * (1.0 + expected.abs()),
                "{name} {index}: {value} {expected}"
            );
        }
        if kernels.fused {
            prop_assert_eq!(bits(&output), bits(&portable), "{}", name);
        }
        for threads in [2, 3, 5] {
            let shared = run(network, kernels, &input, &Scoped(threads));
            prop_assert_eq!(
                bits(&shared),
                bits(&output),
                "{} with {} threads",
                name,
                threads
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn dense_over_planes(
        seed in 0u64..1 << 32, channels in 1usize..5, outputs in 1usize..70,
        size in (5usize..20, 5usize..20), window in window(&[1, 2, 3, 5]), clip in clip(),
    ) {
        let mut builder = Builder::new(seed, channels, size.0, size.1);
        builder.dense(window, outputs, clip, None);
        check(&builder.network, seed)?;
    }

    #[test]
    fn dense_over_blocks(
        seed in 0u64..1 << 32, channels in 1usize..70, outputs in 1usize..70,
        size in (3usize..18, 3usize..18), window in window(&[1, 3]), clip in clip(),
    ) {
        let mut builder = Builder::new(seed, 2, size.0, size.1);
        builder.dense(Window::POINT, channels, None, None);
        builder.dense(window, outputs, clip, None);
        check(&builder.network, seed)?;
    }

    #[test]
    fn depthwise(
        seed in 0u64..1 << 32, channels in 1usize..40,
        size in (5usize..24, 5usize..24), window in window(&[3, 5]), clip in clip(),
    ) {
        let mut builder = Builder::new(seed, 2, size.0, size.1);
        builder.dense(Window::POINT, channels, None, None);
        builder.depthwise(window, clip);
        check(&builder.network, seed)?;
    }

    #[test]
    fn fused_residuals_and_a_mean(
        seed in 0u64..1 << 32, narrow in 1usize..40, wide in 1usize..100,
        size in (5usize..24, 5usize..24), windows in (window(&[3, 5]), window(&[1, 3])),
        clip in clip(), mean in any::<bool>(),
    ) {
        let mut builder = Builder::new(seed, 3, size.0, size.1);
        builder.dense(windows.1, narrow, clip, None);
        // Where the input is small, a wide kernel needs room.
        let (_, shape) = builder.last();
        prop_assume!(shape.height >= 5 && shape.width >= 5);
        builder.dense(Window::POINT, wide, clip, None);
        builder.depthwise(windows.0, clip);
        let narrowed = builder.dense(Window::POINT, narrow, None, None);
        let same = Window { size: [3, 3], stride: 1, before: [1, 1], after: [1, 1] };
        builder.dense(Window::POINT, wide, clip, None);
        builder.depthwise(same, clip);
        builder.dense(Window::POINT, narrow, clip, Some(narrowed));
        if mean {
            builder.mean();
        }
        check(&builder.network, seed)?;
    }
}

#[test]
fn bands_of_rows_that_do_not_fit_the_cache_join_without_a_seam() {
    let mut builder = Builder::new(7, 3, 101, 90);
    let same = Window {
        size: [5, 5],
        stride: 1,
        before: [2, 2],
        after: [2, 2],
    };
    let first = builder.dense(Window::POINT, 12, None, None);
    builder.dense(Window::POINT, 72, Some([0.0, 6.0]), None);
    builder.depthwise(same, Some([0.0, 6.0]));
    builder.dense(Window::POINT, 12, None, Some(first));
    let program = Program::new(&builder.network, Kernels::best());
    let step = program
        .unwrap()
        .steps
        .into_iter()
        .find_map(|step| match step {
            Step::Fused(step) => Some(step.band_rows),
            _ => None,
        });
    assert!(step.unwrap() < 101, "this map has to be cut into bands");
    check(&builder.network, 7).unwrap();
}

#[test]
fn what_is_not_a_number_stays_visible() {
    let mut builder = Builder::new(3, 3, 6, 6);
    builder.dense(Window::POINT, 20, None, None);
    let mut input = values(1, 3 * 36);
    input[0] = f32::NAN;
    for kernels in Kernels::available() {
        let output = run_once(&builder.network, kernels, &input);
        assert!(output[0].is_nan(), "{}", kernels.name);
        assert!(output[1].is_finite(), "{}", kernels.name);
    }
}

fn run_once(network: &Network, kernels: &'static Kernels, input: &[f32]) -> Vec<f32> {
    let program = Program::new(network, kernels).unwrap();
    let mut memory = Memory::new(&program);
    let shape = network.output();
    let mut output = vec![0.0; shape.channels * shape.pixels()];
    program.run(&mut memory, input, &mut output, &Single);
    output
}
