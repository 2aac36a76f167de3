//! The bundle that ships, when it was made.

use std::num::NonZeroUsize;
use std::path::Path;

use vedetta::bundle::{Bundle, Limits};
use vedetta::config::Shape;
use vedetta::encoder::ImageEncoder;
use vedetta::encoder::tract::TractImageEncoder;
use vedetta::preprocess::Preprocessor;
use vedetta::{label_bank, matcher, photo};

#[test]
fn the_demo_bundle_recognises_the_fixture_photos() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("models/demo");
    if !path.join("bundle.toml").exists() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let bundle = Bundle::open(&path, &Limits::default()).unwrap();
    let names = ["un'arancia", "una banana", "un limone", "latte"];
    let prompts = names.map(|name| vec![format!("una foto di {name}")]);
    let bank = label_bank::build(
        &bundle,
        None,
        &prompts,
        vec![Some(0); 4],
        &[],
        &mut |_, _| {},
    )
    .unwrap();
    let mut encoder = TractImageEncoder::load(&bundle, NonZeroUsize::MIN).unwrap();
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let photos = ["arance.jpg", "banane.jpg", "limoni.jpg", "latte.jpg"];
    for (expected, name) in photos.iter().enumerate() {
        let picture = photo::read(&root.join("tests/fixtures/photos").join(name)).unwrap();
        let input = preprocessor.prepare(&picture, &Shape::Full).unwrap();
        let image = &encoder.encode_images(&[input]).unwrap()[0];
        let scores = matcher::score(image, &bank, bundle.manifest().scoring.logit_scale);
        assert!(
            scores[expected].margin > 0.0,
            "{name}: {names:?} {scores:?}"
        );
    }
}
