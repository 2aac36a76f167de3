use super::*;
use crate::train::text::corpus::unit_rows;

fn tiny() -> Tower {
    Tower::new(
        Shape {
            vocabulary: 30,
            width: EMBEDDING_DIM,
            layers: 2,
            heads: 4,
            hidden: 32,
        },
        7,
    )
    .unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_parameter_gets_a_gradient() {
    let tower = tiny();
    let batch = Batch::new(&[&[2, 5, 6, 7, 3], &[2, 9, 3], &[2, 11, 12, 3]], MAX_TOKENS).unwrap();
    let target = Tensor::ones((3, EMBEDDING_DIM), candle_core::DType::F32, &Device::Cpu).unwrap();
    let out = unit_rows(&tower.forward(&batch).unwrap()).unwrap();
    let ramp = Tensor::arange(0.0_f32, 256.0, &Device::Cpu).unwrap();
    let loss = (out - target)
        .unwrap()
        .sqr()
        .unwrap()
        .broadcast_mul(&ramp)
        .unwrap()
        .sum_all()
        .unwrap();
    let gradients = loss.backward().unwrap();
    for ((name, _), var) in tower.shape.parameters().iter().zip(&tower.vars) {
        let gradient = gradients
            .get(var)
            .unwrap_or_else(|| panic!("{name} has no gradient"));
        let largest = values(gradient).iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        assert!(largest > 0.0, "the gradient of {name} is zero");
    }
}

#[test]
fn a_gradient_agrees_with_a_finite_difference() {
    let tower = tiny();
    let batch = Batch::new(&[&[2, 5, 6, 7, 3], &[2, 9, 3]], 0).unwrap();
    let loss = || {
        let out = unit_rows(&tower.forward(&batch).unwrap()).unwrap();
        out.narrow(1, 0, 40).unwrap().sum_all().unwrap()
    };
    let gradients = loss().backward().unwrap();
    for (index, (name, _)) in tower.shape.parameters().iter().enumerate() {
        let var = &tower.vars[index];
        let gradient = values(gradients.get(var).unwrap());
        let place = (0..gradient.len())
            .max_by(|a, b| gradient[*a].abs().total_cmp(&gradient[*b].abs()))
            .unwrap();
        let before = values(var);
        let step = 1e-3;
        let probe = |by: f32| {
            let mut moved = before.clone();
            moved[place] += by;
            var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap())
                .unwrap();
            loss().to_scalar::<f32>().unwrap()
        };
        let numeric = (probe(step) - probe(-step)) / (2.0 * step);
        probe(0.0);
        let analytic = gradient[place];
        assert!(
            (numeric - analytic).abs() < 0.05 * analytic.abs() + 5e-3,
            "{name}: {numeric} against {analytic}"
        );
    }
}

#[test]
fn padding_changes_nothing() {
    let tower = tiny();
    let alone = values(
        &tower
            .forward(&Batch::new(&[&[2, 9, 3]], 0).unwrap())
            .unwrap(),
    );
    let padded = values(
        &tower
            .forward(&Batch::new(&[&[2, 9, 3], &[2, 4, 5, 6, 7, 8, 3]], 20).unwrap())
            .unwrap(),
    );
    for (a, b) in alone.iter().zip(&padded) {
        assert!((a - b).abs() < 1e-5, "{a} against {b}");
    }
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let tower = tiny();
    tower.save(&path).unwrap();
    let again = Tower::load(&path).unwrap();
    assert_eq!(again.shape, tower.shape);
    for (a, b) in tower.vars.iter().zip(&again.vars) {
        assert_eq!(values(a), values(b));
    }
}
