use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use indicatif::ProgressBar;
use vedetta::bundle::{Bundle, Limits};
use vedetta::photo;
use vedetta::train::data;
use vedetta::train::descent::Rule;
use vedetta::train::fit::cache::{Cache, key};
use vedetta::train::fit::distillation::Objective;
use vedetta::train::fit::loss::Loss;
use vedetta::train::fit::taught::Teaching;
use vedetta::train::fit::tuning::Tuning;
use vedetta::train::fit::{Options, fit, report};
use vedetta::train::import::{self, import};
use vedetta::train::onnx::Store;
use vedetta::train::onnx::edit::Placed;
use vedetta::train::quantize;
use vedetta::train::tower::Rank;

/// Four photos, each cut in two ways.
pub fn photos(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
    for name in ["arance", "banane", "limoni", "latte"] {
        let picture = photo::read(&root.join(name).with_extension("jpg")).unwrap();
        fs::create_dir_all(folder.join(name)).unwrap();
        for part in 1..=3 {
            let (width, height) = (picture.width() * part / 3, picture.height() * part / 3);
            let cut = image::imageops::crop_imm(&picture, 0, 0, width, height).to_image();
            cut.save(folder.join(name).join(format!("{part}.png")))
                .unwrap();
        }
    }
}

/// The fixture `name` as a bundle in `folder`.
pub fn imported(name: &str, store: Store, folder: &Path) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
    let bundle = folder.join("bundle");
    let options = import::Options {
        name: Some("imported".to_owned()),
        command: "a test".to_owned(),
        store,
        force: true,
        ..import::Options::default()
    };
    let bar = ProgressBar::hidden();
    import(&fixtures.join(name), &bundle, &options, &bar).unwrap();
    bundle
}

pub fn options(folder: &Path) -> Options {
    Options {
        data: folder.join("photos"),
        dataset: data::Options::default(),
        held_out: 0.3,
        views: 1,
        epochs: Some(3),
        batch: 16,
        rate: 1e-2,
        rule: Rule::AdaBelief,
        loss: Loss::InfoNce,
        teaching: Teaching::default(),
        strength: Some(0.1),
        tuning: None,
        seed: 1,
        cache: folder.join("cache"),
        resume: false,
        force: true,
        command: "a test".to_owned(),
    }
}

/// The written towers are compared with their maps inside; a difference over 1e-5 is an error.
#[test]
fn imported_bundles_take_the_maps_into_their_projections() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    for (name, store) in [
        ("dual-encoder", Store::Float),
        ("dual-encoder", Store::Half),
        ("clip-new", Store::Float),
        ("siglip2", Store::Half),
    ] {
        let bundle = imported(name, store, folder.path());
        let out = folder.path().join("out");
        let outcome = fit(&bundle, &out, &options(folder.path()));
        let placed = outcome
            .unwrap_or_else(|e| panic!("{name}: {e:#}"))
            .written
            .unwrap();
        println!("{name}, {store:?}: {placed:?}");
        if name != "siglip2" {
            assert_eq!(placed, [Placed::Folded; 2], "{name}");
        }
    }
}

/// The written towers are run by the daemon's engine and compared with what was learnt inside; a
/// difference over 1e-4 is an error.
#[test]
fn tuned_towers_are_written_as_bundles_that_the_daemon_runs_and_quantize_takes() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let adapters = Tuning::adapters(Rank {
        rank: 2,
        alpha: 4.0,
    });
    let image_only = Tuning {
        text: false,
        ..adapters
    };
    let (all, untouched) = (Placed::Throughout, Placed::Nowhere);
    for (name, store, tuning, expected) in [
        (
            "dual-encoder",
            Store::Float,
            Tuning::clip_italian(1),
            [all, all],
        ),
        ("clip-new", Store::Half, adapters, [all, all]),
        ("open-clip", Store::Float, image_only, [all, untouched]),
    ] {
        let bundle = imported(name, store, folder.path());
        let out = folder.path().join("out");
        let options = Options {
            rate: 1e-3,
            strength: None,
            tuning: Some(tuning),
            ..options(folder.path())
        };
        let outcome = fit(&bundle, &out, &options).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(outcome.written, Some(expected), "{name}");
        let epochs = 3 + tuning.frozen_epochs;
        assert_eq!(outcome.learnt.curve.len(), epochs + 1, "{name}");
        let html = report::html(&outcome, "x").unwrap();
        assert!(html.contains("<polyline") && html.contains("its own weights were learnt"));
        let (old, new) = (open(&bundle), open(&out));
        for (file, placed) in ["image.onnx", "text.onnx"].into_iter().zip(expected) {
            let hash = |bundle: &Bundle| bundle.manifest().files[file].sha256.clone();
            assert_eq!(
                hash(&old) == hash(&new),
                placed == untouched,
                "{name} {file}"
            );
        }
        assert_eq!(old.manifest().precision, new.manifest().precision);

        let options = quantize::Options {
            photos: folder.path().join("photos"),
            keep_float: 0,
            sensitivity: false,
            zero_shot: None,
            force: true,
            command: "a test".to_owned(),
        };
        let int8 = folder.path().join("int8");
        let bar = ProgressBar::hidden();
        let report = quantize::quantize(&out, &int8, &options, &bar).unwrap();
        assert!(report.towers.iter().all(|tower| tower.quantized), "{name}");
    }
}

#[test]
fn a_tower_that_cannot_be_tuned_is_refused_with_what_to_use_instead() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let options = Options {
        strength: None,
        tuning: Some(Tuning::full()),
        ..options(folder.path())
    };
    let error = fit(&demo, &folder.path().join("out"), &options)
        .err()
        .unwrap();
    let error = format!("{error:#}");
    assert!(
        error.contains("--stage projection") && error.contains("image.onnx"),
        "{error}"
    );
    assert!(!folder.path().join("out").exists());
}

/// The demo bundle's image tower cannot be learnt through; beside a text tower that is learnt it is run
/// by the daemon's engine.
#[test]
fn beside_a_tower_that_stays_only_the_learnt_one_has_to_be_differentiable() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let out = folder.path().join("out");
    let options = Options {
        epochs: Some(1),
        rate: 1e-5,
        strength: None,
        tuning: Some(Tuning {
            image: false,
            ..Tuning::full()
        }),
        ..options(folder.path())
    };
    let outcome = fit(&demo, &out, &options).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(outcome.written, Some([Placed::Nowhere, Placed::Throughout]));
    let (old, new) = (open(&demo), open(&out));
    let hash = |bundle: &Bundle, file: &str| bundle.manifest().files[file].sha256.clone();
    assert_eq!(hash(&old, "image.onnx"), hash(&new, "image.onnx"));
    assert_ne!(hash(&old, "text.onnx"), hash(&new, "text.onnx"));
}

/// Beside the contrastive loss the bundle as it was is a teacher: it holds what was known.
#[test]
fn a_bundle_can_be_its_own_teacher() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let bundle = imported("dual-encoder", Store::Float, folder.path());
    let drift = |mse: f64| {
        let options = Options {
            rate: 1e-3,
            epochs: Some(6),
            strength: None,
            tuning: Some(Tuning::full()),
            teaching: Teaching {
                objective: Objective {
                    mse,
                    ..Objective::default()
                },
                ..Teaching::default()
            },
            ..options(folder.path())
        };
        let outcome = fit(&bundle, &folder.path().join("out"), &options).unwrap();
        assert_eq!(outcome.taught.is_some(), mse > 0.0);
        assert!(outcome.distilled_from().is_none());
        outcome.drift
    };
    let (free, held) = (drift(0.0), drift(100.0));
    println!("drift {free} free, {held} held");
    assert!(held < 0.75 * free);
}

/// 2160 of 2400 photos would be held out.
#[test]
fn however_many_photos_are_held_out_everything_is_measured_on_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (class, colour) in [("mela", [200, 60, 30]), ("pera", [60, 200, 40])] {
        let place = folder.path().join("photos").join(class);
        fs::create_dir_all(&place).unwrap();
        for number in 0..1200u32 {
            let picture = RgbImage::from_fn(16, 16, |x, y| {
                let noise = (x * 7 + y * 5 + number * 11 + number / 30 * x) % 40;
                Rgb(colour.map(|c: u32| u8::try_from(c + noise).unwrap()))
            });
            picture.save(place.join(format!("{number}.png"))).unwrap();
        }
    }
    let bundle = imported("dual-encoder", Store::Float, folder.path());
    for tuning in [Some(Tuning::full()), None] {
        let out = folder.path().join("out");
        let options = Options {
            held_out: 0.9,
            epochs: Some(1),
            batch: 64,
            rate: 1e-4,
            strength: tuning.is_none().then_some(0.1),
            tuning,
            ..options(folder.path())
        };
        let outcome = fit(&bundle, &out, &options).unwrap();
        assert_eq!((outcome.train.len(), outcome.held_out.len()), (400, 2000));
        let [before, after] = outcome.answers.as_ref().unwrap();
        assert_eq!((before.len(), after.len()), (2000, 2000));
        let written = open(&out);
        let evaluation = &written.manifest().evaluation;
        assert_eq!(evaluation["fit_held_out_photos"], 2000.0);
        let first = outcome.learnt.curve[0].held_out_loss;
        assert!((outcome.before.loss - first).abs() < 1e-3, "{first}");
        assert!((evaluation["fit_held_out_loss_before"] - first).abs() < 1e-3);
        report::html(&outcome, "x").unwrap();
    }
}

/// A text tower that is learnt reads its captions itself; only those that are measured with are needed
/// from the bundle as it was.
#[test]
fn captions_that_a_learnt_text_tower_reads_are_not_embedded_before() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let mut list = "image\tcaption\n".to_owned();
    for name in ["arance", "banane", "limoni", "latte"] {
        for part in 1..=3 {
            list += &format!("{name}/{part}.png\tuna foto di {name} numero {part}\n");
        }
    }
    fs::write(folder.path().join("photos/didascalie.tsv"), list).unwrap();
    let bundle = imported("dual-encoder", Store::Float, folder.path());
    let options = Options {
        epochs: Some(1),
        rate: 1e-4,
        strength: None,
        tuning: Some(Tuning::full()),
        ..options(folder.path())
    };
    let outcome = fit(&bundle, &folder.path().join("out"), &options).unwrap();
    let cache = Cache::open(&options.cache, &open(&bundle)).unwrap();
    let embedded = |item: &usize| {
        let caption = &outcome.dataset.items[*item].captions[0];
        cache.get(&key(&[b"text", caption.as_bytes()])).is_some()
    };
    assert!(outcome.held_out.iter().all(embedded));
    assert!(!outcome.train.iter().any(embedded));
}

#[test]
fn a_bundle_that_cannot_be_written_costs_no_epoch() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let bundle = imported("dual-encoder", Store::Float, folder.path());
    let (out, cache) = (folder.path().join("out"), folder.path().join("cache"));
    let checkpoint = || {
        let entries = fs::read_dir(&cache).into_iter().flatten();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.extension().is_some_and(|e| e == "safetensors"))
    };
    let options = Options {
        epochs: Some(20),
        rate: 1e-3,
        strength: None,
        tuning: Some(Tuning::full()),
        ..options(folder.path())
    };
    let failed = std::thread::scope(|scope| {
        let fitting = scope.spawn(|| fit(&bundle, &out, &options));
        while checkpoint().is_none() && !fitting.is_finished() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        fs::remove_dir_all(folder.path().join("out.partial")).unwrap();
        fitting.join().unwrap().err()
    });
    let error = format!("{:#}", failed.expect("there is no folder to write to"));
    assert!(error.contains("cannot write"), "{error}");
    assert!(checkpoint().is_some(), "the run is lost");
    let resumed = Options {
        resume: true,
        ..options
    };
    let outcome = fit(&bundle, &out, &resumed).unwrap();
    assert!(outcome.written.is_some() && outcome.learnt.curve.len() == 21);
    assert!(checkpoint().is_none(), "a run that is written is left over");
}

pub fn open(path: &Path) -> Bundle {
    Bundle::open(path, &Limits::default()).unwrap()
}
