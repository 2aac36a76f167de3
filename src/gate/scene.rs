//! Whether a camera's picture shows anything.

use std::time::Duration;

use image::RgbImage;

use super::grid::{luma, pixels, ratio};
use crate::decide::Unseen;

/// Blocks from left to right and from top to bottom.
const COLUMNS: u32 = 32;
const ROWS: u32 = 24;
/// Sampled pixels per block and direction, at most: the mean of 49 takes most of the sensor's noise
/// out.
const SAMPLES: u32 = 7;

/// A frame with less relative detail than this is covered,
const COVERED_DETAIL: f32 = 0.012;
/// and one with more than this is not. Of 824 photos of shop shelves the plainest has 0.08; a bare
/// wall with one straight edge in it has about 0.015; noise of three codes on nothing has 0.011.
const UNCOVERED_DETAIL: f32 = 0.018;
/// Keeps the relative detail of a nearly black picture finite; two codes of 255.
const DETAIL_FLOOR: f32 = 0.01;
/// A dark camera has to get this much brighter than `dark_below` to be clear again.
const UNDARK_FACTOR: f32 = 1.25;
/// So long has a picture to be dark or covered until it is called so,
const DARK_AFTER: Duration = Duration::from_secs(3);
/// and clear until it is called clear again.
const CLEAR_AFTER: Duration = Duration::from_secs(1);

/// What can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// A scene.
    Clear,
    /// Mean luma under `dark_below`.
    Dark,
    /// Almost no spatial detail: a hand, a cap, a bag over the lens.
    Covered,
    /// The same frame again and again, bit by bit. A live sensor always has noise.
    Frozen,
}

impl Visibility {
    /// The cause a [`Board`](crate::decide::Board) is told; `None` for a clear scene.
    pub fn unseen(self) -> Option<Unseen> {
        match self {
            Self::Clear => None,
            Self::Dark => Some(Unseen::Dark),
            Self::Covered => Some(Unseen::Covered),
            Self::Frozen => Some(Unseen::Stalled),
        }
    }
}

/// Limits of a [`Scene`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SceneRules {
    /// Mean luma, 0–1, under which a picture is dark.
    pub dark_below: f32,
    /// Bit-identical frames for this long are frozen. `None` where they are normal: replay, a
    /// loopback device that is fed with still pictures, a bridge that repeats frames.
    pub frozen_after: Option<Duration>,
}

/// What [`Scene::look`] says about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What holds, after hysteresis.
    pub visibility: Visibility,
    /// This frame looks otherwise, not yet for long enough to say so: do not score it.
    pub in_doubt: bool,
}

/// Follows what one camera can see.
#[derive(Clone, Debug)]
pub struct Scene {
    rules: SceneRules,
    visibility: Visibility,
    /// The other verdict, and since when it holds without interruption.
    candidate: Option<(Visibility, Duration)>,
    /// Fingerprint of the newest frame, and since when it is the same.
    fingerprint: Option<(u64, Duration)>,
}

impl Scene {
    /// Starts clear.
    pub fn new(rules: SceneRules) -> Self {
        Self {
            rules,
            visibility: Visibility::Clear,
            candidate: None,
            fingerprint: None,
        }
    }

    /// Takes in a decoded frame at `now` (uptime). `fingerprint` tells frames that are bit-identical;
    /// `None` compares the pixels.
    pub fn look(&mut self, now: Duration, rgb: &RgbImage, fingerprint: Option<u64>) -> Sight {
        let mut light = Light::of(rgb);
        light.fingerprint = fingerprint.unwrap_or(light.fingerprint);
        let same_since = match self.fingerprint {
            Some((fingerprint, since)) if fingerprint == light.fingerprint => since,
            _ => now,
        };
        self.fingerprint = Some((light.fingerprint, same_since));
        let seen = self.classify(&light, now.saturating_sub(same_since));
        if seen == self.visibility {
            self.candidate = None;
            return self.sight(false);
        }
        // A hand may look dark in one frame and covered in the next: either way nothing is seen.
        let is_clear = |visibility| visibility == Visibility::Clear;
        let since = match self.candidate {
            Some((candidate, since)) if is_clear(candidate) == is_clear(seen) => since,
            _ => now,
        };
        self.candidate = Some((seen, since));
        let needed = match seen {
            Visibility::Clear => CLEAR_AFTER,
            Visibility::Dark | Visibility::Covered => DARK_AFTER,
            // `frozen_after` was waited for already.
            Visibility::Frozen => Duration::ZERO,
        };
        if now.saturating_sub(since) >= needed {
            self.visibility = seen;
            self.candidate = None;
            return self.sight(false);
        }
        self.sight(true)
    }

    /// Forgets the past, as after the camera was reopened.
    pub fn reset(&mut self) {
        *self = Self::new(self.rules);
    }

    fn sight(&self, in_doubt: bool) -> Sight {
        Sight {
            visibility: self.visibility,
            in_doubt,
        }
    }

    fn classify(&self, light: &Light, same_for: Duration) -> Visibility {
        let dark_below = match self.visibility {
            Visibility::Dark => self.rules.dark_below * UNDARK_FACTOR,
            _ => self.rules.dark_below,
        };
        let covered_below = match self.visibility {
            Visibility::Covered => UNCOVERED_DETAIL,
            _ => COVERED_DETAIL,
        };
        if light.mean < dark_below {
            Visibility::Dark
        } else if light.detail < covered_below {
            Visibility::Covered
        } else if self
            .rules
            .frozen_after
            .is_some_and(|limit| same_for >= limit)
        {
            Visibility::Frozen
        } else {
            Visibility::Clear
        }
    }
}

/// Luma statistics of a frame.
#[derive(Clone, Copy, Debug)]
struct Light {
    /// Mean luma, 0–1.
    mean: f32,
    /// Mean absolute second difference between neighbouring blocks over the mean luma: no unit, the
    /// same for any exposure, blind to a smooth gradient.
    detail: f32,
    /// Of the sampled pixels.
    fingerprint: u64,
}

impl Light {
    fn of(rgb: &RgbImage) -> Self {
        let mut fingerprint = 0_u64;
        let mut blocks = Vec::with_capacity(768);
        for row in 0..ROWS {
            let rows = pixels(ratio(row, ROWS), ratio(row + 1, ROWS), rgb.height());
            for column in 0..COLUMNS {
                let columns = pixels(
                    ratio(column, COLUMNS),
                    ratio(column + 1, COLUMNS),
                    rgb.width(),
                );
                let step =
                    |length: u32| usize::try_from(length.div_ceil(SAMPLES).max(1)).unwrap_or(1);
                let mut sum = [0_u32; 3];
                let mut count = 0_u32;
                for y in rows
                    .clone()
                    .step_by(step(rows.end.saturating_sub(rows.start)))
                {
                    let width = columns.end.saturating_sub(columns.start);
                    for x in columns.clone().step_by(step(width)) {
                        let pixel = rgb.get_pixel(x, y).0;
                        fingerprint = mix(fingerprint, pixel);
                        (0..3).for_each(|c| sum[c] += u32::from(pixel[c]));
                        count += 1;
                    }
                }
                #[expect(clippy::cast_precision_loss, reason = "sums of a few dozen bytes")]
                let [r, g, b] = sum.map(|s| s as f32 / (count.max(1) as f32 * 255.0));
                blocks.push(luma(r, g, b));
            }
        }
        let mean = blocks.iter().sum::<f32>() * ratio(1, COLUMNS * ROWS);
        Self {
            mean,
            detail: second_difference(&blocks) / (mean + DETAIL_FLOOR),
            fingerprint,
        }
    }
}

/// One step of `FxHash`: fast, and nobody attacks it with pictures.
fn mix(hash: u64, [r, g, b]: [u8; 3]) -> u64 {
    let word = u64::from_le_bytes([r, g, b, 0, 0, 0, 0, 0]);
    (hash.rotate_left(5) ^ word).wrapping_mul(0x51_7c_c1_b7_27_22_0a_95)
}

/// Mean absolute second difference over rows and columns of a `[ROWS, COLUMNS]` grid.
fn second_difference(blocks: &[f32]) -> f32 {
    let width = usize::try_from(COLUMNS).unwrap_or(1);
    let bend = |a: f32, b: f32, c: f32| (a - 2.0 * b + c).abs();
    let across = blocks
        .chunks(width)
        .flat_map(|row| row.windows(3).map(|w| bend(w[0], w[1], w[2])));
    let down = (2 * width..blocks.len())
        .map(|i| bend(blocks[i - 2 * width], blocks[i - width], blocks[i]));
    let (sum, count) = across
        .chain(down)
        .fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    sum * ratio(1, count)
}
