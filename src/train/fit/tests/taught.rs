//! Towers that learn from a teacher, and towers beside one that is not learnt.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::towers::{Shop, bits, gradients_of, learn_shown, settings, shop};
use crate::train::data::Skips;
use crate::train::fit::cache::Cache;
use crate::train::fit::distillation::Objective;
use crate::train::fit::embed::Known;
use crate::train::fit::gather::{self, Side, Wanted};
use crate::train::fit::session::Settings;
use crate::train::fit::taught::{self, Lesson, Taught};
use crate::train::fit::towers::Shown;
use crate::train::fit::tuning::Tuning;
use crate::train::targets::unit_rows;

const VIEWS: Known = Known {
    kind: crate::train::fit::tuning::Views::Mild,
    count: 2,
    seed: 5,
};

/// Unit rows at random, in place of what a teacher of random weights would say.
fn noise(rows: &Tensor, seed: u64) -> Tensor {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = rows.elem_count();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
    unit_rows(&Tensor::from_vec(values, rows.dims(), &Device::Cpu).unwrap()).unwrap()
}

/// What the shop's bundle makes of everything, then made a teacher with an opinion of its own.
fn teacher(shop: &Shop) -> Taught {
    let lesson = Lesson {
        dataset: &shop.dataset,
        said: &shop.said,
        train: &shop.split.train,
        held_out: &shop.held_out.items,
        general: &[],
        views: VIEWS,
        decides: true,
    };
    let mut cache = Cache::in_memory(shop.bundle.manifest().embedding_dim);
    let mut unread = Skips::default();
    let mut taught = Taught::gather(&shop.bundle, &mut cache, &lesson, &mut unread).unwrap();
    assert_eq!(unread.count(), 1, "the broken photo");
    taught.train.photos.rows = noise(&taught.train.photos.rows, 1);
    taught.held_out.photos.rows = noise(&taught.held_out.photos.rows, 2);
    taught.texts.rows = noise(&taught.texts.rows, 3);
    taught
}

/// The bundle's own embeddings of the known views.
fn seen(shop: &Shop) -> Side {
    let wanted = Wanted {
        dataset: &shop.dataset,
        said: &shop.said,
        items: &shop.split.train,
        views: VIEWS,
    };
    let mut cache = Cache::in_memory(shop.bundle.manifest().embedding_dim);
    let bar = indicatif::ProgressBar::hidden();
    gather::photos(
        &shop.bundle,
        &mut cache,
        &wanted,
        &mut Skips::default(),
        &bar,
    )
    .unwrap()
}

fn shown<'a>(shop: &'a Shop, seen: &'a Side, taught: Option<&'a Taught>) -> Shown<'a> {
    Shown {
        views: Some(VIEWS),
        seen: Some(seen),
        taught,
        ..shop.shown()
    }
}

const MSE: Objective = Objective {
    contrast: 0.0,
    mse: 1.0,
    affinity: 0.0,
};
const AFFINITY: Objective = Objective {
    contrast: 0.0,
    mse: 0.0,
    affinity: 1.0,
};
const ALL: Objective = Objective {
    contrast: 0.3,
    mse: 0.5,
    affinity: 2.0,
};

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |a, v| a.max(v.abs()))
}

#[test]
fn every_weight_gets_a_gradient_from_each_loss_and_chunks_give_that_of_the_whole_batch() {
    let shop = shop();
    let (taught, seen) = (teacher(&shop), seen(&shop));
    for objective in [MSE, AFFINITY, ALL] {
        for (image, text) in [(true, true), (true, false), (false, true)] {
            let settings = Settings {
                objective,
                batch: 18,
                ..settings()
            };
            let whole = Tuning {
                image,
                text,
                chunk: 200,
                ..Tuning::full()
            };
            let chunks = Tuning { chunk: 5, ..whole };
            let shown = shown(&shop, &seen, Some(&taught));
            let whole: HashMap<_, _> = gradients_of(shown, settings, whole);
            let chunks = gradients_of(shown, settings, chunks);
            for (prefix, learnt) in [("image/", image), ("text/", text)] {
                let found = whole.keys().any(|name| name.starts_with(prefix));
                assert_eq!(found, learnt, "{prefix}");
            }
            let steepest = whole.values().map(|v| largest(v)).fold(0f32, f32::max);
            for (name, whole) in whole {
                // A softmax does not see the keys' biases.
                let blind = name.ends_with("k_proj.bias") || name.ends_with("key.bias");
                assert!(blind || largest(&whole) > 0.0, "{objective:?}: {name}");
                let most = largest(&whole).max(1e-2 * steepest);
                for (a, b) in whole.iter().zip(&chunks[&name]) {
                    let near = (a - b).abs() < 2e-4 * most;
                    assert!(near, "{objective:?}: {name}: {a} {b} of {most}");
                }
            }
        }
    }
}

#[test]
fn a_resumed_distillation_ends_bit_by_bit_as_an_uninterrupted_one() {
    let shop = shop();
    let (taught, seen) = (teacher(&shop), seen(&shop));
    for (image, text) in [(true, true), (true, false), (false, true)] {
        let settings = Settings {
            objective: ALL,
            ..settings()
        };
        let tuning = Tuning {
            image,
            text,
            ..Tuning::full()
        };
        let shown = shown(&shop, &seen, Some(&taught));
        let learn = |stop_after| learn_shown(&shop, shown, settings, tuning, stop_after);
        let whole = learn(None);
        for stop_after in [1, 3] {
            learn(Some(stop_after));
        }
        let resumed = learn(Some(usize::MAX));
        assert_eq!(resumed.curve, whole.curve);
        assert_eq!((resumed.best, resumed.kept), (whole.best, whole.kept));
        assert_eq!(bits(&resumed.values), bits(&whole.values));
        std::fs::remove_file(shop.checkpoint()).unwrap();
    }
}

#[test]
fn what_is_learnt_from_a_teacher_comes_closer_to_it() {
    let shop = shop();
    let (taught, seen) = (teacher(&shop), seen(&shop));
    for objective in [MSE, AFFINITY] {
        let settings = Settings {
            objective,
            epochs: 8,
            ..settings()
        };
        // Noise can be learnt by heart only: it is measured on what is learnt from.
        let own = Taught {
            held_out: Side::new(taught.train.photos.clone(), taught.train.items.clone()),
            ..teacher(&shop)
        };
        let held_out = Side::new(seen.photos.clone(), seen.items.clone());
        let shown = Shown {
            held_out: &held_out,
            ..shown(&shop, &seen, Some(&own))
        };
        let learnt = learn_shown(&shop, shown, settings, Tuning::full(), None);
        let (first, last) = (learnt.curve[0], learnt.curve[learnt.curve.len() - 1]);
        println!("{objective:?}: {first:?} {last:?}");
        assert!(last.held_out_loss < 0.9 * first.held_out_loss);
    }
}

#[test]
fn general_texts_are_read_once_each_and_shuffled_by_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("texts.txt");
    std::fs::write(&list, "una mela\n\n  una pera \nuna mela\nun gatto\n").unwrap();
    let read = |seed| taught::general(&list, seed).unwrap();
    let mut texts = read(1);
    assert_eq!(texts, read(1));
    texts.sort_unstable();
    assert_eq!(texts, ["un gatto", "una mela", "una pera"]);
    std::fs::write(&list, "\n").unwrap();
    assert!(taught::general(&list, 1).is_err());
    assert!(taught::general(Path::new("/nowhere"), 1).is_err());
}
