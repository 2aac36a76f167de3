use super::*;
use crate::bundle::manifest::{Channels, Crop, Image, Resize};
use crate::frame::Frame;

fn preprocessor(size_px: usize, crop: Crop) -> Preprocessor {
    Preprocessor::new(&Image {
        size_px,
        resize: Resize::Bicubic,
        crop,
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        channels: Channels::Rgb,
    })
}

fn picture(data: Vec<u8>) -> Picture {
    Picture::of(Frame::mjpeg(0, 0, data)).unwrap()
}

fn photo(name: &str) -> Picture {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/photos");
    picture(std::fs::read(format!("{folder}/{name}.jpg")).unwrap())
}

fn rectangle(x: f32, y: f32, width: f32, height: f32) -> Shape {
    Shape::Rectangle {
        x,
        y,
        width,
        height,
    }
}

fn scale(size_px: usize, crop: Crop, shape: &Shape, width: u32, height: u32) -> Scale {
    let preprocessor = preprocessor(size_px, crop);
    preprocessor.view(shape, width, height).unwrap().scale
}

#[test]
fn a_zone_is_reduced_as_long_as_it_has_twice_the_pixels() {
    let full = |width, height| scale(224, Crop::Center, &Shape::Full, width, height);
    assert_eq!(full(1280, 720), Scale::Whole);
    assert_eq!(full(1592, 895), Scale::Whole);
    assert_eq!(full(1593, 896), Scale::Half);
    assert_eq!(full(1920, 1080), Scale::Half);
    assert_eq!(full(3840, 2160), Scale::Quarter);
    let quarter = rectangle(0.25, 0.25, 0.5, 0.5);
    assert_eq!(scale(224, Crop::Center, &quarter, 1920, 1080), Scale::Whole);
    assert_eq!(scale(224, Crop::Center, &quarter, 3840, 2160), Scale::Half);
}

#[test]
fn a_squashed_zone_needs_twice_the_pixels_in_both_directions() {
    let squash = |width, height| scale(224, Crop::Squash, &Shape::Full, width, height);
    assert_eq!(squash(896, 896), Scale::Half);
    assert_eq!(squash(2000, 895), Scale::Whole);
    assert_eq!(squash(895, 2000), Scale::Whole);
}

#[test]
fn of_a_wide_zone_the_middle_is_read() {
    let view = preprocessor(224, Crop::Center)
        .view(&Shape::Full, 1920, 1080)
        .unwrap();
    assert_eq!((view.reads.y, view.reads.height), (0, 1080));
    assert!((380..420).contains(&view.reads.x), "{view:?}");
    assert!(
        (1500..1540).contains(&(view.reads.x + view.reads.width)),
        "{view:?}"
    );
    let view = preprocessor(224, Crop::Squash)
        .view(&Shape::Full, 1920, 1080)
        .unwrap();
    assert_eq!((view.reads.x, view.reads.width), (0, 1920));
}

/// Mean difference to the whole picture's input, codes of 0–255.
fn difference(preprocessor: &Preprocessor, picture: &Picture, shape: &Shape) -> f32 {
    let live = preprocessor
        .prepare_live(picture, std::iter::once(shape))
        .unwrap();
    let [live] = &live[..] else {
        panic!("one zone")
    };
    let whole = preprocessor
        .prepare(&picture.whole().unwrap(), shape)
        .unwrap();
    assert_eq!(
        (live.size_px, live.values.len()),
        (whole.size_px, whole.values.len())
    );
    let errors = live
        .values
        .iter()
        .zip(&whole.values)
        .map(|(a, b)| (a - b).abs());
    #[expect(clippy::cast_precision_loss, reason = "few values")]
    let mean = errors.sum::<f32>() / live.values.len() as f32;
    mean * 0.27 * 255.0
}

#[test]
fn live_inputs_are_those_of_the_whole_picture_within_a_code() {
    let triangle = Shape::Polygon(vec![[0.1, 0.2], [0.9, 0.1], [0.4, 0.95]]);
    let shapes = [Shape::Full, rectangle(0.13, 0.21, 0.7, 0.6), triangle];
    for name in ["arance", "banane", "latte", "limoni"] {
        let photo = photo(name);
        let (width, height) = photo.size_in_parts().unwrap();
        for size_px in [32, 64, 160] {
            for crop in [Crop::Center, Crop::Squash] {
                let preprocessor = preprocessor(size_px, crop);
                for shape in &shapes {
                    let mean = difference(&preprocessor, &photo, shape);
                    let view = preprocessor.view(shape, width, height).unwrap();
                    // The outline of a polygon is as coarse as the plane.
                    let most = if matches!(shape, Shape::Polygon(_)) {
                        2.5
                    } else {
                        1.5
                    };
                    assert!(mean < most, "{name} {size_px} {shape:?} {view:?}: {mean}");
                }
            }
        }
    }
}

#[test]
fn every_layout_of_a_jpeg_gives_the_whole_pictures_input() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/frame");
    for name in ["jpeg-base", "jpeg-rst", "jpeg-grey", "mjpeg"] {
        let bytes = std::fs::read(format!("{folder}/{name}")).unwrap()[7..].to_vec();
        let picture = picture(bytes);
        for size_px in [4, 8, 32] {
            let preprocessor = preprocessor(size_px, Crop::Squash);
            let mean = difference(&preprocessor, &picture, &Shape::Full);
            // Colours as saturated as these are clamped before or after the resize.
            let most = if name == "jpeg-grey" { 0.5 } else { 5.0 };
            assert!(mean < most, "{name} {size_px}: {mean}");
        }
    }
}

#[test]
fn zones_of_different_sizes_come_in_their_order() {
    let preprocessor = preprocessor(64, Crop::Center);
    let photo = photo("latte");
    let shapes = [
        rectangle(0.1, 0.1, 0.2, 0.2),
        Shape::Full,
        rectangle(0.6, 0.6, 0.3, 0.3),
    ];
    let together = preprocessor.prepare_live(&photo, shapes.iter()).unwrap();
    let alone = |shape| {
        preprocessor
            .prepare_live(&photo, std::iter::once(shape))
            .unwrap()
    };
    let alone: Vec<_> = shapes.iter().flat_map(alone).collect();
    assert_eq!(together, alone);
}

#[test]
fn a_picture_that_has_no_parts_is_prepared_as_it_is() {
    let preprocessor = preprocessor(32, Crop::Center);
    let rgb = RgbImage::from_fn(100, 80, |x, y| {
        image::Rgb([x, y, x ^ y].map(|v| v.to_le_bytes()[0]))
    });
    let live =
        preprocessor.prepare_live(&Picture::from(rgb.clone()), std::iter::once(&Shape::Full));
    assert_eq!(
        live.unwrap(),
        [preprocessor.prepare(&rgb, &Shape::Full).unwrap()]
    );
}

#[test]
fn a_live_input_has_the_values_that_bytes_have() {
    let preprocessor = preprocessor(224, Crop::Center);
    for name in ["arance", "latte"] {
        let inputs = preprocessor
            .prepare_live(&photo(name), std::iter::once(&Shape::Full))
            .unwrap();
        let planes = inputs[0].values.chunks_exact(224 * 224);
        for (plane, table) in planes.zip(&preprocessor.normalized) {
            for value in plane {
                let nearest = table.iter().map(|code| (code - value).abs());
                let error = nearest.fold(f32::INFINITY, f32::min);
                assert!(error < 1e-5, "{value} is not the value of a byte");
            }
        }
    }
}
