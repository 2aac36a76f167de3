//! The demo bundle's image tower against tract's own graph, on photos.

use std::num::NonZeroUsize;
use std::path::Path;

use tract_onnx::prelude::*;

use crate::bundle::{Bundle, Limits};
use crate::config::Shape;
use crate::encoder::conv::kernels::Kernels;
use crate::encoder::conv::recognise::replace_towers;
use crate::encoder::tract::TractImageEncoder;
use crate::encoder::{Embedding, ImageEncoder, ModelInput};
use crate::preprocess::Preprocessor;

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models")
        .join(name)
}

/// The demo bundle, where it was made.
fn bundle() -> Option<Bundle> {
    let path = folder("demo");
    if !path.join("bundle.toml").exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(Bundle::open(&path, &Limits::default()).unwrap())
}

fn photos(bundle: &Bundle) -> Vec<ModelInput> {
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let mut paths: Vec<_> = std::fs::read_dir(folder("photos"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jpg"))
        .collect();
    paths.sort();
    let prepare = |path| {
        let picture = image::open(path).unwrap().to_rgb8();
        preprocessor.prepare(&picture, &Shape::Full).unwrap()
    };
    paths.iter().map(prepare).collect()
}

fn typed() -> TypedModel {
    let mut model = tract_onnx::onnx()
        .model_for_path(folder("demo/image.onnx"))
        .unwrap();
    let fact = InferenceFact::dt_shape(f32::datum_type(), [1, 3, 224, 224]);
    model.set_input_fact(0, fact).unwrap();
    model.into_typed().unwrap()
}

#[test]
fn every_convolution_of_the_demo_tower_is_taken() {
    if bundle().is_none() {
        return;
    }
    let mut model = typed();
    let report = replace_towers(&mut model, Kernels::best()).unwrap();
    assert_eq!(report.left, Vec::<String>::new());
    assert_eq!(report.taken, 49);
    assert_eq!(report.multiply_adds / 1_000_000, 383);
    let towers = model.nodes().iter().filter(|n| n.op.name() == "ConvTower");
    assert_eq!(towers.count(), 1);
}

#[test]
fn photos_are_embedded_as_by_tract_alone_batched_or_not_on_any_number_of_threads() {
    let Some(bundle) = bundle() else {
        return;
    };
    let photos = photos(&bundle);
    let plain = typed().into_optimized().unwrap().into_runnable().unwrap();
    let alone: Vec<Embedding> = photos
        .iter()
        .map(|photo| {
            let input = Tensor::from_shape(&[1, 3, 224, 224], &photo.values).unwrap();
            let output = plain.run(tvec!(input.into())).unwrap();
            let output = output[0].try_as_plain_ram().unwrap();
            Embedding::normalized(output.as_slice::<f32>().unwrap().to_vec()).unwrap()
        })
        .collect();

    let mut encoder = TractImageEncoder::load(&bundle, NonZeroUsize::MIN).unwrap();
    let ours = encoder.encode_images(&photos).unwrap();
    for (index, (ours, tract)) in ours.iter().zip(&alone).enumerate() {
        assert!(
            ours.dot(tract) >= 0.999_999,
            "photo {index}: {}",
            ours.dot(tract)
        );
    }

    for threads in [2, 3, 9] {
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut encoder = TractImageEncoder::load(&bundle, threads).unwrap();
        let batched = encoder.encode_images(&photos[..2]).unwrap();
        assert_eq!(batched, ours[..2], "{threads} threads, two photos");
        let single = encoder.encode_images(&photos[..1]).unwrap();
        assert_eq!(single, ours[..1], "{threads} threads, one photo");
    }
}
