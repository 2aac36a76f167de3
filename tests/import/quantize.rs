//! What quantization costs, which sublayers cost most, and what it refuses to write.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, safetensors};
use indicatif::ProgressBar;
use vedetta::train::data::Dataset;
use vedetta::train::evaluate::zero_shot::{Class, Question};
use vedetta::train::import::{self, import};
use vedetta::train::quantize::{Options, Report, ZeroShot, quantize};

use crate::refresh::{open, photos};

/// A channel that exceeds the others in what goes into the feed-forward parts of some layers, as in large
/// models (Dettmers et al., NeurIPS 2022).
struct Outlier {
    tower: &'static str,
    layers: &'static [usize],
    factor: f32,
}

const OUTLIERS: [Outlier; 2] = [
    Outlier {
        tower: "vision",
        layers: &[1],
        factor: 200.0,
    },
    Outlier {
        tower: "text",
        layers: &[0, 1],
        factor: 1000.0,
    },
];

/// Multiplies column `channel` of `[outputs, inputs]`, or element `channel` of `[width]`.
fn scale(tensors: &mut HashMap<String, Tensor>, name: &str, channel: usize, factor: f32) {
    let tensor = &tensors[name];
    let width = *tensor.dims().last().unwrap();
    let mut factors = vec![1f32; width];
    factors[channel] = factor;
    let factors = Tensor::new(factors, &Device::Cpu).unwrap();
    let scaled = tensor.broadcast_mul(&factors).unwrap();
    tensors.insert(name.to_owned(), scaled);
}

/// A bundle that computes what `clip-new` does, but for rounding: the weights behind an outlier are as much
/// smaller.
fn with_outlier(folder: &Path, outlier: Option<&Outlier>) -> PathBuf {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import/clip-new");
    let source = folder.join("source");
    fs::create_dir_all(&source).unwrap();
    for entry in fs::read_dir(&fixture).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), source.join(entry.file_name())).unwrap();
    }
    let weights = source.join("model.safetensors");
    let mut tensors = safetensors::load(&weights, &Device::Cpu).unwrap();
    if let Some(Outlier {
        tower,
        layers,
        factor,
    }) = outlier
    {
        for layer in *layers {
            let layer = format!("{tower}_model.encoder.layers.{layer}");
            for part in ["layer_norm2.weight", "layer_norm2.bias"] {
                scale(&mut tensors, &format!("{layer}.{part}"), 3, *factor);
            }
            let name = format!("{layer}.mlp.fc1.weight");
            scale(&mut tensors, &name, 3, 1.0 / factor);
        }
    }
    safetensors::save(&tensors, &weights).unwrap();
    let bundle = folder.join("bundle");
    let options = import::Options {
        name: Some("outliers".to_owned()),
        command: "a test".to_owned(),
        ..import::Options::default()
    };
    import(&source, &bundle, &options, &ProgressBar::hidden()).unwrap();
    photos(&folder.join("photos"));
    bundle
}

fn options(folder: &Path) -> Options {
    Options {
        photos: folder.join("photos"),
        keep_float: 0,
        sensitivity: false,
        zero_shot: None,
        force: false,
        command: "a test".to_owned(),
    }
}

fn run(folder: &Path, options: &Options) -> anyhow::Result<Report> {
    let (bundle, out) = (folder.join("bundle"), folder.join("int8"));
    let report = quantize(&bundle, &out, options, &ProgressBar::hidden());
    assert_eq!(report.is_ok(), out.exists());
    report
}

/// The right one of two images, and the other.
fn zero_shot(folder: &Path) -> ZeroShot {
    let class = |folder: &str, name: &str| Class {
        folder: folder.to_owned(),
        name: name.to_owned(),
    };
    ZeroShot {
        question: Question {
            classes: vec![class("arance", "arance"), class("latte", "latte")],
            templates: vec!["una foto di {}".to_owned()],
        },
        images: Dataset::open(&folder.join("photos"), &Default::default()).unwrap(),
    }
}

#[test]
fn a_tower_that_agrees_too_little_is_written_only_when_its_costly_sublayer_stays_float_or_forced() {
    for outlier in &OUTLIERS {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        with_outlier(folder, Some(outlier));
        let text = outlier.tower == "text";
        let name = if text { "text" } else { "image" };
        let refusal = format!("{:#}", run(folder, &options(folder)).unwrap_err());
        assert!(
            refusal.contains(&format!("the {name} tower agrees too little"))
                && refusal.contains("--keep-float 4"),
            "{refusal}"
        );

        let kept = Options {
            keep_float: outlier.layers.len(),
            ..options(folder)
        };
        let report = run(folder, &kept).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let tower = &report.towers[usize::from(text)];
        for row in &tower.sensitivity {
            println!("{name}: {:.6} {} {}", row.mean, row.position, row.name);
        }
        let means: Vec<f64> = tower.sensitivity.iter().map(|row| row.mean).collect();
        assert!(
            means.len() == 4 && means.is_sorted_by(|a, b| a >= b),
            "{means:?}"
        );
        // Attention and feed-forward part of the first layer, then of the second.
        let costly = tower.sensitivity.iter().take(outlier.layers.len());
        let mut costly: Vec<usize> = costly.map(|row| row.position).collect();
        costly.sort_unstable();
        let parts: Vec<usize> = outlier.layers.iter().map(|layer| 2 * layer + 1).collect();
        assert_eq!(costly, parts, "{:?}", tower.sensitivity);
        fs::remove_dir_all(folder.join("int8")).unwrap();

        let forced = Options {
            force: true,
            zero_shot: Some(zero_shot(folder)),
            ..options(folder)
        };
        let report = run(folder, &forced).unwrap();
        let [float, int8] = report.zero_shot.as_ref().unwrap();
        assert_eq!((float.images, int8.images), (6, 6));
        let evaluation = open(&folder.join("int8")).manifest().evaluation.clone();
        let rounded = |value: f64| (value * 10_000.0).round() / 10_000.0;
        assert_eq!(
            evaluation["zero_shot_float_top1"],
            rounded(float.accuracy[0])
        );
        assert_eq!(evaluation["zero_shot_top1"], rounded(int8.accuracy[0]));
    }
}

#[test]
fn photos_that_cannot_be_read_are_left_out_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    with_outlier(folder, None);
    fs::write(folder.join("photos/arance/0.jpg"), "no photo").unwrap();
    let report = run(folder, &options(folder)).unwrap();
    assert_eq!(report.towers[0].agreement.unwrap().count, 12);
    assert_eq!(report.skipped.count(), 1);
    assert_eq!(report.skipped.first()[0].name, "arance/0.jpg");

    for name in ["arance", "banane", "limoni", "latte"] {
        fs::remove_dir_all(folder.join("photos").join(name)).unwrap();
    }
    fs::write(folder.join("photos/0.jpg"), "no photo").unwrap();
    let again = Options {
        force: true,
        ..options(folder)
    };
    let bundle = folder.join("bundle");
    let error = quantize(
        &bundle,
        &folder.join("other"),
        &again,
        &ProgressBar::hidden(),
    );
    let error = format!("{:#}", error.unwrap_err());
    assert_eq!(error.matches("0.jpg").count(), 1, "{error}");
    assert!(error.contains("--photos"), "{error}");
}
