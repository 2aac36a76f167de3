use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[test]
fn a_flat_picture_stays_flat_whatever_the_crop() {
    let image = RgbImage::from_pixel(50, 40, Rgb([10, 100, 200]));
    let crop = Crop {
        x: 3.3,
        y: 1.7,
        width: 31.0,
        height: 37.2,
    };
    for p in resample(&image, crop, 24).chunks_exact(3) {
        assert!(
            (p[0] - 10.0).abs() < 0.01 && (p[2] - 200.0).abs() < 0.01,
            "{p:?}"
        );
    }
}

#[test]
fn views_differ_but_keep_size_and_range() {
    let image = RgbImage::from_fn(64, 48, |x, y| {
        Rgb([
            u8::try_from(x * 3).unwrap_or(255),
            u8::try_from(y * 4).unwrap_or(255),
            90,
        ])
    });
    let mut rng = StdRng::seed_from_u64(1);
    let views: Vec<_> = (0..40)
        .map(|_| view(&image, 32, false, Strength::default(), &mut rng))
        .collect();
    assert!(views.iter().all(|v| v.len() == 32 * 32 * 3));
    assert!(views.iter().flatten().all(|v| (-1.0..=1.0).contains(v)));
    assert!(views.windows(2).all(|w| w[0] != w[1]));
}

#[test]
fn a_picture_is_the_view_before_it_is_normalised() {
    let image = RgbImage::from_fn(40, 30, |x, y| {
        Rgb([
            u8::try_from(x * 6).unwrap(),
            u8::try_from(y * 8).unwrap(),
            77,
        ])
    });
    let strength = Strength::default();
    for seed in 0..20 {
        let rng = || StdRng::seed_from_u64(seed);
        let picture = picture(&image, 16, false, strength, &mut rng());
        let view = view(&image, 16, false, strength, &mut rng());
        for (byte, value) in picture.as_raw().iter().zip(view) {
            assert!((f32::from(*byte) - (value * DIVISOR + MEAN)).abs() <= 0.501);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_view() {
    let image = RgbImage::from_fn(40, 40, |x, _| {
        Rgb([u8::try_from(x * 5).unwrap_or(255), 1, 2])
    });
    let make = || {
        view(
            &image,
            16,
            true,
            Strength::default(),
            &mut StdRng::seed_from_u64(9),
        )
    };
    assert_eq!(make(), make());
}
