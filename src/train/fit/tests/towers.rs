//! Learning the towers themselves: in chunks as in one go, interrupted as in one go.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use image::{Rgb, RgbImage};
use indicatif::ProgressBar;

use crate::bundle::{Bundle, Limits};
use crate::train::data::{self, Dataset, Split};
use crate::train::descent::Rule;
use crate::train::fit::cache::Cache;
use crate::train::fit::distillation::Objective;
use crate::train::fit::embed::Known;
use crate::train::fit::examples::{Said, Texts};
use crate::train::fit::gather::{self, Needed, Side, Wanted};
use crate::train::fit::loss::Loss;
use crate::train::fit::session::{Learner, Learnt, Point, Session, Settings, rng};
use crate::train::fit::towers::{Shown, Towers};
use crate::train::fit::tuning::{Tuning, Views};
use crate::train::import::{self, import};
use crate::train::tower::Rank;

const COLOURS: [(&str, [u8; 3]); 3] = [
    ("mela", [220, 60, 20]),
    ("pera", [60, 210, 40]),
    ("prugna", [70, 40, 200]),
];

pub(super) struct Shop {
    pub folder: tempfile::TempDir,
    pub bundle: Bundle,
    pub dataset: Dataset,
    pub split: Split,
    pub said: Vec<Said>,
    pub held_out: Side,
    pub texts: Texts,
}

/// A tiny CLIP-Italian with random weights, and 24 photos of three things.
pub(super) fn shop() -> Shop {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import/dual-encoder");
    let options = import::Options {
        name: Some("shop".to_owned()),
        command: "a test".to_owned(),
        ..import::Options::default()
    };
    let path = folder.path().join("bundle");
    import(&fixture, &path, &options, &ProgressBar::hidden()).unwrap();
    let bundle = Bundle::open(&path, &Limits::default()).unwrap();
    let photos = folder.path().join("photos");
    for (name, colour) in COLOURS {
        std::fs::create_dir_all(photos.join(name)).unwrap();
        for shade in 0..8u8 {
            let picture = RgbImage::from_fn(48, 40, |x, y| {
                let noise = u8::try_from((x * 7 + y * 5 + u32::from(shade) * 11) % 30).unwrap();
                Rgb(colour.map(|c| c.saturating_sub(noise + shade)))
            });
            picture
                .save(photos.join(name).join(format!("{shade}.png")))
                .unwrap();
        }
    }
    std::fs::write(photos.join("mela/broken.jpg"), "no photo").unwrap();
    let dataset = Dataset::open(&photos, &data::Options::default()).unwrap();
    let split = dataset.split(0.25, 1);
    let mut cache = Cache::in_memory(bundle.manifest().embedding_dim);
    let bar = ProgressBar::hidden();
    let texts = gather::texts(&bundle, &mut cache, &dataset, &[], Needed::All, &bar);
    let (texts, said) = texts.unwrap();
    let wanted = Wanted {
        dataset: &dataset,
        said: &said,
        items: &split.held_out,
        views: Known::plain(),
    };
    let mut skipped = data::Skips::default();
    let held_out = gather::photos(&bundle, &mut cache, &wanted, &mut skipped, &bar).unwrap();
    Shop {
        folder,
        bundle,
        dataset,
        split,
        said,
        held_out,
        texts,
    }
}

impl Shop {
    pub fn shown(&self) -> Shown<'_> {
        Shown {
            bundle: &self.bundle,
            dataset: &self.dataset,
            said: &self.said,
            train: &self.split.train,
            held_out: &self.held_out,
            texts: &self.texts,
            views: None,
            seen: None,
            taught: None,
        }
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.folder.path().join("run.safetensors")
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        epochs: 5,
        frozen_epochs: 0,
        frozen_rate: 1e-3,
        batch: 8,
        rate: 1e-3,
        rule: Rule::AdaBelief,
        clip: Some(0.01),
        loss: Loss::InfoNce,
        objective: Objective::default(),
        strength: 0.0,
        logit_scale: 20.0,
        seed: 5,
    }
}

fn adapters() -> Tuning {
    Tuning::adapters(Rank {
        rank: 2,
        alpha: 4.0,
    })
}

/// The gradients of the first batch, by name.
pub(super) fn gradients_of(
    shown: Shown,
    settings: Settings,
    tuning: Tuning,
) -> HashMap<String, Vec<f32>> {
    let mut towers = Towers::new(shown, settings, tuning).unwrap();
    let learnables = towers.learnables();
    let mut found = HashMap::new();
    let mut take = |gradients: &candle_core::backprop::GradStore, loss: f64| {
        for learnable in &learnables {
            let gradient = gradients.get(&learnable.var).unwrap();
            let values = gradient.flatten_all()?.to_vec1::<f32>()?;
            found.entry(learnable.name.clone()).or_insert(values);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a loss")]
        found.entry("loss".to_owned()).or_insert(vec![loss as f32]);
        Ok(())
    };
    towers.pass(rng(1, 1), &mut take).unwrap();
    found
}

#[test]
fn a_batch_in_chunks_has_the_gradient_of_the_whole_batch() {
    let shop = shop();
    for loss in [Loss::InfoNce, Loss::Sigmoid] {
        for (image, text) in [(true, true), (true, false)] {
            let settings = Settings {
                loss,
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
            let whole = gradients_of(shop.shown(), settings, whole);
            let chunks = gradients_of(shop.shown(), settings, chunks);
            assert_eq!(whole.len(), chunks.len());
            assert_eq!(whole.keys().any(|name| name.starts_with("text/")), text);
            let largest = |values: &[f32]| values.iter().fold(0f32, |a, v| a.max(v.abs()));
            let steepest = whole.values().map(|v| largest(v)).fold(0f32, f32::max);
            for (name, whole) in whole {
                // Where the gradient vanishes (the keys' biases), rounding is left.
                let most = largest(&whole).max(1e-2 * steepest);
                for (a, b) in whole.iter().zip(&chunks[&name]) {
                    assert!((a - b).abs() < 1e-4 * most, "{name}: {a} {b} of {most}");
                }
            }
        }
    }
}

fn learn(shop: &Shop, settings: Settings, tuning: Tuning, stop_after: Option<usize>) -> Learnt {
    learn_shown(shop, shop.shown(), settings, tuning, stop_after)
}

pub(super) fn learn_shown(
    shop: &Shop,
    shown: Shown,
    settings: Settings,
    tuning: Tuning,
    stop_after: Option<usize>,
) -> Learnt {
    let towers = Towers::new(shown, settings, tuning).unwrap();
    let checkpoint = stop_after.map(|_| shop.checkpoint());
    let mut session = Session::new(towers, settings, checkpoint.as_deref()).unwrap();
    session.resume().unwrap();
    let mut each = |point: &Point| {
        if Some(point.epoch) == stop_after {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let (learnt, towers) = session.run(&mut |_| {}, &mut each).unwrap();
    assert!(towers.skipped.count() <= 1, "listed once");
    learnt
}

pub(super) fn bits(values: &HashMap<String, Tensor>) -> Vec<(String, Vec<u32>)> {
    let bits = |tensor: &Tensor| {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    let mut all: Vec<_> = values.iter().map(|(n, t)| (n.clone(), bits(t))).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_resumed_run_gives_exactly_the_curve_of_an_uninterrupted_one() {
    let shop = shop();
    for (frozen_epochs, tuning) in [
        (2, Tuning::clip_italian(2)),
        (2, adapters()),
        (0, adapters()),
    ] {
        let settings = Settings {
            frozen_epochs,
            ..settings()
        };
        let whole = learn(&shop, settings, tuning, None);
        assert_eq!(whole.curve.len(), settings.epochs + 1);
        // Within the frozen phase, at its end, after it.
        for stop_after in [1, 2, 4] {
            learn(&shop, settings, tuning, Some(stop_after));
        }
        let resumed = learn(&shop, settings, tuning, Some(usize::MAX));
        assert_eq!(resumed.curve, whole.curve);
        assert_eq!((resumed.best, resumed.kept), (whole.best, whole.kept));
        assert_eq!(bits(&resumed.values), bits(&whole.values));
        std::fs::remove_file(shop.checkpoint()).unwrap();
    }
}

#[test]
fn what_the_frozen_phase_learnt_is_written_with_the_adapters() {
    let shop = shop();
    let settings = Settings {
        frozen_epochs: 3,
        frozen_rate: 0.02,
        ..settings()
    };
    let learnt = learn(&shop, settings, adapters(), None);
    assert!(
        learnt.kept > 3,
        "another rate is needed: {:?}",
        learnt.curve
    );
    let shown = shop.shown();
    let (_, after) = Towers::tuned(shown, settings, adapters(), &learnt.values, true).unwrap();
    let (after, kept) = (
        after.score(settings.logit_scale).unwrap(),
        learnt.curve[learnt.kept].score(),
    );
    assert!(
        after.accuracy == kept.accuracy && (after.loss - kept.loss).abs() < 1e-4,
        "{after:?} of {:?}",
        learnt.curve
    );
}

/// All of the first gradient's pull on the bias is what one batch differs by from another.
#[test]
fn the_sigmoid_losss_bias_begins_where_the_bundle_has_it() {
    let shop = shop();
    for logit_scale in [5.0, 20.0] {
        let settings = Settings {
            loss: Loss::Sigmoid,
            batch: 18,
            logit_scale,
            ..settings()
        };
        let tuning = Tuning {
            views: Views::Plain,
            ..Tuning::full()
        };
        let gradient = |bias: Option<f32>| {
            let mut towers = Towers::new(shop.shown(), settings, tuning).unwrap();
            let learnables = towers.learnables();
            let var = &learnables.last().unwrap().var;
            if let Some(bias) = bias {
                var.set(&Tensor::new(&[bias], var.device()).unwrap())
                    .unwrap();
            }
            let mut found = 0.0;
            let mut take = |gradients: &candle_core::backprop::GradStore, _: f64| {
                found = gradients.get(var).unwrap().to_vec1::<f32>()?[0].abs();
                Ok(())
            };
            towers.pass(rng(1, 1), &mut take).unwrap();
            found
        };
        let (begun, at_minus_10) = (gradient(None), gradient(Some(-10.0)));
        println!("scale {logit_scale}: {begun}, at -10 {at_minus_10}");
        assert!(
            begun < 0.2 * at_minus_10,
            "scale {logit_scale}: {begun} {at_minus_10}"
        );
    }
}

#[test]
fn in_the_frozen_phase_the_projections_are_learnt_alone() {
    let shop = shop();
    let settings = Settings {
        frozen_epochs: 1,
        ..settings()
    };
    let mut towers = Towers::new(shop.shown(), settings, Tuning::clip_italian(1)).unwrap();
    let names = |towers: &Towers| {
        let learnables = towers.learnables().into_iter();
        learnables.map(|l| l.name).collect::<Vec<_>>()
    };
    let projections = ["image/embedding.weight", "text/embedding.weight"];
    assert_eq!(names(&towers), projections);
    towers.enter(false).unwrap();
    assert!(names(&towers).len() > 40);
}

#[test]
fn photos_that_cannot_be_read_are_left_out_and_listed_once() {
    let shop = shop();
    let tuning = Tuning {
        views: Views::Plain,
        ..adapters()
    };
    let mut towers = Towers::new(shop.shown(), settings(), tuning).unwrap();
    for epoch in 1..=3 {
        towers.pass(rng(1, epoch), &mut |_, _| Ok(())).unwrap();
    }
    let broken = |i: &usize| shop.dataset.items[*i].name.ends_with("broken.jpg");
    assert!(
        shop.split.train.iter().any(broken),
        "another seed is needed"
    );
    assert_eq!(towers.skipped.count(), 1);
}
