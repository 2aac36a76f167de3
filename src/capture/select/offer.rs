//! What a device offers: formats, sizes, rates.

use std::fmt;

use crate::capture::fourcc::FourCc;

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
