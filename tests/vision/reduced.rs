//! What decoding a live frame at a reduced size does to embeddings.

use std::num::NonZeroUsize;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use vedetta::bundle::{Bundle, Limits};
use vedetta::config::Shape;
use vedetta::decode::{Picture, Scale};
use vedetta::encoder;
use vedetta::frame::Frame;
use vedetta::photo;
use vedetta::preprocess::Preprocessor;

/// Least mean cosine; int8 towers are held to the same against float.
const LEAST_MEAN: f32 = 0.999;

/// A photo as a 1080p camera would send it.
fn frame(photo: &Path) -> Picture {
    let scene = imageops::resize(
        &photo::read(photo).unwrap(),
        1920,
        1080,
        FilterType::CatmullRom,
    );
    let mut data = Vec::new();
    scene
        .write_with_encoder(JpegEncoder::new_with_quality(&mut data, 85))
        .unwrap();
    Picture::of(Frame::mjpeg(1920, 1080, data)).unwrap()
}

#[test]
fn a_reduced_frame_has_the_embedding_of_the_whole_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle = Bundle::open(&root.join("models/demo"), &Limits::default()).unwrap();
    let mut encoder = encoder::load_image(&bundle, NonZeroUsize::MIN).unwrap();
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let rectangle = |x, y, width, height| Shape::Rectangle {
        x,
        y,
        width,
        height,
    };
    let zones = [
        (Shape::Full, Scale::Half),
        (rectangle(0.13, 0.21, 0.7, 0.6), Scale::Whole),
        (rectangle(0.25, 0.25, 0.5, 0.5), Scale::Whole),
    ];
    let folder = std::fs::read_dir(root.join("models/photos")).unwrap();
    let mut photos: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    photos.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    photos.extend(
        ["arance", "banane", "latte", "limoni"]
            .map(|name| root.join(format!("tests/fixtures/photos/{name}.jpg"))),
    );
    let frames: Vec<Picture> = photos.iter().map(|path| frame(path)).collect();
    for (zone, scale) in zones {
        let view = preprocessor.view(&zone, 1920, 1080).unwrap();
        assert_eq!(view.scale, scale);
        let mut sum = 0.0;
        for picture in &frames {
            let mut inputs = preprocessor
                .prepare_live(picture, std::iter::once(&zone))
                .unwrap();
            let whole = picture.whole().unwrap();
            inputs.push(preprocessor.prepare(&whole, &zone).unwrap());
            let embeddings = encoder.encode_images(&inputs).unwrap();
            sum += embeddings[0].dot(&embeddings[1]);
        }
        #[expect(clippy::cast_precision_loss, reason = "a few photos")]
        let mean = sum / frames.len() as f32;
        assert!(mean >= LEAST_MEAN, "{zone:?}: mean cosine {mean}");
    }
}
