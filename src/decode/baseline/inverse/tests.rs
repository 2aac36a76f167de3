use proptest::prelude::*;

use super::*;

/// The definition, in floating point.
fn exact<const N: usize>(block: &Block) -> Vec<f64> {
    let c = |k: usize, n: usize| {
        let scale = if k == 0 { 0.5 / 2_f64.sqrt() } else { 0.5 };
        let angle = f64::from(u32::try_from((2 * n + 1) * k).unwrap()) * std::f64::consts::PI;
        scale * (angle / f64::from(u32::try_from(2 * N).unwrap())).cos()
    };
    let sample = |y: usize, x: usize| {
        let terms = (0..N * N).map(|at| {
            let (v, u) = (at / N, at % N);
            c(v, y) * c(u, x) * f64::from(block.0[place(N, v, u)])
        });
        (terms.sum::<f64>() + 128.0).clamp(0.0, 255.0)
    };
    (0..N * N).map(|at| sample(at / N, at % N)).collect()
}

fn run<I: Inverse>(transform: I, block: &Block) -> Vec<u8> {
    let mut out = vec![0; I::EDGE * I::EDGE];
    transform.inverse(block, &mut out, I::EDGE);
    out
}

fn near<const N: usize>(block: &Block) -> Result<(), TestCaseError> {
    for (got, want) in run(Portable::<N>, block).iter().zip(exact::<N>(block)) {
        // Half a code of rounding, and what the fixed point adds.
        prop_assert!((f64::from(*got) - want).abs() < 0.75, "{got} for {want}");
    }
    Ok(())
}

fn block(values: &[i16]) -> Block {
    let mut block = Block([0; 256]);
    block.0[..values.len()].copy_from_slice(values);
    block
}

#[test]
fn places_are_a_permutation() {
    for edge in [2, 4, 8] {
        let mut places: Vec<_> = (0..edge * edge)
            .map(|at| place(edge, at / edge, at % edge))
            .collect();
        places.sort_unstable();
        assert!(places.into_iter().eq(0..edge * edge));
    }
}

#[test]
fn a_block_with_a_mean_alone_is_flat() {
    for mean in [-1024_i16, -3, 0, 5, 1016] {
        let block = block(&[mean]);
        let code = u8::try_from((mean + 1028).div_euclid(8)).unwrap();
        assert_eq!(flat(mean), code);
        assert_eq!(run(Portable::<8>, &block), [code; 64]);
        assert_eq!(run(Portable::<4>, &block), [code; 16]);
        assert_eq!(run(Portable::<2>, &block), [code; 4]);
    }
}

proptest! {
    #[test]
    fn a_flat_block_is_what_the_transform_makes_of_it(mean: i16) {
        prop_assert_eq!(run(Portable::<8>, &block(&[mean])), [flat(mean); 64]);
        prop_assert_eq!(run(Portable::<4>, &block(&[mean])), [flat(mean); 16]);
        prop_assert_eq!(run(Portable::<2>, &block(&[mean])), [flat(mean); 4]);
    }

    #[test]
    fn the_specification_is_the_definition(
        values in prop::collection::vec(-200_i16..=200, 64),
    ) {
        let block = block(&values);
        near::<2>(&block)?;
        near::<4>(&block)?;
        near::<8>(&block)?;
    }

    #[test]
    fn vectors_give_the_same_bytes(
        small in prop::collection::vec(-300_i16..=300, 64),
        any in prop::collection::vec(any::<i16>(), 64),
        extreme in prop::collection::vec(prop::sample::select(vec![i16::MIN, 0, i16::MAX]), 64),
    ) {
        for values in [small, any, extreme] {
            let block = block(&values);
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = avx2::Avx2::detect() {
                prop_assert_eq!(run(avx2::Half(avx2), &block), run(Portable::<4>, &block));
                prop_assert_eq!(run(avx2::Whole(avx2), &block), run(Portable::<8>, &block));
            }
        }
    }
}
