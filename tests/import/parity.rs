use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::Deserialize;
use vedetta::bundle::manifest::Padding;
use vedetta::bundle::{Bundle, Limits, MANIFEST};
use vedetta::config::Shape;
use vedetta::encoder::tract::{TractImageEncoder, TractTextEncoder};
use vedetta::encoder::{Embedding, ImageEncoder, TextEncoder};
use vedetta::photo;
use vedetta::preprocess::Preprocessor;
use vedetta::train::import::{Options, Report, import};
use vedetta::train::onnx::Store;

/// f32 against f32.
const MIN_COSINE: f32 = 0.99999;
const MAX_DIFFERENCE: f32 = 1e-4;

/// JPEG decoders differ by a step of 255 here and there, which no tower undoes.
const MIN_COSINE_JPEG: f32 = 0.9995;

#[derive(Deserialize)]
struct Reference {
    photos: BTreeMap<String, Vec<f32>>,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
    ids: Vec<u32>,
    alone: Vec<f32>,
    padded: Vec<f32>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reference(folder: &Path) -> Reference {
    serde_json::from_str(&fs::read_to_string(folder.join("reference.json")).unwrap()).unwrap()
}

fn run(source: &Path, vision: Option<&Path>, store: Store, out: &Path) -> Report {
    let options = Options {
        store,
        name: Some("parity".to_owned()),
        command: "a test".to_owned(),
        vision: vision.map(Path::to_owned),
        ..Options::default()
    };
    import(source, out, &options, &ProgressBar::hidden()).unwrap_or_else(|e| panic!("{e:#}"))
}

fn assert_same(what: &str, ours: &Embedding, theirs: &[f32], min_cosine: f32, exact: bool) {
    assert_eq!(ours.as_slice().len(), theirs.len(), "{what}");
    let theirs = Embedding::normalized(theirs.to_vec()).unwrap();
    let cosine = ours.dot(&theirs);
    let pairs = ours.as_slice().iter().zip(theirs.as_slice());
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{what}: cosine {cosine}, largest difference {difference:e}");
    assert!(cosine >= min_cosine, "{what}: cosine {cosine}");
    assert!(
        !exact || difference <= MAX_DIFFERENCE,
        "{what}: {difference}"
    );
}

fn images_agree(bundle: &Bundle, reference: &Reference) {
    let mut encoder = TractImageEncoder::load(bundle, NonZeroUsize::MIN).unwrap();
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    assert!(reference.photos.len() > 2);
    for (name, theirs) in &reference.photos {
        let rgb = photo::read(&root().join(name)).unwrap();
        let input = preprocessor.prepare(&rgb, &Shape::Full).unwrap();
        let ours = encoder.encode_images(&[input]).unwrap();
        let lossless = name.ends_with(".png");
        let least = if lossless {
            MIN_COSINE
        } else {
            MIN_COSINE_JPEG
        };
        assert_same(name, &ours[0], theirs, least, lossless);
    }
}

fn texts_agree(bundle: &Bundle, reference: &Reference) {
    let mut encoder = TractTextEncoder::load(bundle).unwrap();
    for sentence in &reference.sentences {
        let text = sentence.text.as_str();
        assert_eq!(
            encoder.tokenize(text).unwrap().ids(),
            sentence.ids,
            "{text}"
        );
        let ours = encoder.encode_texts(&[text]).unwrap();
        assert_same(text, &ours[0], &sentence.alone, MIN_COSINE, true);
        assert_same(text, &ours[0], &sentence.padded, MIN_COSINE, true);
    }
}

/// Imports `source` (a file of `folder`, or the folder) and compares both towers with the reference in
/// `folder`, texts padded as little and as much as can be.
fn agrees(source: &Path, folder: &Path) -> Report {
    agrees_with(source, None, Store::default(), folder)
}

/// As [`agrees`], with a vision tower of another checkpoint, and matrices stored so: as f16 the towers of a
/// checkpoint in f16 lose nothing, that of another one does and is not compared.
fn agrees_with(source: &Path, vision: Option<&Path>, store: Store, folder: &Path) -> Report {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("bundle");
    let mut report = run(source, vision, store, &out);
    let texts = reference(folder);
    let bundle = Bundle::open(&out, &Limits::default()).unwrap();
    if vision.is_none() || store == Store::default() {
        images_agree(&bundle, &reference(vision.unwrap_or(folder)));
    }
    texts_agree(&bundle, &texts);
    if report.manifest.text.padding == Padding::MaxLength {
        return report;
    }
    report.manifest.text.padding = Padding::MaxLength;
    let manifest = toml::to_string(&report.manifest).unwrap();
    fs::write(out.join(MANIFEST), manifest).unwrap();
    texts_agree(&Bundle::open(&out, &Limits::default()).unwrap(), &texts);
    report
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/import").join(name)
}

#[test]
fn clip_italians_layout_agrees_with_transformers() {
    let folder = fixture("dual-encoder");
    let report = agrees(&folder, &folder);
    assert_eq!(report.manifest.scoring.logit_scale, 20.0);
}

#[test]
fn every_file_format_gives_the_same_model() {
    let folder = fixture("dual-encoder");
    for file in [
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "flax_model.msgpack",
    ] {
        println!("{file}");
        let report = agrees(&folder.join(file), &folder);
        let files = report.manifest.provenance.sources.len();
        assert_eq!(files, if file.ends_with(".json") { 2 } else { 1 });
    }
}

#[test]
fn clip_with_quick_gelu_and_the_old_end_of_text_agrees_with_transformers() {
    let folder = fixture("clip-old");
    let report = agrees(&folder, &folder);
    assert!((report.manifest.scoring.logit_scale - 3_f32.exp()).abs() < 1e-4);
    assert!(report.notes.iter().any(|note| note.contains("merges.txt")));
}

#[test]
fn clip_with_gelu_and_the_new_end_of_text_agrees_with_transformers() {
    let folder = fixture("clip-new");
    agrees(&folder, &folder);
}

#[test]
fn multilingual_clip_agrees_with_its_definition() {
    let (texts, images) = (fixture("multilingual-clip"), fixture("clip-new"));
    let report = agrees_with(&texts, Some(&images), Store::default(), &texts);
    assert_eq!(report.manifest.provenance.sources.len(), 2);
    assert!((report.manifest.scoring.logit_scale - 3_f32.exp()).abs() < 1e-4);
}

#[test]
fn open_clip_with_xlm_roberta_agrees_with_open_clip() {
    let folder = fixture("open-clip");
    let report = agrees(&folder, &folder);
    assert!((report.manifest.scoring.logit_scale - 4.5_f32.exp()).abs() < 0.01);
}

#[test]
fn siglip_2_agrees_with_transformers() {
    let folder = fixture("siglip2");
    let report = agrees(&folder, &folder);
    assert_eq!(report.manifest.text.max_tokens, 64);
    assert!(report.notes.iter().any(|note| note.contains("bias -16")));
    assert!(report.notes.iter().any(|note| note.contains("lower-cases")));
}

/// Full-size checkpoints, too large to commit: `make.py --full DIR`, then `VEDETTA_IMPORT_FULL=DIR`.
#[test]
fn full_size_checkpoints_agree_with_transformers() {
    let Some(folder) = std::env::var_os("VEDETTA_IMPORT_FULL") else {
        println!("SKIPPED: VEDETTA_IMPORT_FULL names no folder with full-size checkpoints");
        return;
    };
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.join("reference.json").exists() {
            println!("{}", path.display());
            let vision = path.parent().unwrap().join("clip-old");
            // In f32 its text tower is larger than a bundle may be; the checkpoint is in f16 itself.
            if path.ends_with("multilingual-clip") {
                agrees_with(&path, Some(&vision), Store::Half, &path);
            } else {
                agrees(&path, &path);
            }
            found += 1;
        }
    }
    assert!(found > 0, "no checkpoint there");
}
