//! A teacher's losses: their values by hand, their gradients by finite differences.

use candle_core::{DType, Device, Tensor, Var};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::train::fit::distillation::{affinity, mse};
use crate::train::targets::unit_rows;

const SCALE: f64 = 7.0;

fn random(rng: &mut StdRng, rows: usize, width: usize) -> Tensor {
    let values: Vec<f64> = (0..rows * width)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
}

fn number(loss: &Tensor) -> f64 {
    loss.to_dtype(DType::F64)
        .unwrap()
        .to_scalar::<f64>()
        .unwrap()
}

fn logits(photos: &Tensor, texts: &Tensor) -> Tensor {
    let (photos, texts) = (unit_rows(photos).unwrap(), unit_rows(texts).unwrap());
    (photos.matmul(&texts.t().unwrap()).unwrap() * SCALE).unwrap()
}

#[test]
fn mse_is_the_mean_squared_distance_of_rows() {
    let student = Tensor::new(&[[1.0, 0.0], [0.6, 0.8]], &Device::Cpu).unwrap();
    let teacher = Tensor::new(&[[0.0, 1.0], [0.6, 0.8]], &Device::Cpu).unwrap();
    let loss = number(&mse(&student, &teacher).unwrap());
    assert!((loss - 1.0).abs() < 1e-12, "2 − 2·0 and 0: {loss}");
}

#[test]
fn affinity_is_the_divergence_by_hand_in_both_directions() {
    let mut rng = StdRng::seed_from_u64(1);
    let student = (random(&mut rng, 3, 4) * 3.0).unwrap();
    let teacher = (random(&mut rng, 3, 4) * 3.0).unwrap();
    let softmax = |row: &[f64]| -> Vec<f64> {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(|x| x.exp() / sum).collect()
    };
    let divergence = |student: &Tensor, teacher: &Tensor| -> f64 {
        let (s, t) = (
            student.to_vec2::<f64>().unwrap(),
            teacher.to_vec2::<f64>().unwrap(),
        );
        let of_row = |(s, t): (&Vec<f64>, &Vec<f64>)| -> f64 {
            let (s, t) = (softmax(s), softmax(t));
            s.iter().zip(&t).map(|(s, t)| t * (t / s).ln()).sum()
        };
        let rows: Vec<f64> = s.iter().zip(&t).map(of_row).collect();
        #[expect(clippy::cast_precision_loss, reason = "a few rows")]
        let count = rows.len() as f64;
        rows.iter().sum::<f64>() / count
    };
    let turned = |x: &Tensor| x.t().unwrap().contiguous().unwrap();
    let by_hand =
        (divergence(&student, &teacher) + divergence(&turned(&student), &turned(&teacher))) / 2.0;
    let loss = number(&affinity(&student, &teacher).unwrap());
    assert!((loss - by_hand).abs() < 1e-12, "{loss} {by_hand}");
}

#[test]
fn a_perfect_student_costs_nothing() {
    let mut rng = StdRng::seed_from_u64(2);
    let (photos, texts) = (random(&mut rng, 5, 6), random(&mut rng, 4, 6));
    let logits = logits(&photos, &texts);
    assert!(number(&affinity(&logits, &logits).unwrap()).abs() < 1e-12);
    assert_eq!(number(&mse(&photos, &photos).unwrap()), 0.0);
    // What is added to all logits alike is not seen.
    let shifted = (&logits + 3.0).unwrap();
    assert!(number(&affinity(&shifted, &logits).unwrap()).abs() < 1e-12);
}

#[test]
fn both_losses_have_the_gradient_that_finite_differences_give() {
    let mut rng = StdRng::seed_from_u64(3);
    let teacher = [random(&mut rng, 5, 6), random(&mut rng, 4, 6)];
    let student = [random(&mut rng, 5, 6), random(&mut rng, 4, 6)];
    let student = student.map(|values| Var::from_tensor(&values).unwrap());
    let by_distance = || {
        let [photos, texts] = [0, 1].map(|i| {
            let own = unit_rows(student[i].as_tensor()).unwrap();
            mse(&own, &unit_rows(&teacher[i]).unwrap()).unwrap()
        });
        (photos + texts).unwrap()
    };
    let by_affinity = || {
        let own = logits(student[0].as_tensor(), student[1].as_tensor());
        affinity(&own, &logits(&teacher[0], &teacher[1])).unwrap()
    };
    let losses: [(&str, &dyn Fn() -> Tensor); 2] =
        [("mse", &by_distance), ("affinity", &by_affinity)];
    for (name, loss) in losses {
        let gradients = loss().backward().unwrap();
        for var in &student {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name}: none"));
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let values = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for at in 0..values.len() {
                let moved = |by: f64| {
                    let mut values = values.clone();
                    values[at] += by;
                    let values = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
                    var.set(&values).unwrap();
                    number(&loss())
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                moved(0.0);
                assert!(gradient[at] != 0.0, "{name}[{at}] gets nothing");
                let error = (slope - gradient[at]).abs() / slope.abs().max(1.0);
                assert!(error < 1e-7, "{name}[{at}]: {slope} {}", gradient[at]);
            }
        }
    }
}
