//! Which of a device's formats, sizes and rates is opened. Pure.

use std::cmp::Ordering;
use std::fmt;

use super::fourcc::FourCc;
use crate::frame::PixelFormat;

/// The size that is looked for when the configuration names none: enough to crop zones from, cheap
/// to decode.
pub const DEFAULT_SIZE_PX: (u32, u32) = (1280, 720);

/// Smaller sizes are taken only when there is nothing else.
pub const MIN_SIZE_PX: (u32, u32) = (640, 480);

/// Up to this many pixels an uncompressed format is taken before a compressed one: it costs less to
/// decode and has no artefacts. Above, uncompressed video fills a USB 2 bus and MJPEG is first.
const UNCOMPRESSED_UP_TO_PX: u64 = 1280 * 720;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    /// `None` leaves it to the rules below.
    pub format: Option<PixelFormat>,
    /// `None` is [`DEFAULT_SIZE_PX`].
    pub size_px: Option<(u32, u32)>,
    /// Frames per second that will be looked at.
    pub rate_fps: f32,
}

/// One format a device offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Its code; may be one that cannot be decoded.
    pub fourcc: FourCc,
    /// Its sizes. Empty where the driver does not say: then any size may be asked for.
    pub sizes: Vec<OfferedSize>,
}

/// A size, or a range of sizes, and the rates it comes at.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedSize {
    /// Width.
    pub width_px: Steps,
    /// Height.
    pub height_px: Steps,
    /// Empty where the driver does not say.
    pub rates: Vec<OfferedRate>,
}

/// Values from `min` to `max` in steps of `step`; a single value has `min == max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Smallest.
    pub min: u32,
    /// Largest.
    pub max: u32,
    /// Distance, 0 counts as 1.
    pub step: u32,
}

impl Steps {
    /// A single value.
    pub fn exactly(value: u32) -> Self {
        Self {
            min: value,
            max: value,
            step: 1,
        }
    }

    /// The value nearest to `wanted`.
    pub fn nearest(self, wanted: u32) -> u32 {
        if wanted <= self.min || self.max <= self.min {
            return self.min;
        }
        let step = self.step.max(1);
        let steps = |distance: u32| distance / step * step;
        let below = self.min + steps(wanted.min(self.max) - self.min);
        let above = below.saturating_add(step);
        if above <= self.max && above.abs_diff(wanted) < below.abs_diff(wanted) {
            above
        } else {
            below
        }
    }
}

/// A frame interval in seconds, `numerator / denominator`, as V4L2 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Seconds times `denominator`.
    pub numerator: u32,
    /// Parts of a second.
    pub denominator: u32,
}

impl Interval {
    /// Frames per second; `None` where the driver left the interval empty.
    pub fn fps(self) -> Option<f32> {
        let (numerator, denominator) = (f64::from(self.numerator), f64::from(self.denominator));
        #[expect(clippy::cast_possible_truncation, reason = "a rate needs no f64")]
        (numerator > 0.0 && denominator > 0.0).then(|| (denominator / numerator) as f32)
    }

    /// The interval of a rate, in thousandths.
    pub fn of_fps(fps: f32) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 1–1 000 000"
        )]
        let denominator = (fps * 1000.0).clamp(1.0, 1_000_000.0) as u32;
        Self {
            numerator: 1000,
            denominator,
        }
    }
}

/// One rate, or a range of rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferedRate {
    /// Exactly this interval.
    Exactly(Interval),
    /// Any interval between the two.
    Between {
        /// Highest rate.
        shortest: Interval,
        /// Lowest rate.
        longest: Interval,
    },
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}–{}", self.min, self.max)
        }
    }
}

impl fmt::Display for Interval {
    /// Its rate, to a tenth: `29.9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fps() {
            Some(fps) => write!(f, "{}", (fps * 10.0).round() / 10.0),
            None => f.write_str("?"),
        }
    }
}

impl fmt::Display for OfferedRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(interval) => interval.fmt(f),
            Self::Between { shortest, longest } => write!(f, "{longest}–{shortest}"),
        }
    }
}

impl fmt::Display for OfferedSize {
    /// `1280x720 at 5, 10, 30 fps`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width_px, self.height_px)?;
        if self.rates.is_empty() {
            return Ok(());
        }
        let rates: Vec<String> = self.rates.iter().map(OfferedRate::to_string).collect();
        write!(f, " at {} fps", rates.join(", "))
    }
}

/// What is to be opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Code to ask for.
    pub fourcc: FourCc,
    /// The same as a format.
    pub format: PixelFormat,
    /// Width and height in pixels.
    pub size_px: (u32, u32),
    /// Interval to ask for; `None` leaves it to the driver.
    pub interval: Option<Interval>,
}

/// All that could be opened, best first, at most one choice per format and offered size.
///
/// In this order: a size of at least [`MIN_SIZE_PX`] (unless the configuration names one), a rate
/// that is high enough, the size nearest to the wanted one, the format that is cheapest and best at
/// that size, the lowest rate that is enough. A size the configuration names counts more than a
/// high enough rate.
pub fn rank(offers: &[Offer], wanted: &Wanted) -> Vec<Choice> {
    let target = wanted.size_px.unwrap_or(DEFAULT_SIZE_PX);
    let mut ranked: Vec<(Rank, Choice)> = Vec::new();
    for offer in offers {
        let Some(format) = offer.fourcc.format() else {
            continue;
        };
        if wanted.format.is_some_and(|wanted| wanted != format) {
            continue;
        }
        let anything = OfferedSize {
            width_px: Steps::exactly(target.0),
            height_px: Steps::exactly(target.1),
            rates: vec![],
        };
        let sizes = if offer.sizes.is_empty() {
            std::slice::from_ref(&anything)
        } else {
            &offer.sizes
        };
        for size in sizes {
            let size_px = (
                size.width_px.nearest(target.0),
                size.height_px.nearest(target.1),
            );
            let interval = slowest_sufficient(&size.rates, wanted.rate_fps);
            let is_fast_enough = interval
                .and_then(Interval::fps)
                .is_none_or(|fps| is_enough(fps, wanted.rate_fps));
            let distance = distance(size_px, target);
            let is_large_enough = size_px.0 >= MIN_SIZE_PX.0 && size_px.1 >= MIN_SIZE_PX.1;
            let rank = Rank {
                is_too_small: wanted.size_px.is_none() && !is_large_enough,
                named_distance: wanted.size_px.map_or(0.0, |_| distance),
                is_too_slow: !is_fast_enough,
                distance,
                format: format_rank(format, size_px),
            };
            let choice = Choice {
                fourcc: offer.fourcc,
                format,
                size_px,
                interval,
            };
            ranked.push((rank, choice));
        }
    }
    ranked.sort_by(|(a, _), (b, _)| a.compare(b));
    ranked.into_iter().map(|(_, choice)| choice).collect()
}

/// Sort key; less is better.
#[derive(Debug)]
struct Rank {
    is_too_small: bool,
    named_distance: f64,
    is_too_slow: bool,
    distance: f64,
    format: u8,
}

impl Rank {
    fn compare(&self, other: &Self) -> Ordering {
        self.is_too_small
            .cmp(&other.is_too_small)
            .then(self.named_distance.total_cmp(&other.named_distance))
            .then(self.is_too_slow.cmp(&other.is_too_slow))
            .then(self.distance.total_cmp(&other.distance))
            .then(self.format.cmp(&other.format))
    }
}

/// How unlike two sizes are: the sum of the logarithms of their edge ratios.
fn distance((width, height): (u32, u32), target: (u32, u32)) -> f64 {
    let ratio = |a: u32, b: u32| (f64::from(a.max(1)) / f64::from(b.max(1))).ln().abs();
    ratio(width, target.0) + ratio(height, target.1)
}

fn format_rank(format: PixelFormat, (width, height): (u32, u32)) -> u8 {
    let is_small = u64::from(width) * u64::from(height) <= UNCOMPRESSED_UP_TO_PX;
    match format {
        PixelFormat::Mjpeg => {
            if is_small {
                6
            } else {
                0
            }
        }
        PixelFormat::Yuyv => 1,
        PixelFormat::Uyvy => 2,
        PixelFormat::Nv12 => 3,
        PixelFormat::Rgb24 => 4,
        PixelFormat::Bgr24 => 5,
        PixelFormat::Grey => 7,
        PixelFormat::Bayer(bayer) => 8 + bayer.bits,
    }
}

/// 29.97 is as good as 30.
fn is_enough(fps: f32, wanted_fps: f32) -> bool {
    fps >= wanted_fps * 0.99
}

/// The lowest rate that is enough, or else the highest; `None` where the driver does not say.
fn slowest_sufficient(rates: &[OfferedRate], wanted_fps: f32) -> Option<Interval> {
    let candidates = rates.iter().filter_map(|rate| {
        let interval = match *rate {
            OfferedRate::Exactly(interval) => interval,
            OfferedRate::Between { shortest, longest } => {
                let (high, low) = (shortest.fps()?, longest.fps()?);
                if is_enough(low, wanted_fps) {
                    longest
                } else if is_enough(high, wanted_fps) {
                    Interval::of_fps(wanted_fps)
                } else {
                    shortest
                }
            }
        };
        Some((interval, interval.fps()?))
    });
    let best = candidates.min_by(|(_, a), (_, b)| {
        let (a_enough, b_enough) = (is_enough(*a, wanted_fps), is_enough(*b, wanted_fps));
        match (a_enough, b_enough) {
            (true, true) => a.total_cmp(b),
            (false, false) => b.total_cmp(a),
            _ => b_enough.cmp(&a_enough),
        }
    });
    best.map(|(interval, _)| interval)
}

#[cfg(test)]
mod tests {
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
}
