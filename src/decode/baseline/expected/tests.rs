//! Decoded ahead is the same as decoded behind.

use proptest::prelude::*;

use super::*;
use crate::decode::baseline::tests::{PHOTOS, photo, region, seed};
use crate::decode::jpeg;

const SEEDS: [&str; 4] = ["jpeg-base", "jpeg-rst", "jpeg-grey", "mjpeg"];

/// Both agree about `bytes`, on damage too. Returns whether it is a picture.
fn agree(bytes: &[u8], regions: &[Region], scale: Scale) -> bool {
    let behind = jpeg::survey(bytes, None);
    let size = match &behind {
        Ok(Some(baseline)) => baseline.size(),
        _ => (24, 16),
    };
    let expected = Expected {
        size,
        regions: regions.to_vec(),
        scale,
    };
    let ahead = jpeg::survey(bytes, Some(&expected));
    match (behind, ahead) {
        (Ok(Some(behind)), Ok(Some(ahead))) => {
            assert!(ahead.ready.lock().unwrap().is_some());
            assert_eq!(behind.eighth(), ahead.eighth());
            let planes = behind.planes(regions, scale).unwrap();
            assert_eq!(ahead.planes(regions, scale).unwrap(), planes);
            // A second time they are decoded again.
            assert!(ahead.ready.lock().unwrap().is_none());
            assert_eq!(ahead.planes(regions, scale).unwrap(), planes);
            true
        }
        (Ok(None), Ok(None)) => false,
        (Err(behind), Err(ahead)) => {
            assert_eq!(behind, ahead);
            false
        }
        (behind, ahead) => panic!("{behind:?} but {ahead:?}"),
    }
}

#[test]
fn parts_that_are_expected_are_those_that_are_asked_for() {
    for scale in Scale::ALL {
        for name in SEEDS {
            let regions = [region(3, 2, 5, 4), region(17, 9, 2, 1)];
            assert!(agree(&seed(name), &regions, scale), "{name}");
        }
        for name in PHOTOS {
            let regions = [region(50, 60, 70, 40), region(10, 130, 9, 3)];
            assert!(agree(&photo(name), &regions, scale), "{name}");
        }
    }
}

#[test]
fn other_parts_than_expected_are_decoded_when_they_are_asked_for() {
    let bytes = photo("arance");
    let baseline = jpeg::survey(&bytes, None).unwrap().unwrap();
    let expected = Expected {
        size: baseline.size(),
        regions: vec![region(0, 0, 40, 40)],
        scale: Scale::Half,
    };
    let ahead = jpeg::survey(&bytes, Some(&expected)).unwrap().unwrap();
    for (regions, scale) in [
        ([region(0, 0, 40, 40)], Scale::Whole),
        ([region(0, 0, 41, 40)], Scale::Half),
    ] {
        let want = baseline.planes(&regions, scale).unwrap();
        assert_eq!(ahead.planes(&regions, scale).unwrap(), want);
    }
    assert!(ahead.ready.lock().unwrap().is_some(), "still there");
}

#[test]
fn nothing_is_expected_of_a_picture_of_another_size() {
    let expected = Expected {
        size: (1920, 1080),
        regions: vec![region(1000, 1000, 40, 40)],
        scale: Scale::Whole,
    };
    let ahead = jpeg::survey(&photo("arance"), Some(&expected)).unwrap();
    assert!(ahead.unwrap().ready.lock().unwrap().is_none());
}

proptest! {
    #[test]
    fn damage_is_the_same_damage(
        which in 0..SEEDS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        place in (0_u32..24, 0_u32..16, 1_u32..24, 1_u32..16),
        scale in prop::sample::select(Scale::ALL.to_vec()),
    ) {
        let mut bytes = seed(SEEDS[which]);
        for (index, byte) in changes {
            // Behind the headers, most of the time.
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let (x, y, width, height) = place;
        agree(&bytes, &[region(x, y, width, height)], scale);
    }
}
