//! Every gradient is there, is right, and leads where it should.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::train::descent::{Descent, Rule};
use crate::train::fit::distillation;
use crate::train::fit::loss::{Loss, Relation, Targets};

/// A number that depends on every value of the embeddings: their product with fixed noise.
fn probe(embeddings: &Tensor) -> Tensor {
    let mut rng = StdRng::seed_from_u64(3);
    let count = embeddings.elem_count();
    let noise: Vec<f64> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
    let noise = Tensor::from_vec(noise, embeddings.dims(), &Device::Cpu).unwrap();
    (embeddings * noise).unwrap().sum_all().unwrap()
}

/// A bias of the keys adds the same to all scores of a query, which a softmax does not see.
fn without_effect(name: &str) -> bool {
    name.ends_with("k_proj.bias") || name.ends_with("key.bias")
}

/// Moves one value by about `h` both ways; what the probe changes by, per unit.
fn difference(var: &candle_core::Var, at: usize, run: &dyn Fn() -> f64) -> f64 {
    let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut results = Vec::new();
    for step in [2e-3_f32, -2e-3] {
        let mut moved = values.clone();
        moved[at] += step * moved[at].abs().max(0.1);
        let tensor = Tensor::from_slice(&moved, var.dims(), &Device::Cpu).unwrap();
        var.set(&tensor).unwrap();
        results.push((f64::from(moved[at]), run()));
    }
    let tensor = Tensor::from_slice(&values, var.dims(), &Device::Cpu).unwrap();
    var.set(&tensor).unwrap();
    (results[0].1 - results[1].1) / (results[0].0 - results[1].0)
}

/// Every parameter's largest gradient and another one against finite differences, in f64.
fn gradients_are_right(what: &str, tower: &Tower, run: &dyn Fn(&Tower, Track) -> Tensor) {
    let gradients = probe(&run(tower, Track::Gradients)).backward().unwrap();
    let value = || {
        probe(&run(tower, Track::Nothing))
            .to_scalar::<f64>()
            .unwrap()
    };
    let learnables = tower.learnables("");
    assert!(learnables.len() > 10, "{what}");
    let found = |var: &candle_core::Var| {
        let gradient = gradients.get(var)?;
        Some(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let largest = |values: &[f32]| values.iter().fold(0f32, |a, v| a.max(v.abs()));
    let scale = learnables.iter().filter_map(|l| found(&l.var));
    let scale = scale.map(|g| largest(&g)).fold(0f32, f32::max);
    for learnable in learnables {
        let name = format!("{what} {}", learnable.name);
        let gradient = found(&learnable.var).unwrap_or_else(|| panic!("{name} got no gradient"));
        let most = largest(&gradient);
        if without_effect(&name) {
            assert!(most < 1e-9 * scale.max(1.0), "{name}: {most}");
            continue;
        }
        assert!(most > 0.0, "{name}");
        let steepest = gradient.iter().position(|g| g.abs() == most).unwrap();
        for at in [steepest, gradient.len() / 2] {
            let expected = difference(&learnable.var, at, &value);
            let error = (f64::from(gradient[at]) - expected).abs();
            let allowed = 2e-3 * expected.abs() + 1e-5 * f64::from(most) + 1e-9;
            assert!(
                error <= allowed,
                "{name}[{at}]: {} {expected}",
                gradient[at]
            );
        }
    }
}

#[test]
fn every_parameter_of_every_family_has_the_gradient_that_finite_differences_have() {
    for family in FAMILIES {
        let imported = Imported::new(family, Store::Float);
        for (name, image) in [("image.onnx", true), ("text.onnx", false)] {
            let mut tower = imported.tower(name, DType::F64);
            tower.learn(Learn::Everything, 1).unwrap();
            gradients_are_right(family.0, &tower, &|tower, track| {
                if image {
                    imported.images(tower, track)
                } else {
                    imported.texts(tower, track)
                }
            });
        }
    }
}

#[test]
fn adapters_have_the_gradient_that_finite_differences_have_and_merge_into_the_weights() {
    let imported = Imported::new(FAMILIES[0], Store::Float);
    let mut tower = imported.tower("text.onnx", DType::F64);
    tower.learn(Learn::Adapters(RANK), 1).unwrap();
    let before = imported.texts(&imported.tower("text.onnx", DType::F64), Track::Nothing);
    let distance = |a: &Tensor, b: &Tensor| {
        let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        difference.to_scalar::<f64>().unwrap()
    };
    assert!(
        distance(&imported.texts(&tower, Track::Nothing), &before) < 1e-12,
        "at first nothing"
    );
    let layers = tower
        .parameters
        .iter()
        .filter(|p| p.adapter.is_some())
        .count();
    assert_eq!(
        layers % 6,
        0,
        "query, key, value, output, up and down of each layer"
    );
    let mut rng = StdRng::seed_from_u64(9);
    for learnable in tower.learnables("") {
        let count = learnable.var.elem_count();
        let values: Vec<f32> = (0..count).map(|_| rng.random_range(-0.3..0.3)).collect();
        let values = Tensor::from_vec(values, learnable.var.dims(), &Device::Cpu).unwrap();
        learnable.var.set(&values).unwrap();
    }
    gradients_are_right("adapters", &tower, &|tower, track| {
        imported.texts(tower, track)
    });

    let beside = imported.texts(&tower, Track::Nothing);
    assert!(distance(&beside, &before) > 1e-3);
    tower.settle().unwrap();
    assert!(tower.learnables("").is_empty());
    let merged = imported.texts(&tower, Track::Nothing);
    assert!(
        distance(&merged, &beside) < 1e-6,
        "{}",
        distance(&merged, &beside)
    );
}

/// The whole way from every weight to a teacher's losses.
#[test]
fn a_teachers_losses_have_the_gradient_that_finite_differences_have_at_every_weight() {
    let imported = Imported::new(FAMILIES[0], Store::Float);
    let towers = ["image.onnx", "text.onnx"].map(|name| {
        let mut tower = imported.tower(name, DType::F64);
        tower.learn(Learn::Everything, 1).unwrap();
        tower
    });
    let mut rng = StdRng::seed_from_u64(7);
    let mut teacher = |like: &Tensor| {
        let count = like.elem_count();
        let values: Vec<f64> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
        let values = Tensor::from_vec(values, like.dims(), &Device::Cpu).unwrap();
        unit_rows(&values).unwrap()
    };
    let photos = imported.images(&towers[0], Track::Nothing).detach();
    let texts = imported.texts(&towers[1], Track::Nothing).detach();
    let goals = [teacher(&photos), teacher(&texts)];
    let logits = |photos: &Tensor, texts: &Tensor| {
        (photos.matmul(&texts.t().unwrap()).unwrap() * 20.0).unwrap()
    };
    let of_goals = logits(&goals[0], &goals[1]);
    gradients_are_right("mse, image", &towers[0], &|tower, track| {
        distillation::mse(&imported.images(tower, track), &goals[0]).unwrap()
    });
    gradients_are_right("mse, text", &towers[1], &|tower, track| {
        distillation::mse(&imported.texts(tower, track), &goals[1]).unwrap()
    });
    gradients_are_right("affinity, image", &towers[0], &|tower, track| {
        let logits = logits(&imported.images(tower, track), &texts);
        distillation::affinity(&logits, &of_goals).unwrap()
    });
    gradients_are_right("affinity, text", &towers[1], &|tower, track| {
        let logits = logits(&photos, &imported.texts(tower, track));
        distillation::affinity(&logits, &of_goals).unwrap()
    });
}

/// 16 pictures of noise and 16 texts of random tokens, at random who belongs to whom.
#[test]
fn sixteen_pairs_are_learnt_by_heart() {
    let imported = Imported::new(FAMILIES[0], Store::Float);
    let mut rng = StdRng::seed_from_u64(4);
    let edge = imported.bundle.manifest().image.size_px;
    let pictures: Vec<ModelInput> = (0..16)
        .map(|_| ModelInput {
            size_px: edge,
            values: (0..3 * edge * edge)
                .map(|_| rng.random_range(-2.0..2.0))
                .collect(),
        })
        .collect();
    let pictures: Vec<&ModelInput> = pictures.iter().collect();
    let texts: Vec<Padded> = (0..16)
        .map(|_| Padded {
            ids: (0..8).map(|_| rng.random_range(5..40)).collect(),
            mask: vec![1; 8],
        })
        .collect();
    let same = |photo, text| {
        if photo == text {
            Relation::Same
        } else {
            Relation::Other
        }
    };
    let targets = Targets::new((16, 16), same).unwrap();
    let bias = Tensor::new(&[0f32], &Device::Cpu).unwrap();
    let adapters = Learn::Adapters(Rank {
        rank: 8,
        alpha: 16.0,
    });
    for (learn, rule, clip, rate) in [
        (Learn::Everything, Rule::AdamW { decay: 0.0 }, None, 1e-3),
        (Learn::Everything, Rule::AdaBelief, Some(0.01), 1e-3),
        (adapters, Rule::AdamW { decay: 0.0 }, None, 3e-3),
    ] {
        let mut towers = ["image.onnx", "text.onnx"].map(|name| imported.tower(name, DType::F32));
        for tower in &mut towers {
            tower.learn(learn, 1).unwrap();
        }
        let learnables = [
            towers[0].learnables("image/"),
            towers[1].learnables("text/"),
        ];
        let mut descent = Descent::new(&learnables.concat(), rule, clip).unwrap();
        let mut loss = f32::MAX;
        let mut steps = 0;
        while loss > 0.01 && steps < 400 {
            let images = towers[0].images(&pictures, Track::Gradients).unwrap();
            let texts = towers[1].texts(&texts, Track::Gradients).unwrap();
            let cosines = images.matmul(&texts.t().unwrap()).unwrap();
            let value = targets.loss(Loss::InfoNce, &cosines, 20.0, &bias).unwrap();
            loss = value.to_scalar().unwrap();
            descent.step(&value.backward().unwrap(), rate).unwrap();
            steps += 1;
        }
        println!("{learn:?} {rule:?}: {loss} after {steps} steps");
        assert!(loss <= 0.01, "{learn:?} {rule:?}: {loss}");
    }
}
