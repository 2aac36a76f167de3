//! Gradients, and the floor of the losses.

use candle_core::{DType, Device, Tensor, Var};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::train::fit::loss::{Loss, Relation, Targets};
use crate::train::fit::maps::Maps;
use crate::train::targets::unit_rows;

const DIM: usize = 6;

fn random(rng: &mut StdRng, rows: usize, columns: usize) -> Tensor {
    let values: Vec<f64> = (0..rows * columns)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

/// Photo and text share their number modulo 3; the last text is nobody's, the pair 0–4 is unknown.
fn relation(photo: usize, text: usize) -> Relation {
    match (photo, text) {
        (0, 4) => Relation::Unknown,
        (_, 5) => Relation::Other,
        _ if photo % 3 == text % 3 => Relation::Same,
        _ => Relation::Other,
    }
}

/// Everything a gradient goes to, and the loss as a function of it.
struct Problem {
    vars: Vec<(&'static str, Var)>,
    images: Tensor,
    texts: Tensor,
    targets: Targets,
    loss: Loss,
}

impl Problem {
    fn new(loss: Loss) -> Self {
        let mut rng = StdRng::seed_from_u64(7);
        let map = |rng: &mut StdRng| {
            let eye = Tensor::eye(DIM, DType::F64, &Device::Cpu).unwrap();
            let map = (eye + (random(rng, DIM, DIM) * 0.2).unwrap()).unwrap();
            Var::from_tensor(&map).unwrap()
        };
        let mut vars = vec![("image", map(&mut rng)), ("text", map(&mut rng))];
        if loss == Loss::Sigmoid {
            let bias = Tensor::new(&[-2.0f64], &Device::Cpu).unwrap();
            vars.push(("bias", Var::from_tensor(&bias).unwrap()));
        }
        Self {
            vars,
            images: unit_rows(&random(&mut rng, 7, DIM)).unwrap(),
            texts: unit_rows(&random(&mut rng, 6, DIM)).unwrap(),
            targets: Targets::new((7, 6), relation).unwrap(),
            loss,
        }
    }

    fn value(&self) -> Tensor {
        let maps = Maps {
            image: self.vars[0].1.as_tensor().clone(),
            text: self.vars[1].1.as_tensor().clone(),
        };
        let images = maps.images(&self.images).unwrap();
        let cosines = images
            .matmul(&maps.texts(&self.texts).unwrap().t().unwrap())
            .unwrap();
        let none = Tensor::new(&[0f64], &Device::Cpu).unwrap();
        let bias = self.vars.get(2).map_or(&none, |(_, bias)| bias.as_tensor());
        let loss = self.targets.loss(self.loss, &cosines, 5.0, bias).unwrap();
        (loss + (maps.distance().unwrap() * 0.3).unwrap()).unwrap()
    }

    fn number(&self) -> f64 {
        self.value().to_scalar::<f64>().unwrap()
    }
}

#[test]
fn every_parameter_gets_the_gradient_that_finite_differences_give() {
    for loss in [Loss::InfoNce, Loss::Sigmoid] {
        let problem = Problem::new(loss);
        let gradients = problem.value().backward().unwrap();
        for (name, var) in &problem.vars {
            let gradient = gradients
                .get(var)
                .unwrap_or_else(|| panic!("{name} got none"));
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let values = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for at in 0..values.len() {
                let moved = |by: f64| {
                    let mut values = values.clone();
                    values[at] += by;
                    let values = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
                    var.set(&values).unwrap();
                    problem.number()
                };
                let step = 1e-5;
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                moved(0.0);
                assert!(gradient[at] != 0.0, "{loss:?}: {name}[{at}] gets nothing");
                let error = (slope - gradient[at]).abs() / slope.abs().max(1.0);
                assert!(
                    error < 1e-7,
                    "{loss:?}: {name}[{at}]: {slope} {}",
                    gradient[at]
                );
            }
        }
    }
}

#[test]
fn with_one_partner_each_it_is_clips_cross_entropy() {
    let mut rng = StdRng::seed_from_u64(3);
    let cosines = random(&mut rng, 4, 4);
    let same = |p, t| {
        if p == t {
            Relation::Same
        } else {
            Relation::Other
        }
    };
    let targets = Targets::new((4, 4), same).unwrap();
    let bias = Tensor::new(&[0f64], &Device::Cpu).unwrap();
    let loss = targets.loss(Loss::InfoNce, &cosines, 20.0, &bias).unwrap();
    let rows = cosines.to_vec2::<f64>().unwrap();
    let surprise = |logits: Vec<f64>, right: usize| {
        let sum: f64 = logits.iter().map(|x| (20.0 * x).exp()).sum();
        sum.ln() - 20.0 * logits[right]
    };
    let by_hand: f64 = (0..4)
        .map(|i| {
            let column = rows.iter().map(|row| row[i]).collect();
            (surprise(rows[i].clone(), i) + surprise(column, i)) / 8.0
        })
        .sum();
    assert!((loss.to_scalar::<f64>().unwrap() - by_hand).abs() < 1e-9);
}

#[test]
fn a_perfect_answer_costs_nothing_however_many_belong_together() {
    let same = |p: usize, t: usize| {
        if p % 2 == t % 2 {
            Relation::Same
        } else {
            Relation::Other
        }
    };
    let targets = Targets::new((4, 4), same).unwrap();
    let perfect = |p: usize, t: usize| f64::from(u8::from(p % 2 == t % 2)) * 2.0 - 1.0;
    let cosines: Vec<f64> = (0..16).map(|i| perfect(i / 4, i % 4)).collect();
    let cosines = Tensor::from_vec(cosines, (4, 4), &Device::Cpu).unwrap();
    let bias = Tensor::new(&[0f64], &Device::Cpu).unwrap();
    for loss in [Loss::InfoNce, Loss::Sigmoid] {
        let loss = targets.loss(loss, &cosines, 30.0, &bias).unwrap();
        assert!(loss.to_scalar::<f64>().unwrap().abs() < 1e-6);
    }
}

#[test]
fn what_is_unknown_has_no_influence() {
    let problem = Problem::new(Loss::InfoNce);
    let mut rng = StdRng::seed_from_u64(3);
    let cosines = random(&mut rng, 7, 6);
    let mut changed = cosines.to_vec2::<f64>().unwrap();
    changed[0][4] = 0.9;
    let changed = Tensor::new(changed, &Device::Cpu).unwrap();
    let bias = Tensor::new(&[0f64], &Device::Cpu).unwrap();
    for loss in [Loss::InfoNce, Loss::Sigmoid] {
        let value = |cosines: &Tensor| {
            let loss = problem.targets.loss(loss, cosines, 5.0, &bias).unwrap();
            loss.to_scalar::<f64>().unwrap()
        };
        assert_eq!(value(&cosines), value(&changed));
    }
}
