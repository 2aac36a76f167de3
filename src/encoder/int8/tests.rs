//! Both engines on bundles of a few hundred kilobytes: PyTorch's towers and a tokenizer of words.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tract_onnx::prelude::*;

use super::kernels::{Context, Isa};
use super::op::{Accelerator, Device, Fused, PatchDevice, Patches, Sublayers};
use super::sublayer::Batch;
use super::tower::{Kind, Tower};
use super::{Int8ImageEncoder, Int8TextEncoder};
use crate::bundle::manifest::*;
use crate::bundle::{Bundle, Limits};
use crate::encoder::tract::{TractImageEncoder, TractTextEncoder};
use crate::encoder::{Embedding, EncodeError, ImageEncoder, ModelInput, TextEncoder};

type Files = BTreeMap<&'static str, Vec<u8>>;

fn fixture(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read(root.join("tests/fixtures/int8").join(name)).unwrap()
}

fn files(image: &str, text: &str) -> Files {
    let words = [
        "[PAD]", "[UNK]", "una", "banana", "matura", "sul", "tavolo", "di", "legno",
    ];
    let vocabulary: BTreeMap<&str, usize> = words.into_iter().zip(0..).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    });
    BTreeMap::from([
        ("image.onnx", fixture(image)),
        ("text.onnx", fixture(text)),
        ("tokenizer.json", tokenizer.to_string().into_bytes()),
        ("LICENSES.md", b"Made for tests, CC0.\n".to_vec()),
    ])
}

fn bundle(folder: &Path, files: &Files) -> Bundle {
    bundle_of(16, folder, files)
}

fn bundle_of(embedding_dim: usize, folder: &Path, files: &Files) -> Bundle {
    let listed = |bytes: &Vec<u8>| File {
        sha256: Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
        bytes: bytes.len() as u64,
    };
    let packed = |name| {
        if files.contains_key(name) {
            "f32"
        } else {
            "int8"
        }
    };
    let manifest = Manifest {
        schema: SCHEMA,
        name: "towers".to_owned(),
        version: "1.0.0".to_owned(),
        minimum_vedetta: "0.1.0".to_owned(),
        language: "it".to_owned(),
        embedding_dim,
        image: Image {
            size_px: 32,
            resize: Resize::Bicubic,
            crop: Crop::Center,
            mean: [0.5; 3],
            std: [0.5; 3],
            channels: Channels::Rgb,
        },
        text: Text {
            max_tokens: 12,
            padding: Padding::Longest,
            pad_id: 0,
        },
        scoring: Scoring { logit_scale: 10.0 },
        precision: Precision {
            image: packed("image.onnx").to_owned(),
            text: packed("text.onnx").to_owned(),
        },
        files: files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), listed(bytes)))
            .collect(),
        evaluation: BTreeMap::new(),
        provenance: Provenance {
            command: "src/encoder/int8/tests.rs".to_owned(),
            sources: vec!["tests/fixtures/int8/make.py, CC0".to_owned()],
        },
    };
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(
        folder.join("bundle.toml"),
        toml::to_string(&manifest).unwrap(),
    )
    .unwrap();
    Bundle::open(folder, &Limits::default()).unwrap()
}

/// The same bundle with packed towers instead of graphs.
fn packed(folder: &Path, float: &Bundle, mut files: Files) -> Bundle {
    let context = Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN));
    for (kind, graph, name) in [
        (Kind::Image, "image.onnx", "image.int8"),
        (Kind::Text, "text.onnx", "text.int8"),
    ] {
        let mut bytes = Vec::new();
        Tower::load(float, kind, &context)
            .unwrap()
            .write(&mut bytes)
            .unwrap();
        files.remove(graph);
        files.insert(name, bytes);
    }
    bundle(folder, &files)
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

#[expect(clippy::cast_possible_truncation, reason = "pixels, not positions")]
fn pictures() -> Vec<ModelInput> {
    (0..5)
        .map(|picture| {
            let phase = f64::from(picture);
            let values = (0..3 * 32 * 32).map(f64::from).map(|i| {
                (1.5 * (0.37 * i + phase).sin() * (0.011 * i * (1.0 + phase)).cos()) as f32
            });
            ModelInput {
                size_px: 32,
                values: values.collect(),
            }
        })
        .collect()
}

const TEXTS: [&str; 4] = [
    "una banana",
    "banana matura sul tavolo di legno una banana sul tavolo di legno",
    "tavolo",
    "una banana matura",
];

#[test]
fn images_are_what_the_float_engine_says() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(
        folder.path(),
        &files("clip-vision.script.onnx", "bert.script.onnx"),
    );
    let mut float = TractImageEncoder::load(&bundle, threads(1)).unwrap();
    let mut int8 = Int8ImageEncoder::load(&bundle, threads(2)).unwrap();
    let (a, b) = (
        float.encode_images(&pictures()),
        int8.encode_images(&pictures()),
    );
    for (a, b) in a.unwrap().iter().zip(&b.unwrap()) {
        assert!(a.dot(b) > 0.999, "{}", a.dot(b));
    }
    assert!(
        int8.describe().starts_with("int8-cpu "),
        "{}",
        int8.describe()
    );
}

/// An accelerator that gives back what it is given, or something else.
struct Echo {
    factor: f32,
}

impl Accelerator for Echo {
    fn place(&self, sublayers: &Sublayers, _: usize) -> Result<Arc<dyn Device>, String> {
        Ok(Arc::new(Placed {
            sublayers: sublayers.clone(),
            factor: self.factor,
        }))
    }

    fn place_patches(&self, _: &Patches) -> Result<Arc<dyn PatchDevice>, String> {
        Err("patches".to_owned())
    }

    fn describe(&self) -> String {
        "echo".to_owned()
    }
}

struct Placed {
    sublayers: Sublayers,
    factor: f32,
}

impl Device for Placed {
    fn run(&self, x: &mut Vec<f32>, batch: Batch) -> Result<(), String> {
        let (width, tokens) = (self.sublayers.width(), batch.tokens);
        let items = x.chunks_exact(tokens * width).map(|one| {
            let one = Tensor::from_shape(&[1, tokens, width], one).unwrap();
            tvec!(one.into_tvalue())
        });
        let results = self.sublayers.run(items.collect()).unwrap();
        x.clear();
        for result in results {
            let plain = result.try_as_plain_ram().unwrap();
            x.extend_from_slice(plain.as_slice::<f32>().unwrap());
        }
        // Every second value.
        x.iter_mut().step_by(2).for_each(|v| *v *= self.factor);
        Ok(())
    }

    fn most_rows(&self) -> usize {
        1 << 14
    }
}

#[test]
fn an_accelerator_that_computes_something_else_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let files = files("clip-vision.script.onnx", "bert.script.onnx");
    let bundle = bundle(folder.path(), &files);
    let context = Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN));
    let tower = Tower::load(&bundle, Kind::Image, &context).unwrap();
    let on = |factor| {
        let echo = Echo { factor };
        Int8ImageEncoder::on(&tower, &context, 32, Some(&echo)).unwrap()
    };
    let expected = Int8ImageEncoder::new(&tower, &context, 32)
        .unwrap()
        .encode_images(&pictures())
        .unwrap();
    for (factor, used) in [(1.0, true), (-1.0, false), (f32::NAN, false)] {
        let mut encoder = on(factor);
        assert_eq!(encoder.is_accelerated(), used, "{factor}");
        assert_eq!(encoder.describe().starts_with("echo"), used, "{factor}");
        assert_eq!(encoder.encode_images(&pictures()).unwrap(), expected);
    }
}

#[test]
fn texts_are_what_the_float_engine_says() {
    for text in [
        "bert.script.onnx",
        "xlm-roberta.script.onnx",
        "clip-text.dynamo.onnx",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(folder.path(), &files("vit.dynamo.onnx", text));
        let mut int8 = Int8TextEncoder::load(&bundle, threads(2)).unwrap();
        let b = int8.encode_texts(&TEXTS).unwrap();
        if text.starts_with("clip") {
            // Takes 12 tokens only: the float engine would need another padding rule.
            assert_eq!(b.len(), TEXTS.len());
            continue;
        }
        let a = TractTextEncoder::load(&bundle)
            .unwrap()
            .encode_texts(&TEXTS)
            .unwrap();
        for (a, b) in a.iter().zip(&b) {
            assert!(a.dot(b) > 0.999, "{text}: {}", a.dot(b));
        }
    }
}

#[test]
fn a_packed_bundle_gives_the_same_bits_on_any_number_of_threads() {
    for (image, text) in [
        ("vit.script.onnx", "bert.dynamo.onnx"),
        ("clip-vision.dynamo.onnx", "clip-text.script.onnx"),
        ("siglip.dynamo.onnx", "xlm-roberta.script.onnx"),
        ("open-clip.script.onnx", "clip-text.dynamo.onnx"),
    ] {
        packed_gives_the_same_bits(files(image, text));
    }
}

fn packed_gives_the_same_bits(files: Files) {
    let folder = tempfile::tempdir().unwrap();
    let float = bundle(&folder.path().join("float"), &files);
    let packed = packed(&folder.path().join("packed"), &float, files);
    assert!(!packed.manifest().files.contains_key("image.onnx"));
    let images = |bundle, count| {
        let mut encoder = Int8ImageEncoder::load(bundle, threads(count)).unwrap();
        let batch = encoder.encode_images(&pictures()).unwrap();
        for (picture, in_batch) in pictures().into_iter().zip(&batch) {
            assert_eq!(&encoder.encode_images(&[picture]).unwrap()[0], in_batch);
        }
        batch
    };
    assert_eq!(images(&float, 1), images(&packed, 2));
    let texts = |bundle, count| {
        let mut encoder = Int8TextEncoder::load(bundle, threads(count)).unwrap();
        let batch: Vec<Embedding> = encoder.encode_texts(&TEXTS).unwrap();
        for (text, in_batch) in TEXTS.iter().zip(&batch) {
            assert_eq!(&encoder.encode_texts(&[text]).unwrap()[0], in_batch);
        }
        batch
    };
    assert_eq!(texts(&float, 1), texts(&packed, 2));
}

#[test]
fn a_packed_file_that_changed_since_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = files("vit.dynamo.onnx", "bert.dynamo.onnx");
    let float = bundle(&folder.path().join("float"), &files);
    let packed = packed(&folder.path().join("packed"), &float, files);
    let file = folder.path().join("packed/image.int8");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let problem = Int8ImageEncoder::load(&packed, threads(1)).err().unwrap();
    assert!(problem.to_string().contains("SHA-256"), "{problem}");
}

#[test]
fn a_convolutional_tower_is_refused_with_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = files("vit.dynamo.onnx", "bert.dynamo.onnx");
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/image.onnx");
    files.insert("image.onnx", fs::read(demo).unwrap());
    let bundle = bundle_of(256, folder.path(), &files);
    match Int8ImageEncoder::load(&bundle, threads(1)).err().unwrap() {
        EncodeError::Engine { message, .. } => {
            assert!(message.contains("no transformer block"), "{message}");
        }
        other => panic!("{other}"),
    }
}
