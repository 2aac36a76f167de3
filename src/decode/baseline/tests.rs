//! The eighth and the parts against the whole: real photos, every subsampling, damage.

use image::codecs::jpeg::JpegEncoder;
use image::{GrayImage, RgbImage};
use proptest::prelude::*;

use super::{Baseline, Plane, Scale};
use crate::decode::{DecodeError, jpeg};
use crate::preprocess::Region;

pub const PHOTOS: [&str; 4] = ["arance", "banane", "latte", "limoni"];

pub fn photo(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/photos");
    std::fs::read(format!("{folder}/{name}.jpg")).unwrap()
}

/// Small JPEGs that libjpeg wrote, without the fuzzer's header of seven bytes.
pub fn seed(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/frame");
    std::fs::read(format!("{folder}/{name}")).unwrap()[7..].to_vec()
}

pub fn survey(bytes: &[u8]) -> Baseline {
    jpeg::survey(bytes, None).unwrap().expect("it is baseline")
}

fn eighth(bytes: &[u8]) -> RgbImage {
    survey(bytes).eighth()
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

/// A JPEG of one colour or grey whose frame header gives these sampling factors.
fn with_sampling(factors: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new(&mut bytes);
    match factors.len() {
        1 => GrayImage::new(16, 16).write_with_encoder(encoder),
        _ => RgbImage::new(16, 16).write_with_encoder(encoder),
    }
    .unwrap();
    let frame = memchr::memmem::find(&bytes, &[0xff, 0xc0]).unwrap();
    for (n, factor) in factors.iter().enumerate() {
        bytes[frame + 11 + 3 * n] = *factor;
    }
    bytes
}

#[test]
fn sampling_that_the_whole_decoder_does_not_read_is_left_to_it() {
    let is_surveyed = |factors: &[u8]| match jpeg::survey(&with_sampling(factors), None) {
        Ok(baseline) => baseline.is_some(),
        // More or fewer blocks are asked for than there are.
        Err(DecodeError::Jpeg(_)) => true,
        Err(error) => panic!("{error}"),
    };
    for legal in [
        &[0x11, 0x11, 0x11][..],
        &[0x21, 0x11, 0x11],
        &[0x22],
        &[0x11],
    ] {
        assert!(is_surveyed(legal), "{legal:x?}");
    }
    for odd in [
        &[0x31][..],
        &[0x13],
        &[0x31, 0x11, 0x11],
        &[0x11, 0x22, 0x22],
    ] {
        assert!(!is_surveyed(odd), "{odd:x?}");
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

pub fn region(x: u32, y: u32, width: u32, height: u32) -> Region {
    Region {
        x,
        y,
        width,
        height,
    }
}

fn all(baseline: &Baseline) -> Region {
    let (width, height) = baseline.size();
    region(0, 0, width, height)
}

#[test]
fn the_whole_size_is_what_the_other_decoder_gives() {
    for name in PHOTOS {
        let bytes = photo(name);
        let (baseline, whole) = (survey(&bytes), jpeg::decode(&bytes).unwrap());
        let planes = baseline.planes(&[all(&baseline)], Scale::Whole).unwrap();
        let errors: Vec<f32> = (whole.enumerate_pixels())
            .map(|(x, y, pixel)| {
                let [r, g, b] = pixel.0.map(f32::from);
                let luma = planes[0].samples[y as usize * planes[0].width + x as usize];
                (0.299 * r + 0.587 * g + 0.114 * b - f32::from(luma)).abs()
            })
            .collect();
        // Saturated colours lose luma on their way to RGB; elsewhere roundings differ.
        #[expect(clippy::cast_precision_loss, reason = "few pixels")]
        let mean = errors.iter().sum::<f32>() / errors.len() as f32;
        assert!(mean < 0.6, "{name}: {mean}");
    }
}

/// Libjpeg's reduced sizes, see `tests/golden/draft.py`. Its own transform takes every coefficient and
/// is close to a mean over squares; ours leaves out those that the size cannot show, so that they differ
/// at edges, by a few codes in the mean. At the whole size both are the same transform.
#[test]
fn planes_are_libjpegs_but_for_what_a_reduced_size_cannot_show() {
    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        photo: String,
        divisor: usize,
        region: [usize; 4],
        planes: Vec<String>,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/draft.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(golden.cases.len(), 12);
    for case in golden.cases {
        let (scale, most_mean, most) = match case.divisor {
            1 => (Scale::Whole, 0.1, 1.0),
            2 => (Scale::Half, 2.5, 24.0),
            _ => (Scale::Quarter, 2.5, 24.0),
        };
        let baseline = survey(&photo(case.photo.trim_end_matches(".jpg")));
        let luma = &baseline.planes(&[all(&baseline)], scale).unwrap()[0];
        let whole = baseline.planes(&[all(&baseline)], Scale::Whole).unwrap();
        let (photo, divisor) = (&case.photo, case.divisor);
        for (n, want) in case.planes.iter().enumerate() {
            let (mean, greatest) = match n {
                0 => error(luma, case.region, want),
                _ => error(&whole[n], case.region, want),
            };
            let (most_mean, most) = if n == 0 {
                (most_mean, most)
            } else {
                (0.1, 1.0)
            };
            assert!(
                mean <= most_mean && greatest <= most,
                "{photo} 1/{divisor}: {mean} {greatest}"
            );
        }
    }
}

/// Mean and greatest difference of a part of a plane to samples in hexadecimal.
fn error(plane: &Plane, [left, top, width, height]: [usize; 4], want: &str) -> (f32, f32) {
    let errors = (0..width * height).map(|at| {
        let (x, y) = (left + at % width, top + at / width);
        let want = u8::from_str_radix(&want[2 * at..2 * at + 2], 16).unwrap();
        f32::from(plane.samples[y * plane.width + x].abs_diff(want))
    });
    #[expect(clippy::cast_precision_loss, reason = "few samples")]
    let mean = errors.clone().sum::<f32>() / (width * height) as f32;
    (mean, errors.fold(0.0, f32::max))
}

/// Mean difference of a plane and of means over squares of the next larger one.
fn difference(small: &Plane, large: &Plane) -> f64 {
    let sample = |x: usize, y: usize| f64::from(large.samples[y * large.width + x]);
    let rows = small.samples.len() / small.width;
    let errors = (0..rows * small.width).map(|at| {
        let (x, y) = (2 * (at % small.width), 2 * (at / small.width));
        let sum = sample(x, y) + sample(x + 1, y) + sample(x, y + 1) + sample(x + 1, y + 1);
        (f64::from(small.samples[at]) - sum / 4.0).abs()
    });
    #[expect(clippy::cast_precision_loss, reason = "few samples")]
    let mean = errors.sum::<f64>() / small.samples.len() as f64;
    mean
}

#[test]
fn a_smaller_size_is_the_larger_one_without_its_details() {
    for name in PHOTOS {
        let baseline = survey(&photo(name));
        let planes = |scale| baseline.planes(&[all(&baseline)], scale).unwrap();
        let sizes = [Scale::Whole, Scale::Half, Scale::Quarter].map(planes);
        for (large, small) in [(0, 1), (1, 2)] {
            for (large, small) in sizes[large].iter().zip(&sizes[small]) {
                assert_eq!(
                    (small.width * 2, small.samples.len() * 4),
                    (large.width, large.samples.len())
                );
                let mean = difference(small, large);
                assert!(mean < 3.0, "{name}: {mean}");
            }
        }
    }
}

#[test]
fn a_part_is_the_same_as_in_the_whole_and_nothing_else_is_decoded() {
    for name in ["jpeg-base", "jpeg-rst", "jpeg-grey", "mjpeg"] {
        part_of_whole(name, &seed(name), [region(3, 2, 5, 4), region(17, 9, 2, 1)]);
    }
    for name in PHOTOS {
        part_of_whole(
            name,
            &photo(name),
            [region(50, 60, 70, 40), region(10, 130, 9, 3)],
        );
    }
}

fn part_of_whole(name: &str, bytes: &[u8], regions: [Region; 2]) {
    let baseline = survey(bytes);
    for scale in Scale::ALL {
        let wholes = baseline.planes(&[all(&baseline)], scale).unwrap();
        let parts = baseline.planes(&regions, scale).unwrap();
        for (whole, part) in wholes.iter().zip(&parts) {
            let mut same = 0;
            for (at, sample) in part.samples.iter().enumerate() {
                let (x, y) = (part.left + at % part.width, part.top + at / part.width);
                let is_wanted = regions.iter().any(|region| {
                    let inside = |at: usize, from: u32, length: u32, density: f64| {
                        let at = f64::from(u32::try_from(at).unwrap());
                        at + 1.0 > f64::from(from) * density
                            && at < f64::from(from + length) * density
                    };
                    inside(x, region.x, region.width, part.density[0])
                        && inside(y, region.y, region.height, part.density[1])
                });
                if is_wanted {
                    assert_eq!(
                        *sample,
                        whole.samples[y * whole.width + x],
                        "{name} {scale:?}"
                    );
                    same += 1;
                }
            }
            assert!(same > 0 && part.samples.len() <= whole.samples.len());
        }
    }
}

#[test]
fn a_progressive_jpeg_is_left_to_the_whole_decoder() {
    assert!(jpeg::survey(&seed("jpeg-prog"), None).unwrap().is_none());
}

#[test]
fn a_picture_that_ends_early_is_damaged() {
    for name in PHOTOS {
        let bytes = photo(name);
        for part in [4, 10, 100] {
            let mut cut = bytes[..bytes.len() - bytes.len() / part].to_vec();
            cut.extend([0xff, 0xd9]);
            let outcome = jpeg::survey(&cut, None);
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
        let Ok(Some(baseline)) = jpeg::survey(&bytes, None) else {
            return Ok(());
        };
        baseline.eighth();
        let (width, height) = baseline.size();
        let whole = Region { x: 0, y: 0, width, height };
        for scale in Scale::ALL {
            // What the survey lets through is read to its end.
            prop_assert!(baseline.planes(&[whole], scale).is_ok());
        }
    }
}
