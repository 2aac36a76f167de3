//! Against Hugging Face's CLIP image processor and Pillow: numbers from `tests/golden/preprocess.py`.

use std::path::Path;

use image::RgbImage;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use vedetta::bundle::manifest::{Channels, Crop, Image, Resize};
use vedetta::config::Shape;
use vedetta::photo;
use vedetta::preprocess::Preprocessor;

/// How far a JPEG decoder may be from libjpeg-turbo's, after the resize, in units of 1/255. Decoders
/// may round the inverse transform and the chroma upsampling differently.
const JPEG_TOLERANCE: u8 = 3;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    size_px: usize,
    resize: Resize,
    crop: Crop,
    mean: [f32; 3],
    std: [f32; 3],
    source: Source,
    region: Option<[u16; 4]>,
    sha256: String,
    pixels: Vec<(u32, u32, u8, u8, u8)>,
    values: Vec<(usize, usize, usize, f32)>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Source {
    Photo(String),
    Noise(u32, u32, u32),
}

impl Source {
    fn picture(&self) -> RgbImage {
        match self {
            Self::Photo(name) => {
                let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
                photo::read(&photos.join(name)).unwrap()
            }
            Self::Noise(width, height, seed) => {
                let mut state = *seed;
                RgbImage::from_fn(*width, *height, |_, _| {
                    image::Rgb(std::array::from_fn(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        state.to_be_bytes()[0]
                    }))
                })
            }
        }
    }
}

impl Case {
    fn preprocessor(&self) -> Preprocessor {
        Preprocessor::new(&Image {
            size_px: self.size_px,
            resize: self.resize,
            crop: self.crop,
            mean: self.mean,
            std: self.std,
            channels: Channels::Rgb,
        })
    }

    fn shape(&self, picture: &RgbImage) -> Shape {
        let Some(region) = self.region else {
            return Shape::Full;
        };
        let [x, y, width, height] = region.map(f32::from);
        let frame = |pixels: u32| f32::from(u16::try_from(pixels).unwrap());
        Shape::Rectangle {
            x: x / frame(picture.width()),
            y: y / frame(picture.height()),
            width: width / frame(picture.width()),
            height: height / frame(picture.height()),
        }
    }

    fn is_jpeg(&self) -> bool {
        matches!(&self.source, Source::Photo(name) if name.ends_with(".jpg"))
    }
}

fn cases() -> Vec<Case> {
    let golden: Golden = serde_json::from_str(include_str!("../golden/preprocess.json")).unwrap();
    assert!(golden.cases.len() > 20);
    golden.cases
}

#[test]
fn every_pixel_equals_hugging_face_and_pillow() {
    for case in cases().iter().filter(|case| !case.is_jpeg()) {
        let picture = case.source.picture();
        let fitted = case
            .preprocessor()
            .fit(&picture, &case.shape(&picture))
            .unwrap();
        let label = format!(
            "{:?} {:?} {:?} {:?}",
            case.source, case.region, case.resize, case.crop
        );
        for (x, y, r, g, b) in &case.pixels {
            assert_eq!(
                fitted.get_pixel(*x, *y).0,
                [*r, *g, *b],
                "{label} at {x},{y}"
            );
        }
        let hash: String = Sha256::digest(fitted.as_raw())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hash, case.sha256, "{label}");
    }
}

#[test]
fn normalised_values_equal_hugging_face() {
    for case in cases().iter().filter(|case| !case.is_jpeg()) {
        let picture = case.source.picture();
        let input = case
            .preprocessor()
            .prepare(&picture, &case.shape(&picture))
            .unwrap();
        for (channel, x, y, expected) in &case.values {
            let found = input.values[(channel * case.size_px + y) * case.size_px + x];
            assert!(
                (found - expected).abs() < 1e-6,
                "{:?}: {found} {expected}",
                case.source
            );
        }
    }
}

#[test]
fn a_jpeg_photo_is_as_pillow_decodes_it_to_a_few_units() {
    for case in cases().iter().filter(|case| case.is_jpeg()) {
        let picture = case.source.picture();
        let fitted = case.preprocessor().fit(&picture, &Shape::Full).unwrap();
        let worst = case
            .pixels
            .iter()
            .flat_map(|(x, y, r, g, b)| {
                let found = fitted.get_pixel(*x, *y).0;
                [(found[0], *r), (found[1], *g), (found[2], *b)]
            })
            .map(|(found, expected)| found.abs_diff(expected))
            .max()
            .unwrap();
        assert!(
            worst <= JPEG_TOLERANCE,
            "{:?} is {worst} units off",
            case.source
        );
    }
}
