//! The eighth against the whole: real photos, every subsampling, damage.

use image::RgbImage;
use proptest::prelude::*;

use crate::decode::{DecodeError, jpeg};

const PHOTOS: [&str; 4] = ["arance", "banane", "latte", "limoni"];

fn photo(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/photos");
    std::fs::read(format!("{folder}/{name}.jpg")).unwrap()
}

/// Small JPEGs that libjpeg wrote, without the fuzzer's header of seven bytes.
fn seed(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/frame");
    std::fs::read(format!("{folder}/{name}")).unwrap()[7..].to_vec()
}

fn eighth(bytes: &[u8]) -> RgbImage {
    jpeg::eighth(bytes).unwrap().expect("it is baseline")
}

/// Means of 8×8 pixels; at the edges of those that are there.
fn means(whole: &RgbImage) -> Vec<[f32; 3]> {
    let (columns, rows) = (whole.width().div_ceil(8), whole.height().div_ceil(8));
    let block = |x: u32, y: u32| {
        let (mut sum, mut count) = ([0.0; 3], 0.0);
        for dy in (0..8).filter(|dy| y * 8 + dy < whole.height()) {
            for dx in (0..8).filter(|dx| x * 8 + dx < whole.width()) {
                let pixel = whole.get_pixel(x * 8 + dx, y * 8 + dy).0;
                (0..3).for_each(|c| sum[c] += f32::from(pixel[c]));
                count += 1.0;
            }
        }
        sum.map(|sum| sum / count)
    };
    (0..rows)
        .flat_map(|y| (0..columns).map(move |x| block(x, y)))
        .collect()
}

/// Mean and greatest difference of luma, codes, over blocks that lie inside as a whole: what encoders
/// fill the others up with is theirs.
fn luma_error(small: &RgbImage, whole: &RgbImage) -> (f32, f32) {
    let (columns, rows) = (whole.width() / 8, whole.height() / 8);
    let luma = |[r, g, b]: [f32; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let means = means(whole);
    assert_eq!(means.len(), small.pixels().len());
    let errors: Vec<f32> = small
        .enumerate_pixels()
        .zip(&means)
        .filter(|((x, y, _), _)| *x < columns && *y < rows)
        .map(|((_, _, got), want)| (luma(got.0.map(f32::from)) - luma(*want)).abs())
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let count = errors.len() as f32;
    (
        errors.iter().sum::<f32>() / count,
        errors.iter().copied().fold(0.0, f32::max),
    )
}

#[test]
fn a_photo_has_the_means_of_its_blocks() {
    for name in PHOTOS {
        let bytes = photo(name);
        let (mean, most) = luma_error(&eighth(&bytes), &jpeg::decode(&bytes).unwrap());
        assert!(mean < 0.5 && most < 8.0, "{name}: {mean} {most}");
    }
}

#[test]
fn every_layout_of_a_baseline_jpeg_is_read() {
    for name in ["jpeg-base", "jpeg-rst", "jpeg-grey", "mjpeg"] {
        let bytes = seed(name);
        let (small, whole) = (eighth(&bytes), jpeg::decode(&bytes).unwrap());
        assert_eq!(small.dimensions(), (3, 2), "{name}");
        let (mean, most) = luma_error(&small, &whole);
        assert!(mean < 2.0 && most < 6.0, "{name}: {mean} {most}");
    }
}

#[test]
fn a_progressive_jpeg_is_left_to_the_whole_decoder() {
    assert_eq!(jpeg::eighth(&seed("jpeg-prog")).unwrap(), None);
}

#[test]
fn a_picture_that_ends_early_is_damaged() {
    for name in PHOTOS {
        let bytes = photo(name);
        for part in [4, 10, 100] {
            let mut cut = bytes[..bytes.len() - bytes.len() / part].to_vec();
            cut.extend([0xff, 0xd9]);
            let outcome = jpeg::eighth(&cut);
            assert!(
                matches!(outcome, Err(DecodeError::Jpeg(_))),
                "{name}, 1/{part}"
            );
        }
    }
}

proptest! {
    #[test]
    fn damage_never_panics(
        which in 0_usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let names = ["jpeg-base", "jpeg-rst", "jpeg-grey", "mjpeg", "jpeg-prog"];
        let mut bytes = seed(names[which]);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let _ = jpeg::eighth(&bytes);
    }
}
