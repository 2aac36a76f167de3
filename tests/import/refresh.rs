use std::fs;
use std::path::Path;

use indicatif::ProgressBar;
use vedetta::photo;
use vedetta::train::data;
use vedetta::train::descent::Rule;
use vedetta::train::fit::loss::Loss;
use vedetta::train::fit::{Options, fit};
use vedetta::train::import::{self, import};
use vedetta::train::onnx::Store;
use vedetta::train::onnx::edit::Placed;

/// Four photos, each cut in two ways.
fn photos(folder: &Path) {
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

/// The written towers are compared with their maps inside; a difference over 1e-5 is an error.
#[test]
fn imported_bundles_take_the_maps_into_their_projections() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
    for (name, store) in [
        ("dual-encoder", Store::Float),
        ("dual-encoder", Store::Half),
        ("clip-new", Store::Float),
        ("siglip2", Store::Half),
    ] {
        let (bundle, out) = (folder.path().join("bundle"), folder.path().join("out"));
        let options = import::Options {
            name: Some("imported".to_owned()),
            command: "a test".to_owned(),
            store,
            force: true,
            ..import::Options::default()
        };
        import(
            &fixtures.join(name),
            &bundle,
            &options,
            &ProgressBar::hidden(),
        )
        .unwrap();
        let options = Options {
            data: folder.path().join("photos"),
            dataset: data::Options::default(),
            held_out: 0.3,
            views: 1,
            epochs: Some(3),
            batch: 16,
            rate: 1e-2,
            rule: Rule::AdaBelief,
            loss: Loss::InfoNce,
            strength: Some(0.1),
            tuning: None,
            seed: 1,
            cache: folder.path().join("cache"),
            resume: false,
            force: true,
            command: "a test".to_owned(),
        };
        let outcome = fit(&bundle, &out, &options).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let placed = outcome.written.unwrap();
        println!("{name}, {store:?}: {placed:?}");
        if name != "siglip2" {
            assert_eq!(placed, [Placed::Folded; 2], "{name}");
        }
    }
}
