//! The tract engine on real ONNX files: the tiny bundle, and EfficientNet-Lite0 where it is there.

use std::num::NonZeroUsize;
use std::path::Path;

use image::{Rgb, RgbImage};
use vedetta::bundle::manifest::Padding;
use vedetta::bundle::{Bundle, Limits, Manifest};
use vedetta::config::Shape;
use vedetta::encoder::tract::{TractImageEncoder, TractTextEncoder};
use vedetta::encoder::{Embedding, ImageEncoder, ModelInput, TextEncoder};
use vedetta::label_bank;
use vedetta::matcher;
use vedetta::preprocess::Preprocessor;

use crate::support::tiny_bundle::{self, Files, SIZE_PX};

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// A tiny bundle, changed by `edit`.
fn bundle(edit: impl FnOnce(&mut Files, &mut Manifest)) -> (tempfile::TempDir, Bundle) {
    let folder = tempfile::tempdir().unwrap();
    let mut files = tiny_bundle::files();
    let mut manifest = tiny_bundle::manifest(&files);
    edit(&mut files, &mut manifest);
    let listed = tiny_bundle::manifest(&files);
    manifest.files = listed.files;
    tiny_bundle::write(folder.path(), &files, &manifest);
    let bundle = Bundle::open(folder.path(), &Limits::default()).unwrap();
    (folder, bundle)
}

fn good() -> (tempfile::TempDir, Bundle) {
    bundle(|_, _| {})
}

fn colour(rgb: [u8; 3]) -> RgbImage {
    RgbImage::from_pixel(50, 40, Rgb(rgb))
}

fn inputs(bundle: &Bundle, colours: &[[u8; 3]]) -> Vec<ModelInput> {
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let prepare = |rgb: &[u8; 3]| preprocessor.prepare(&colour(*rgb), &Shape::Full).unwrap();
    colours.iter().map(prepare).collect()
}

#[test]
fn a_red_picture_is_closest_to_the_word_for_red() {
    let (_folder, bundle) = good();
    let mut images = TractImageEncoder::load(&bundle, threads(1)).unwrap();
    let words = ["verde", "rosso", "blu", "giallo"].map(|w| vec![w.to_owned()]);
    let groups = vec![Some(0); words.len()];
    let bank = label_bank::build(&bundle, None, &words, groups, &[], &mut |_, _| {}).unwrap();
    for (rgb, expected) in [
        ([250, 10, 10], 1),
        ([0, 240, 0], 0),
        ([0, 0, 250], 2),
        ([250, 250, 0], 3),
    ] {
        let image = &images.encode_images(&inputs(&bundle, &[rgb])).unwrap()[0];
        let scores = matcher::score(image, &bank, bundle.manifest().scoring.logit_scale);
        let best = (0..4).max_by(|a, b| scores[*a].probability.total_cmp(&scores[*b].probability));
        assert_eq!(best, Some(expected), "{rgb:?}: {scores:?}");
    }
}

#[test]
fn a_batch_equals_singles_bit_for_bit_with_any_number_of_threads() {
    let (_folder, bundle) = good();
    let colours: Vec<[u8; 3]> = (0..19u8).map(|i| [i * 13, 255 - i * 7, i * 3]).collect();
    let batch = inputs(&bundle, &colours);
    let mut one = TractImageEncoder::load(&bundle, threads(1)).unwrap();
    let singles: Vec<Embedding> = batch
        .iter()
        .flat_map(|input| one.encode_images(std::slice::from_ref(input)).unwrap())
        .collect();
    for count in [1, 2, 3, 32] {
        let mut many = TractImageEncoder::load(&bundle, threads(count)).unwrap();
        assert_eq!(
            many.encode_images(&batch).unwrap(),
            singles,
            "{count} threads"
        );
    }
    assert_eq!(one.fork().encode_images(&batch).unwrap(), singles);
    assert!(one.encode_images(&[]).unwrap().is_empty());
}

#[test]
fn an_input_of_another_size_is_refused() {
    let (_folder, bundle) = good();
    let mut encoder = TractImageEncoder::load(&bundle, threads(1)).unwrap();
    let wrong = ModelInput {
        size_px: SIZE_PX / 2,
        values: vec![0.0; 3 * SIZE_PX * SIZE_PX / 4],
    };
    let message = encoder.encode_images(&[wrong]).unwrap_err().to_string();
    assert!(message.contains("[3, 32, 32]"), "{message}");
}

#[test]
fn an_output_that_is_not_finite_is_refused_at_load() {
    let (_folder, bundle) = bundle(|files, _| {
        let nan = tiny_bundle::image_graph(&[f32::NAN; 9]);
        files.insert("image.onnx".to_owned(), nan);
    });
    let message = TractImageEncoder::load(&bundle, threads(1))
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("not finite"), "{message}");
}

#[test]
fn a_graph_of_another_dimension_is_refused() {
    let (_folder, bundle) = bundle(|_, manifest| manifest.embedding_dim = 5);
    let message = TractImageEncoder::load(&bundle, threads(1))
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("[1, 5]"), "{message}");
    let message = TractTextEncoder::load(&bundle).err().unwrap().to_string();
    assert!(message.contains("[1, 5]"), "{message}");
}

#[test]
fn damaged_graphs_and_tokenizers_are_errors() {
    let text = tiny_bundle::files()["text.onnx"].clone();
    let image = tiny_bundle::files()["image.onnx"].clone();
    for bad in [
        b"not a model".to_vec(),
        image[..image.len() / 2].to_vec(),
        text.clone(),
    ] {
        let (_folder, bundle) = bundle(|files, _| {
            files.insert("image.onnx".to_owned(), bad.clone());
        });
        assert!(TractImageEncoder::load(&bundle, threads(1)).is_err());
    }
    for bad in [b"{}".to_vec(), b"[[[[[".to_vec(), vec![0xff; 100]] {
        let (_folder, bundle) = bundle(|files, _| {
            files.insert("tokenizer.json".to_owned(), bad.clone());
        });
        assert!(TractTextEncoder::load(&bundle).is_err());
    }
    // Every byte of a small graph flipped, one at a time: an error or a model, never a panic.
    for position in (0..image.len()).step_by(7) {
        let (_folder, bundle) = bundle(|files, _| {
            files.get_mut("image.onnx").unwrap()[position] ^= 0x15;
        });
        let _ = TractImageEncoder::load(&bundle, threads(1));
    }
}

#[test]
fn padding_and_batch_mates_do_not_change_a_text() {
    let (_folder, fixed) = good();
    let (_other, longest) = bundle(|_, manifest| manifest.text.padding = Padding::Longest);
    let texts = ["rosso", "rosso verde blu giallo rosso", "BLU verde"];
    let mut fixed = TractTextEncoder::load(&fixed).unwrap();
    let mut longest = TractTextEncoder::load(&longest).unwrap();
    let together = fixed.encode_texts(&texts).unwrap();
    for (text, expected) in texts.iter().zip(&together) {
        assert_eq!(&fixed.encode_texts(&[text]).unwrap()[0], expected);
        assert!(longest.encode_texts(&[text]).unwrap()[0].dot(expected) > 0.99999);
    }
}

#[test]
fn a_long_text_is_truncated_and_an_empty_one_refused() {
    let (_folder, bundle) = good();
    let mut encoder = TractTextEncoder::load(&bundle).unwrap();
    assert_eq!(
        encoder.tokenize(&"rosso ".repeat(100)).unwrap().ids(),
        [2; 8]
    );
    assert_eq!(encoder.tokenize("Rosso e VERDE").unwrap().ids(), [2, 1, 3]);
    for empty in ["", "   "] {
        let message = encoder
            .encode_texts(&["rosso", empty])
            .unwrap_err()
            .to_string();
        assert!(message.contains("no token"), "{message}");
    }
    assert!(encoder.encode_texts(&[&"a".repeat(1 << 20)]).is_err());
}

/// EfficientNet-Lite0 as an image tower: 1280 features named `embedding`, input as the manifest's.
pub fn lite0() -> Option<(tempfile::TempDir, Bundle)> {
    use prost::Message;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../shared/data/weights/efficientnet_lite0_in1k_fp32.onnx");
    let Ok(bytes) = std::fs::read(&path) else {
        println!("skipped: {} is not there", path.display());
        return None;
    };
    let mut model = tract_onnx::pb::ModelProto::decode(&bytes[..]).unwrap();
    let graph = model.graph.as_mut().unwrap();
    graph.output.retain(|output| output.name == "features");
    graph.output[0].name = "embedding".to_owned();
    for node in &mut graph.node {
        for name in node.output.iter_mut().chain(&mut node.input) {
            if name == "features" {
                *name = "embedding".to_owned();
            }
        }
    }
    Some(bundle(|files, manifest| {
        files.insert("image.onnx".to_owned(), model.encode_to_vec());
        manifest.embedding_dim = 1280;
        manifest.image.size_px = 224;
        manifest.image.mean = [127.0 / 255.0; 3];
        manifest.image.std = [128.0 / 255.0; 3];
    }))
}

#[test]
fn a_batch_through_a_real_network_equals_singles_bit_for_bit() {
    let Some((_folder, bundle)) = lite0() else {
        return;
    };
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
    let batch: Vec<ModelInput> = [
        "arance.jpg",
        "banane.jpg",
        "latte.jpg",
        "limoni.jpg",
        "latte.png",
    ]
    .iter()
    .map(|name| vedetta::photo::read(&photos.join(name)).unwrap())
    .map(|photo| preprocessor.prepare(&photo, &Shape::Full).unwrap())
    .collect();
    let mut one = TractImageEncoder::load(&bundle, threads(1)).unwrap();
    let mut two = TractImageEncoder::load(&bundle, threads(2)).unwrap();
    let singles: Vec<Embedding> = batch
        .iter()
        .flat_map(|input| one.encode_images(std::slice::from_ref(input)).unwrap())
        .collect();
    assert_eq!(two.encode_images(&batch).unwrap(), singles);
    assert_eq!(two.encode_images(&batch[..1]).unwrap(), singles[..1]);
}
