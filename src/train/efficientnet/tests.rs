use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[test]
fn lite0_has_the_published_number_of_parameters() {
    let net = Architecture::lite0();
    // 4.652 million with the classifier's 1,281,000; folding leaves one bias per channel.
    assert_eq!(net.layers.len(), 49);
    assert_eq!(net.parameters + 1_281_000, 4_631_000);
}

#[test]
fn the_gradient_of_every_trained_layer_matches_finite_differences() {
    let mut rng = StdRng::seed_from_u64(7);
    let net = Architecture::new(
        8,
        &[(1, 3, 1, 1, 8), (2, 3, 2, 2, 12), (2, 5, 1, 3, 12)],
        20,
    );
    let parameters = net.random(&mut rng);
    let side = 16;
    let images = 2;
    let input: Vec<f32> = (0..images * side * side * 3)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let direction: Vec<f32> = (0..images * 20)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let all = 0..net.layers.len();
    let tail = 1..net.layers.len();
    let mut stem = Workspace::default();
    net.forward(&parameters, 0..1, &input, side, &mut stem);
    let (x, x_side) = stem.output();
    let mut space = Workspace::default();
    net.forward(&parameters, tail.clone(), x, x_side, &mut space);
    let base = net.first_parameter(1);
    let mut gradient = vec![0.0; net.parameters - base];
    let dy = space.unpool(&direction, 20);
    net.backward(
        &parameters,
        tail,
        &dy,
        &mut gradient,
        &space,
        &mut Scratch::default(),
    );

    let objective = |parameters: &[f32]| -> f64 {
        let mut space = Workspace::default();
        net.forward(parameters, all.clone(), &input, side, &mut space);
        space
            .pooled(20)
            .iter()
            .zip(&direction)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    for layer in &net.layers[1..] {
        for range in [&layer.weight, &layer.bias] {
            let step: Vec<f32> = range.clone().map(|_| rng.random_range(-1.0..1.0)).collect();
            let eps = 2e-4;
            let moved = |sign: f32| {
                let mut p = parameters.clone();
                for (p, s) in p[range.clone()].iter_mut().zip(&step) {
                    *p += sign * eps * s;
                }
                objective(&p)
            };
            let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(eps));
            let exact: f64 = gradient[range.start - base..range.end - base]
                .iter()
                .zip(&step)
                .map(|(g, s)| f64::from(*g) * f64::from(*s))
                .sum();
            assert!(exact != 0.0, "no gradient in {layer:?}");
            assert!(
                (numeric - exact).abs() < 0.03 * numeric.abs().max(exact.abs()) + 2e-3,
                "{numeric} {exact} in {layer:?}"
            );
        }
    }
}
