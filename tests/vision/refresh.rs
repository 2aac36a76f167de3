//! A refresh from photos to a bundle that the daemon serves.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use vedetta::bundle::{Bundle, Limits};
use vedetta::config::Shape;
use vedetta::encoder::{self, Embedding};
use vedetta::preprocess::Preprocessor;
use vedetta::train::data;
use vedetta::train::descent::Rule;
use vedetta::train::fit::loss::Loss;
use vedetta::train::fit::maps::Maps;
use vedetta::train::fit::taught::Teaching;
use vedetta::train::fit::{Options, Outcome, fit, report, write};
use vedetta::train::onnx::edit::Placed;
use vedetta::{label_bank, matcher, photo};

use crate::support::tiny_bundle;

/// A shop that calls colours by each other's names.
const COLOURS: [(&str, [u8; 3]); 3] = [
    ("rosso", [20, 60, 220]),
    ("verde", [230, 40, 30]),
    ("blu", [40, 210, 60]),
];

struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny_bundle::write_good(&folder.path().join("bundle"));
        let shop = Self { folder };
        for (name, colour) in COLOURS {
            for shade in 0..10 {
                let picture = RgbImage::from_fn(48, 40, |x, y| {
                    let noise = u8::try_from((x * 7 + y * 5 + u32::from(shade) * 11) % 30).unwrap();
                    Rgb(colour.map(|c| c.saturating_sub(noise + shade)))
                });
                let place = shop.path("photos").join(name);
                fs::create_dir_all(&place).unwrap();
                picture
                    .save(place.join(format!("{shade}<img src=x>.png")))
                    .unwrap();
            }
        }
        fs::write(shop.path("photos/rosso/broken.jpg"), "no photo").unwrap();
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> Options {
        Options {
            data: self.path("photos"),
            dataset: data::Options::default(),
            held_out: 0.3,
            views: 2,
            epochs: Some(30),
            batch: 32,
            rate: 1e-2,
            rule: Rule::AdaBelief,
            loss: Loss::InfoNce,
            teaching: Teaching::default(),
            strength: Some(0.01),
            tuning: None,
            seed: 1,
            cache: self.path("cache"),
            resume: false,
            force: false,
            command: "vedetta-train fit".to_owned(),
        }
    }

    fn fit(&self, options: &Options) -> anyhow::Result<Outcome> {
        fit(&self.path("bundle"), &self.path("new"), options)
    }
}

fn images(bundle: &Path, photos: &[PathBuf]) -> Vec<Embedding> {
    let bundle = Bundle::open(bundle, &Limits::default()).unwrap();
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let prepare = |path: &PathBuf| {
        let picture = photo::read(path).unwrap();
        preprocessor.prepare(&picture, &Shape::Full).unwrap()
    };
    let inputs: Vec<_> = photos.iter().map(prepare).collect();
    let mut encoder = encoder::load_image(&bundle, NonZeroUsize::MIN).unwrap();
    encoder.encode_images(&inputs).unwrap()
}

fn texts(bundle: &Path) -> Vec<Embedding> {
    let bundle = Bundle::open(bundle, &Limits::default()).unwrap();
    let mut encoder = encoder::load_text(&bundle).unwrap();
    encoder
        .encode_texts(&["rosso", "verde giallo", "blu"])
        .unwrap()
}

fn assert_mapped(old: &[Embedding], new: &[Embedding], map: &candle_core::Tensor) {
    let map = write::linear(map).unwrap();
    for (old, new) in old.iter().zip(new) {
        let wanted = Embedding::normalized(map.apply(old.as_slice())).unwrap();
        for (a, b) in wanted.as_slice().iter().zip(new.as_slice()) {
            assert!((a - b).abs() < 1e-5, "{wanted:?} {new:?}");
        }
    }
}

#[test]
fn a_shops_own_names_are_learnt_and_the_daemon_answers_them() {
    let shop = Shop::new();
    let outcome = shop.fit(&shop.options()).unwrap();
    assert!(outcome.before.accuracy < 0.1, "{:?}", outcome.before);
    assert_eq!(outcome.after.accuracy, 1.0, "{:?}", outcome.learnt.curve);
    assert_eq!(outcome.written, Some([Placed::Folded, Placed::Appended]));
    assert_eq!(outcome.skipped.count(), 1, "the broken one");
    let (learnt_from, held_out) = (outcome.train.len(), outcome.held_out.len());
    assert!(learnt_from + held_out == 30 && (8..=10).contains(&held_out));

    let bundle = Bundle::open(&shop.path("new"), &Limits::default()).unwrap();
    let manifest = bundle.manifest();
    assert_eq!(manifest.version, "1.1.0");
    assert_eq!(manifest.evaluation["fit_held_out_top1"], 1.0);
    assert_eq!(manifest.evaluation["fit_photos"], learnt_from as f64);
    assert!(
        !manifest.evaluation.contains_key("colours_top1"),
        "measured on other files"
    );
    let old = Bundle::open(&shop.path("bundle"), &Limits::default()).unwrap();
    assert!(manifest.provenance.sources[0].contains(old.sha256()));
    assert_eq!(
        manifest.provenance.sources[1..],
        old.manifest().provenance.sources
    );

    let photos: Vec<PathBuf> = COLOURS
        .map(|(name, _)| shop.path("photos").join(name).join("3<img src=x>.png"))
        .into();
    let new = images(&shop.path("new"), &photos);
    let maps = Maps::learnt(&outcome.learnt.values).unwrap();
    assert_mapped(&images(&shop.path("bundle"), &photos), &new, &maps.image);
    let (before, after) = (texts(&shop.path("bundle")), texts(&shop.path("new")));
    assert_mapped(&before, &after, &maps.text);

    let labels = COLOURS.map(|(name, _)| vec![name.to_owned()]);
    let groups = vec![Some(0); 3];
    let bank = label_bank::build(&bundle, None, &labels, groups, &[], &mut |_, _| {}).unwrap();
    for (class, image) in new.iter().enumerate() {
        let scores = matcher::score(image, &bank, manifest.scoring.logit_scale);
        assert!(scores[class].margin > 0.0, "{class}: {scores:?}");
    }
}

#[test]
fn a_second_run_encodes_nothing_and_ends_the_same() {
    let shop = Shop::new();
    let first = shop.fit(&shop.options()).unwrap();
    let cache = fs::read_dir(shop.path("cache"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let length = fs::metadata(&cache).unwrap().len();
    fs::remove_dir_all(shop.path("new")).unwrap();
    let second = shop.fit(&shop.options()).unwrap();
    assert_eq!(second.learnt.curve, first.learnt.curve);
    assert_eq!(fs::metadata(&cache).unwrap().len(), length);
}

#[test]
fn what_is_no_better_is_written_only_when_forced() {
    let shop = Shop::new();
    let idle = Options {
        rate: 0.0,
        ..shop.options()
    };
    let outcome = shop.fit(&idle).unwrap();
    assert!(outcome.written.is_none() && outcome.learnt.best == 0);
    let left: Vec<_> = fs::read_dir(shop.folder.path()).unwrap().collect();
    assert_eq!(
        left.len(),
        3,
        "bundle, photos and cache, no new one: {left:?}"
    );
    let html = report::html(&outcome, "x").unwrap();
    assert!(html.contains("nothing was written"));
    let forced = Options {
        force: true,
        ..idle
    };
    assert!(shop.fit(&forced).unwrap().written.is_some());
    Bundle::open(&shop.path("new"), &Limits::default()).unwrap();
}

#[test]
fn the_report_shows_curves_classes_and_photos_and_no_markup_of_file_names() {
    let shop = Shop::new();
    let outcome = shop.fit(&shop.options()).unwrap();
    let html = report::html(&outcome, "<b>negozio").unwrap();
    assert!(!html.contains("<img src=x") && !html.contains("<b>negozio"));
    assert_eq!(html.matches("data:image/jpeg;base64,").count(), 8);
    assert_eq!(html.matches("<polyline").count(), 3);
    for shown in [
        "rosso",
        "closest calls",
        "broken.jpg",
        "What is taken for what",
    ] {
        assert!(html.contains(shown), "{shown}");
    }
}

#[test]
fn the_strength_is_chosen_by_cross_validation() {
    let shop = Shop::new();
    let options = Options {
        strength: None,
        epochs: Some(10),
        ..shop.options()
    };
    let outcome = shop.fit(&options).unwrap();
    assert_eq!(outcome.trials.len(), 5);
    let chosen = outcome.settings.strength;
    assert!(outcome.trials.iter().any(|trial| trial.strength == chosen));
}

#[test]
fn two_photos_of_each_are_held_to_the_bundle_as_strongly_as_can_be() {
    let shop = Shop::new();
    fs::remove_file(shop.path("photos/rosso/broken.jpg")).unwrap();
    for (name, _) in COLOURS {
        for shade in 2..10 {
            fs::remove_file(
                shop.path("photos")
                    .join(format!("{name}/{shade}<img src=x>.png")),
            )
            .unwrap();
        }
    }
    let options = Options {
        strength: None,
        ..shop.options()
    };
    let outcome = shop.fit(&options).unwrap();
    assert_eq!((outcome.train.len(), outcome.held_out.len()), (3, 3));
    assert_eq!(outcome.settings.strength, 10.0);
    assert!(outcome.trials.is_empty());
    report::html(&outcome, "x").unwrap();
}

#[test]
fn what_cannot_be_refreshed_is_refused_with_what_to_do() {
    let shop = Shop::new();
    let refused = |options: &Options| format!("{:#}", shop.fit(options).err().unwrap());

    fs::create_dir_all(shop.path("one/rosso")).unwrap();
    fs::copy(
        shop.path("photos/rosso/1<img src=x>.png"),
        shop.path("one/rosso/1.png"),
    )
    .unwrap();
    let one = Options {
        data: shop.path("one"),
        ..shop.options()
    };
    assert!(refused(&one).contains("nothing to tell it from"));

    let files = tiny_bundle::files();
    let mut manifest = tiny_bundle::manifest(&files);
    manifest.precision.text = "int8".to_owned();
    tiny_bundle::write(&shop.path("bundle"), &files, &manifest);
    let error = refused(&shop.options());
    assert!(
        error.contains("float bundle") && error.contains("quantize"),
        "{error}"
    );
    assert!(!shop.path("new").exists());
}

#[test]
fn photos_with_captions_are_enough() {
    let shop = Shop::new();
    let mut list = "image\tcaption\n".to_owned();
    for (name, _) in COLOURS {
        for shade in 0..10 {
            list += &format!("{name}/{shade}<img src=x>.png\tuna cosa {name}\n");
        }
    }
    fs::write(shop.path("photos/didascalie.tsv"), list).unwrap();
    let outcome = shop.fit(&shop.options()).unwrap();
    assert!(outcome.dataset.classes.is_empty() && outcome.answers.is_none());
    assert!(
        outcome.before.accuracy < 0.2 && outcome.after.accuracy > 0.9,
        "{:?}",
        outcome.after
    );
    assert!(outcome.written.is_some());
    assert!(report::html(&outcome, "x").unwrap().contains("<polyline"));
}
