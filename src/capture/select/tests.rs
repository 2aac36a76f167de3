use super::*;

fn at(width: u32, height: u32, rates: &[u32]) -> OfferedSize {
    OfferedSize {
        width_px: Steps::exactly(width),
        height_px: Steps::exactly(height),
        rates: rates
            .iter()
            .map(|&denominator| {
                OfferedRate::Exactly(Interval {
                    numerator: 1,
                    denominator,
                })
            })
            .collect(),
    }
}

fn offer(code: &[u8; 4], sizes: Vec<OfferedSize>) -> Offer {
    Offer {
        fourcc: FourCc(*code),
        sizes,
    }
}

fn wanted(rate_fps: f32) -> Wanted {
    Wanted {
        format: None,
        size_px: None,
        rate_fps,
    }
}

/// A common UVC webcam: YUYV is slow at large sizes.
fn webcam() -> Vec<Offer> {
    vec![
        offer(b"H264", vec![at(1920, 1080, &[30])]),
        offer(
            b"YUYV",
            vec![
                at(640, 480, &[30, 15, 5]),
                at(320, 240, &[30]),
                at(1280, 720, &[10, 5]),
                at(1920, 1080, &[5]),
            ],
        ),
        offer(
            b"MJPG",
            vec![
                at(640, 480, &[30]),
                at(1280, 720, &[30, 15]),
                at(1920, 1080, &[30]),
            ],
        ),
    ]
}

fn best(offers: &[Offer], wanted: &Wanted) -> (String, (u32, u32), Option<f32>) {
    let choice = rank(offers, wanted)[0];
    let fps = choice.interval.and_then(Interval::fps);
    (choice.fourcc.to_string(), choice.size_px, fps)
}

#[test]
fn a_slow_look_takes_uncompressed_video_at_the_lowest_rate_that_is_enough() {
    assert_eq!(
        best(&webcam(), &wanted(2.0)),
        ("YUYV".into(), (1280, 720), Some(5.0))
    );
}

#[test]
fn a_rate_that_uncompressed_video_does_not_reach_takes_mjpeg() {
    assert_eq!(
        best(&webcam(), &wanted(12.0)),
        ("MJPG".into(), (1280, 720), Some(15.0))
    );
}

#[test]
fn a_large_size_takes_mjpeg_and_a_named_format_is_kept() {
    let mut large = wanted(2.0);
    large.size_px = Some((1920, 1080));
    assert_eq!(
        best(&webcam(), &large),
        ("MJPG".into(), (1920, 1080), Some(30.0))
    );
    large.format = Some(PixelFormat::Yuyv);
    assert_eq!(
        best(&webcam(), &large),
        ("YUYV".into(), (1920, 1080), Some(5.0))
    );
}

#[test]
fn a_named_size_that_is_not_offered_takes_the_nearest() {
    let mut odd = wanted(2.0);
    odd.size_px = Some((700, 500));
    assert_eq!(best(&webcam(), &odd).1, (640, 480));
}

#[test]
fn a_size_below_vga_is_taken_only_when_there_is_nothing_else() {
    let small = vec![offer(
        b"YUYV",
        vec![at(352, 288, &[30]), at(640, 480, &[5])],
    )];
    assert_eq!(best(&small, &wanted(10.0)).1, (640, 480));
    let tiny = vec![offer(
        b"YUYV",
        vec![at(160, 120, &[30]), at(352, 288, &[30])],
    )];
    assert_eq!(best(&tiny, &wanted(10.0)).1, (352, 288));
}

#[test]
fn ranges_of_sizes_and_rates_are_cut_to_what_is_wanted() {
    let range = OfferedSize {
        width_px: Steps {
            min: 48,
            max: 4096,
            step: 32,
        },
        height_px: Steps {
            min: 32,
            max: 2160,
            step: 2,
        },
        rates: vec![OfferedRate::Between {
            shortest: Interval {
                numerator: 1,
                denominator: 1000,
            },
            longest: Interval {
                numerator: 1,
                denominator: 1,
            },
        }],
    };
    let offers = vec![offer(b"MJPG", vec![range])];
    assert_eq!(
        best(&offers, &wanted(7.5)),
        ("MJPG".into(), (1264, 720), Some(7.5))
    );
}

#[test]
fn a_driver_that_says_nothing_is_asked_for_the_default() {
    let silent = vec![offer(b"UYVY", vec![])];
    assert_eq!(
        best(&silent, &wanted(5.0)),
        ("UYVY".into(), DEFAULT_SIZE_PX, None)
    );
}

#[test]
fn raw_sensor_data_is_the_last_resort() {
    let offers = vec![
        offer(b"RG10", vec![at(1280, 720, &[60])]),
        offer(b"GREY", vec![at(1280, 720, &[60])]),
    ];
    let codes: Vec<_> = rank(&offers, &wanted(5.0))
        .iter()
        .map(|c| c.fourcc.to_string())
        .collect();
    assert_eq!(codes, ["GREY", "RG10"]);
}

#[test]
fn formats_nobody_can_decode_are_never_chosen() {
    let offers = vec![offer(b"H264", vec![at(1280, 720, &[30])])];
    assert!(rank(&offers, &wanted(5.0)).is_empty());
}

#[test]
fn the_nearest_step_is_found_at_both_ends() {
    let steps = Steps {
        min: 10,
        max: 31,
        step: 10,
    };
    let nearest: Vec<_> = [0, 10, 14, 16, 31, u32::MAX]
        .map(|w| steps.nearest(w))
        .into();
    assert_eq!(nearest, [10, 10, 10, 20, 30, 30]);
    assert_eq!(
        Steps {
            min: 5,
            max: u32::MAX,
            step: 0
        }
        .nearest(u32::MAX),
        u32::MAX
    );
}

#[test]
fn empty_intervals_of_broken_drivers_are_ignored() {
    let broken = Interval {
        numerator: 0,
        denominator: 0,
    };
    assert_eq!(broken.fps(), None);
    assert_eq!(
        slowest_sufficient(&[OfferedRate::Exactly(broken)], 5.0),
        None
    );
}
