//! Behaviour of the change gate and of scene visibility, on drawn and on real pictures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use image::{Rgb, RgbImage};

use super::*;
use crate::decode::Picture;
use crate::frame::Frame;

const FULL: Shape = Shape::Full;

fn rules() -> config::Gate {
    config::Gate {
        enabled: true,
        threshold: 0.03,
        force_every: Duration::from_secs(10),
        dark_below: 0.06,
    }
}

fn scene_rules() -> SceneRules {
    SceneRules {
        dark_below: 0.06,
        frozen_after: None,
    }
}

fn seconds(n: u32) -> Duration {
    Duration::from_secs(n.into())
}

/// A shelf of coloured boxes.
fn shelf() -> RgbImage {
    RgbImage::from_fn(320, 240, |x, y| {
        let n = (x / 40) * 7 + (y / 60) * 3;
        let channel = |m: u32| u8::try_from(60 + (n * m) % 130).unwrap();
        Rgb([channel(37), channel(53), channel(71)])
    })
}

fn with_box(mut image: RgbImage, [x, y, w, h]: [u32; 4], color: [u8; 3]) -> RgbImage {
    for py in y..y + h {
        for px in x..x + w {
            image.put_pixel(px, py, Rgb(color));
        }
    }
    image
}

fn brighter(image: &RgbImage, by: i16) -> RgbImage {
    let mut image = image.clone();
    for byte in image.iter_mut() {
        *byte = u8::try_from((i16::from(*byte) + by).clamp(0, 255)).unwrap();
    }
    image
}

fn scaled(image: &RgbImage, factor: f32) -> RgbImage {
    let mut image = image.clone();
    for byte in image.iter_mut() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates"
        )]
        let scaled = (f32::from(*byte) * factor).round() as u8;
        *byte = scaled;
    }
    image
}

/// Adds repeatable sensor noise of ±`amplitude` codes.
fn noisy(image: &RgbImage, seed: u32, amplitude: i16) -> RgbImage {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut image = image.clone();
    for byte in image.iter_mut() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let span = u32::try_from(2 * amplitude + 1).unwrap();
        let noise = i16::try_from(state % span).unwrap() - amplitude;
        *byte = u8::try_from((i16::from(*byte) + noise).clamp(0, 255)).unwrap();
    }
    image
}

fn is_encode(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Encode(_))
}

#[test]
fn a_still_scene_is_encoded_once_and_then_at_least_every_ten_seconds() {
    let mut gate = Gate::new(rules());
    let verdicts: Vec<Verdict> = (0..21)
        .map(|n| gate.look(seconds(n), &noisy(&shelf(), n, 6), &FULL))
        .collect();
    assert_eq!(verdicts[0], Verdict::Encode(Why::First));
    assert_eq!(verdicts[10], Verdict::Encode(Why::Forced));
    assert_eq!(verdicts[20], Verdict::Encode(Why::Forced));
    assert_eq!(verdicts.iter().filter(|v| is_encode(**v)).count(), 3);
}

#[test]
fn a_small_object_is_a_change() {
    let mut gate = Gate::new(rules());
    gate.look(seconds(0), &shelf(), &FULL);
    let taken = with_box(shelf(), [100, 100, 16, 20], [255, 255, 255]);
    let verdict = gate.look(seconds(1), &taken, &FULL);
    assert!(matches!(verdict, Verdict::Encode(Why::Changed(_))));
    assert_eq!(gate.look(seconds(2), &taken, &FULL), Verdict::Skip);
}

#[test]
fn another_colour_of_the_same_luma_is_a_change() {
    let red = with_box(shelf(), [80, 60, 60, 60], [200, 50, 50]);
    let green = with_box(shelf(), [80, 60, 60, 60], [40, 134, 41]);
    let mut gate = Gate::new(rules());
    gate.look(seconds(0), &red, &FULL);
    assert!(is_encode(gate.look(seconds(1), &green, &FULL)));
}

#[test]
fn a_little_more_light_is_no_change_and_a_lamp_is() {
    let mut gate = Gate::new(rules());
    gate.look(seconds(0), &shelf(), &FULL);
    let cloud = brighter(&shelf(), 20);
    assert_eq!(gate.look(seconds(1), &cloud, &FULL), Verdict::Skip);
    let lamp = brighter(&shelf(), 50);
    assert!(is_encode(gate.look(seconds(2), &lamp, &FULL)));
}

#[test]
fn a_slow_drift_adds_up_until_it_counts() {
    let mut gate = Gate::new(config::Gate {
        force_every: Duration::from_secs(3600),
        ..rules()
    });
    let drifting = |n: u8| with_box(shelf(), [100, 100, 60, 60], [80 + n, 80 + n, 80 + n]);
    let encoded: Vec<u8> = (0..60)
        .filter(|n| is_encode(gate.look(seconds((*n).into()), &drifting(*n), &FULL)))
        .collect();
    // 0.03 of full scale is 8 codes.
    assert_eq!(encoded, [0, 8, 16, 24, 32, 40, 48, 56]);
}

#[test]
fn a_change_outside_of_the_zone_does_not_matter() {
    let left = Shape::Rectangle {
        x: 0.0,
        y: 0.0,
        width: 0.5,
        height: 1.0,
    };
    let triangle = Shape::Polygon(vec![[0.0, 0.0], [0.9, 0.0], [0.0, 0.9]]);
    let elsewhere = with_box(shelf(), [250, 180, 60, 50], [255, 255, 255]);
    for shape in [left, triangle] {
        let mut gate = Gate::new(rules());
        gate.look(seconds(0), &shelf(), &shape);
        assert_eq!(gate.look(seconds(1), &elsewhere, &shape), Verdict::Skip);
    }
}

#[test]
fn a_reset_and_a_disabled_gate_let_everything_through() {
    let mut gate = Gate::new(rules());
    gate.look(seconds(0), &shelf(), &FULL);
    gate.reset();
    let verdict = gate.look(seconds(1), &shelf(), &FULL);
    assert_eq!(verdict, Verdict::Encode(Why::First));

    let mut open = Gate::new(config::Gate {
        enabled: false,
        ..rules()
    });
    for n in 0..3 {
        let verdict = open.look(seconds(n), &shelf(), &FULL);
        assert_eq!(verdict, Verdict::Encode(Why::Ungated));
    }
}

#[test]
fn tiny_and_odd_pictures_do_not_panic() {
    let sliver = Shape::Polygon(vec![[0.5, 0.5], [0.501, 0.5], [0.5, 0.501]]);
    for (width, height) in [(0, 0), (1, 1), (3, 1), (7, 1000), (33, 25)] {
        let image = RgbImage::new(width, height);
        let mut gate = Gate::new(rules());
        let mut scene = Scene::new(scene_rules());
        for shape in [&FULL, &sliver] {
            gate.look(seconds(0), &image, shape);
            scene.look(seconds(0), &image, None);
        }
    }
}

/// Shows `image` (with fresh noise) once a second and returns what held at the end.
fn stare(scene: &mut Scene, image: &RgbImage, from: u32, frames: u32) -> Sight {
    let sights = (from..from + frames).map(|n| scene.look(seconds(n), &noisy(image, n, 2), None));
    sights.last().unwrap()
}

fn clear() -> Sight {
    Sight {
        visibility: Visibility::Clear,
        in_doubt: false,
    }
}

#[test]
fn lights_out_is_in_doubt_at_once_and_dark_after_three_seconds() {
    let mut scene = Scene::new(scene_rules());
    let night = scaled(&shelf(), 0.05);
    assert_eq!(stare(&mut scene, &shelf(), 0, 5), clear());
    let doubt = stare(&mut scene, &night, 5, 3);
    assert_eq!(
        (doubt.visibility, doubt.in_doubt),
        (Visibility::Clear, true)
    );
    let dark = stare(&mut scene, &night, 8, 1);
    assert_eq!((dark.visibility, dark.in_doubt), (Visibility::Dark, false));
    let doubt = stare(&mut scene, &shelf(), 20, 1);
    assert_eq!((doubt.visibility, doubt.in_doubt), (Visibility::Dark, true));
    assert_eq!(stare(&mut scene, &shelf(), 21, 1), clear());
}

#[test]
fn dusk_does_not_flicker() {
    let mut scene = Scene::new(scene_rules());
    let grey = |level: u8| {
        let frame = with_box(shelf(), [0, 0, 320, 240], [level; 3]);
        // Detail, so that it is not taken for covered.
        with_box(frame, [100, 100, 100, 100], [level + 4; 3])
    };
    assert_eq!(
        stare(&mut scene, &grey(13), 0, 5).visibility,
        Visibility::Dark
    );
    // Just over the limit of 0.06 (15.3 of 255) is not yet clear again.
    let dusk = stare(&mut scene, &grey(16), 5, 60);
    assert_eq!(dusk.visibility, Visibility::Dark);
    assert_eq!(stare(&mut scene, &grey(24), 70, 5), clear());
}

#[test]
fn a_hand_in_passing_is_not_covered_and_one_that_stays_is() {
    // Skin close to the lens: no detail, a smooth gradient, noise.
    let hand = RgbImage::from_fn(320, 240, |x, y| {
        let fall = |n: u32| u8::try_from(n / 8).unwrap();
        Rgb([170 - fall(x), 110 - fall(x) - fall(y), 90 - fall(y)])
    });
    let mut scene = Scene::new(scene_rules());
    assert_eq!(stare(&mut scene, &shelf(), 0, 5), clear());
    assert!(stare(&mut scene, &hand, 5, 2).in_doubt);
    assert_eq!(stare(&mut scene, &shelf(), 7, 2), clear());
    assert!(stare(&mut scene, &hand, 10, 3).in_doubt, "counted anew");
    let covered = stare(&mut scene, &hand, 13, 1);
    assert_eq!(covered.visibility, Visibility::Covered);
    assert_eq!(stare(&mut scene, &shelf(), 30, 2), clear());
}

#[test]
fn a_hand_that_is_now_dark_and_now_covered_does_not_stay_in_doubt() {
    let hand = RgbImage::from_pixel(320, 240, Rgb([60, 40, 30]));
    let mut scene = Scene::new(scene_rules());
    stare(&mut scene, &shelf(), 0, 5);
    let sights: Vec<Sight> = (5..9)
        .map(|n| {
            scene.look(
                seconds(n),
                &scaled(&hand, if n % 2 == 0 { 1.0 } else { 0.1 }),
                None,
            )
        })
        .collect();
    assert!(sights[..3].iter().all(|sight| sight.in_doubt));
    assert_eq!(sights[3].visibility, Visibility::Covered);
}

#[test]
fn a_live_camera_that_repeats_one_frame_is_frozen() {
    let frozen_after = Some(Duration::from_secs(30));
    let mut scene = Scene::new(SceneRules {
        frozen_after,
        ..scene_rules()
    });
    let frozen: Vec<u32> = (0..40)
        .filter(|n| scene.look(seconds(*n), &shelf(), None).visibility == Visibility::Frozen)
        .collect();
    assert_eq!(frozen.first(), Some(&30));
    assert_eq!(stare(&mut scene, &shelf(), 40, 2), clear());

    let mut replay = Scene::new(scene_rules());
    assert!((0..100).all(|n| replay.look(seconds(n), &shelf(), None) == clear()));
}

/// As a camera would send it.
fn through_jpeg(image: &RgbImage) -> Picture {
    let mut data = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut data, 85);
    image.write_with_encoder(encoder).unwrap();
    Picture::of(Frame::mjpeg(image.width(), image.height(), data)).unwrap()
}

#[test]
fn an_eighth_of_a_picture_is_enough_to_see_what_changes() {
    let zone = Shape::Rectangle {
        x: 0.1,
        y: 0.1,
        width: 0.5,
        height: 0.5,
    };
    let shelf = image::imageops::resize(&shelf(), 1280, 720, image::imageops::FilterType::Triangle);
    let scenes: [(&str, RgbImage, bool); 4] = [
        ("noise", noisy(&shelf, 7, 4), false),
        ("a little brighter", brighter(&shelf, 6), false),
        (
            "a box",
            with_box(shelf.clone(), [400, 200, 60, 60], [250, 250, 250]),
            true,
        ),
        (
            "outside of the zone",
            with_box(shelf.clone(), [1000, 500, 90, 90], [9, 9, 9]),
            false,
        ),
    ];
    for (name, scene, changes) in scenes {
        let mut gate = Gate::new(rules());
        gate.look(
            seconds(0),
            through_jpeg(&noisy(&shelf, 1, 4)).small(),
            &zone,
        );
        let picture = through_jpeg(&scene);
        assert_eq!(picture.small().dimensions(), (160, 90));
        let verdict = gate.look(seconds(1), picture.small(), &zone);
        assert_eq!(verdict != Verdict::Skip, changes, "{name}: {verdict:?}");
    }
}

#[test]
fn an_eighth_of_a_picture_tells_dark_and_covered_ones() {
    let flat = RgbImage::from_pixel(640, 480, Rgb([120, 90, 80]));
    let large = image::imageops::resize(&shelf(), 640, 480, image::imageops::FilterType::Triangle);
    for (scene, visibility) in [
        (large.clone(), Visibility::Clear),
        (scaled(&large, 0.05), Visibility::Dark),
        (flat, Visibility::Covered),
    ] {
        let mut small = Scene::new(scene_rules());
        let frames = (0..6).map(|n| through_jpeg(&noisy(&scene, n, 2)));
        let sights = (0..)
            .zip(frames)
            .map(|(n, frame)| small.look(seconds(n), frame.small(), frame.fingerprint()));
        assert_eq!(sights.last().unwrap().visibility, visibility);
    }
}

fn grocery_photos() -> Option<Vec<PathBuf>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
    let data = std::env::var("VEDETTA_TEST_DATA").unwrap_or_else(|_| default.to_owned());
    let folder = Path::new(&data).join("grocery");
    let Ok(list) = std::fs::read_to_string(folder.join("val.txt")) else {
        println!("skipped: no grocery photos at {}", folder.display());
        return None;
    };
    let file = |line: &str| line.split(',').next().map(|name| folder.join(name.trim()));
    Some(list.lines().filter_map(file).collect())
}

#[test]
fn shelf_photos_are_never_covered_and_dim_ones_neither() {
    let Some(photos) = grocery_photos() else {
        return;
    };
    for path in photos {
        let photo = image::open(&path).unwrap().to_rgb8();
        for light in [1.0, 0.3] {
            let mut scene = Scene::new(scene_rules());
            let dim = scaled(&photo, light);
            let sight = stare(&mut scene, &dim, 0, 5);
            let name = path.display();
            let mut small = Scene::new(scene_rules());
            let picture = through_jpeg(&dim);
            let of_eighth = (0..5).map(|n| small.look(seconds(n), picture.small(), None));
            assert_eq!(
                of_eighth.last(),
                Some(sight),
                "{name} at {light}, an eighth of it"
            );
            assert_ne!(sight.visibility, Visibility::Covered, "{name} at {light}");
            assert!(light < 1.0 || sight == clear(), "{name}");
        }
    }
}
