//! Which of a device's formats, sizes and rates is opened. Pure.

use std::cmp::Ordering;

use super::fourcc::FourCc;
use crate::frame::PixelFormat;

mod offer;

pub use offer::{Interval, Offer, OfferedRate, OfferedSize, Steps};

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
mod tests;
