//! Learning by heart, learning what helps, and going on after an interruption.

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{Device, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::encoder::Embedding;
use crate::train::descent::Rule;
use crate::train::fit::distillation::Objective;
use crate::train::fit::examples::{Photos, Said, Texts};
use crate::train::fit::loss::Loss;
use crate::train::fit::maps::Maps;
use crate::train::fit::projection::{Examples, Projection};
use crate::train::fit::session::{Learnt, Point, Settings};

const DIM: usize = 6;

fn embedding(rng: &mut StdRng, dim: usize) -> Embedding {
    Embedding::normalized((0..dim).map(|_| rng.random_range(-1.0..1.0)).collect()).unwrap()
}

fn rows(embeddings: &[Embedding], dim: usize) -> Tensor {
    let values: Vec<f32> = embeddings
        .iter()
        .flat_map(|e| e.as_slice())
        .copied()
        .collect();
    Tensor::from_vec(values, (embeddings.len(), dim), &Device::Cpu).unwrap()
}

fn settings() -> Settings {
    Settings {
        epochs: 8,
        frozen_epochs: 0,
        frozen_rate: 0.0,
        batch: 10,
        rate: 3e-3,
        rule: Rule::AdaBelief,
        clip: Some(0.01),
        loss: Loss::InfoNce,
        objective: Objective::default(),
        strength: 0.01,
        logit_scale: 20.0,
        seed: 5,
    }
}

/// 16 photos with a caption each, all at random.
fn pairs(dim: usize) -> (Photos, Texts) {
    let mut rng = StdRng::seed_from_u64(1);
    let photos = (0..16).map(|caption| {
        let said = Said {
            class: None,
            captions: vec![caption],
        };
        (vec![embedding(&mut rng, dim)], said)
    });
    let photos = Photos::new(photos.collect(), dim).unwrap();
    let texts: Vec<Embedding> = (0..16).map(|_| embedding(&mut rng, dim)).collect();
    let texts = Texts {
        rows: rows(&texts, dim),
        strings: Vec::new(),
        classes: Vec::new(),
        negatives: Vec::new(),
        general: Vec::new(),
        general_held_out: Vec::new(),
    };
    (photos, texts)
}

#[test]
fn sixteen_pairs_are_learnt_by_heart() {
    for (loss, rule, clip, rate) in [
        (Loss::InfoNce, Rule::AdaBelief, Some(0.01), 1e-2),
        (Loss::InfoNce, Rule::AdamW { decay: 0.0 }, None, 1e-2),
        (Loss::Sigmoid, Rule::AdamW { decay: 0.0 }, None, 1e-2),
    ] {
        let (photos, texts) = pairs(32);
        let examples = Examples {
            train: &photos,
            held_out: Some(&photos),
            texts: &texts,
        };
        let settings = Settings {
            epochs: 300,
            batch: 16,
            strength: 0.0,
            loss,
            rule,
            clip,
            rate,
            ..settings()
        };
        let session = Projection::session(examples, settings, None).unwrap();
        let (learnt, _) = session
            .run(&mut |_| {}, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        let last = learnt.curve.last().unwrap();
        let loss = last.loss.unwrap();
        // The sigmoid loss is a sum over 16 texts.
        let most = if settings.loss == Loss::Sigmoid {
            0.16
        } else {
            0.01
        };
        assert!(loss < most, "{settings:?}: {loss}");
        assert!(
            learnt.curve[0].accuracy < 0.5 && last.accuracy == 1.0,
            "{last:?}"
        );
    }
}

/// Three classes whose photos all lean the same wrong way, 8 photos with 3 views each, and a third
/// of them held out.
fn classes() -> (Photos, Photos, Texts) {
    let mut rng = StdRng::seed_from_u64(2);
    let prompts: Vec<Embedding> = (0..7).map(|_| embedding(&mut rng, DIM)).collect();
    let mut photos = Vec::new();
    for photo in 0..24 {
        let class = photo % 3;
        let view = |rng: &mut StdRng| {
            let (right, wrong) = (&prompts[class], &prompts[(class + 1) % 3]);
            let values = right.as_slice().iter().zip(wrong.as_slice());
            let noise = embedding(rng, DIM);
            let values = values
                .zip(noise.as_slice())
                .map(|((r, w), n)| r + 1.1 * w + 0.2 * n);
            Embedding::normalized(values.collect()).unwrap()
        };
        let views = (0..3).map(|_| view(&mut rng)).collect();
        let said = Said {
            class: Some(class),
            captions: Vec::new(),
        };
        photos.push((views, said));
    }
    let held = photos.split_off(16);
    let texts = Texts {
        rows: rows(&prompts, DIM),
        strings: Vec::new(),
        classes: vec![vec![0, 3], vec![1, 4], vec![2]],
        negatives: vec![5, 6],
        general: Vec::new(),
        general_held_out: Vec::new(),
    };
    let made = |photos| Photos::new(photos, DIM).unwrap();
    (made(photos), made(held), texts)
}

fn learn(settings: Settings, checkpoint: Option<&Path>, stop_after: usize) -> Learnt {
    let (train, held_out, texts) = classes();
    let examples = Examples {
        train: &train,
        held_out: Some(&held_out),
        texts: &texts,
    };
    let mut session = Projection::session(examples, settings, checkpoint).unwrap();
    session.resume().unwrap();
    let mut each = |point: &Point| {
        if point.epoch == stop_after {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    session.run(&mut |_| {}, &mut each).unwrap().0
}

fn maps(learnt: &Learnt) -> Maps {
    Maps::learnt(&learnt.values).unwrap()
}

fn bits(maps: &Maps) -> Vec<u32> {
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let all = [flat(&maps.image), flat(&maps.text)].concat();
    all.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_resumed_run_gives_exactly_the_curve_of_an_uninterrupted_one() {
    for loss in [Loss::InfoNce, Loss::Sigmoid] {
        let settings = Settings { loss, ..settings() };
        let whole = learn(settings, None, usize::MAX);
        assert_eq!(whole.curve.len(), settings.epochs + 1);
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("run.safetensors");
        for stop_after in [2, 3, 6] {
            learn(settings, Some(&checkpoint), stop_after);
        }
        let resumed = learn(settings, Some(&checkpoint), usize::MAX);
        assert_eq!(resumed.curve, whole.curve);
        assert_eq!(resumed.best, whole.best);
        assert_eq!(bits(&maps(&resumed)), bits(&maps(&whole)));
    }
}

#[test]
fn a_damaged_checkpoint_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("run.safetensors");
    learn(settings(), Some(&checkpoint), 2);
    let (train, held_out, texts) = classes();
    let resume = |train: &Photos| {
        let examples = Examples {
            train,
            held_out: Some(&held_out),
            texts: &texts,
        };
        let mut session = Projection::session(examples, settings(), Some(&checkpoint)).unwrap();
        session.resume().map_err(|error| format!("{error:#}"))
    };
    assert_eq!(resume(&train).unwrap(), 2);
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    assert!(resume(&train).is_err());
    let (other, _) = pairs(DIM);
    candle_core::safetensors::save(
        &std::collections::HashMap::from([("curve".to_owned(), other.rows)]),
        &checkpoint,
    )
    .unwrap();
    assert!(resume(&train).unwrap_err().contains("--resume"));
}

#[test]
fn another_seed_is_another_run_and_the_same_seed_the_same() {
    let run = |seed| learn(Settings { seed, ..settings() }, None, usize::MAX).curve;
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn what_leans_the_wrong_way_is_set_right_and_a_strong_pull_keeps_it() {
    let free = learn(
        Settings {
            epochs: 40,
            ..settings()
        },
        None,
        usize::MAX,
    );
    assert!(free.curve[0].accuracy < 0.5, "{:?}", free.curve[0]);
    assert!(free.curve[free.best].accuracy > 0.9, "{:?}", free.curve);
    let strong = Settings {
        strength: 1e4,
        rule: Rule::AdamW { decay: 0.0 },
        clip: None,
        rate: 1e-4,
        ..settings()
    };
    let held = learn(strong, None, usize::MAX);
    let moved = maps(&held).distance().unwrap().to_scalar::<f32>().unwrap();
    let far = maps(&free).distance().unwrap().to_scalar::<f32>().unwrap();
    assert!(moved < 1e-3 && far > 0.1, "{moved} {far}");
}
