//! Thins a camera's frames to the wanted rate.

use std::time::{Duration, Instant};

/// Admits frames at a mean rate of at most `rate_fps`. Pure: the caller says what time it is.
#[derive(Clone, Debug)]
pub struct Pacer {
    period: Duration,
    due: Option<Instant>,
}

impl Pacer {
    const LOWEST_FPS: f32 = 0.001;

    /// A pacer for `rate_fps` frames per second, limited to 0.001–1000.
    pub fn new(rate_fps: f32) -> Self {
        let rate = if rate_fps.is_nan() {
            Self::LOWEST_FPS
        } else {
            rate_fps.clamp(Self::LOWEST_FPS, 1000.0)
        };
        Self {
            period: Duration::from_secs_f32(1.0 / rate),
            due: None,
        }
    }

    /// Another rate from the next frame on.
    pub fn set_rate(&mut self, rate_fps: f32) {
        let before = self.period;
        self.period = Self::new(rate_fps).period;
        // What is due is due by the new period, counted from the last frame.
        self.due = self
            .due
            .and_then(|due| (due + self.period).checked_sub(before));
    }

    /// From when on a frame is admitted; `None` before the first one.
    ///
    /// A quarter of a period of jitter is allowed, so that a camera running at just the wanted rate
    /// loses no frame for coming a little early. Due times advance by whole periods, which keeps
    /// the mean at the wanted rate all the same.
    pub fn earliest(&self) -> Option<Instant> {
        self.due
            .map(|due| due.checked_sub(self.period / 4).unwrap_or(due))
    }

    /// Whether a frame that arrived `now` is wanted; if so it counts.
    pub fn admit(&mut self, now: Instant) -> bool {
        if self.earliest().is_some_and(|earliest| now < earliest) {
            return false;
        }
        let due = self.due.unwrap_or(now);
        // What was missed in a pause is not made up for.
        let is_late = now.saturating_duration_since(due) >= self.period;
        self.due = Some(if is_late { now } else { due } + self.period);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` frames at `camera_fps` are admitted at `rate_fps`.
    fn admitted(camera_fps: f64, jitter_ms: u64, rate_fps: f32, count: u32) -> usize {
        let start = Instant::now() + Duration::from_secs(1);
        let mut pacer = Pacer::new(rate_fps);
        let frames = (0..count).filter(|&n| {
            let early = Duration::from_millis(u64::from(n % 2) * jitter_ms);
            pacer.admit(start + Duration::from_secs_f64(f64::from(n) / camera_fps) - early)
        });
        frames.count()
    }

    #[test]
    fn a_camera_is_thinned_to_the_wanted_rate() {
        assert_eq!(admitted(30.0, 0, 10.0, 300), 100);
        // One more than 20 for the last due time, a little after the end.
        assert!((20..=21).contains(&admitted(30.0, 0, 2.0, 300)));
        assert!((115..=121).contains(&admitted(30.0, 0, 12.0, 300)));
    }

    #[test]
    fn a_camera_at_or_below_the_wanted_rate_loses_no_frame() {
        assert_eq!(admitted(30.0, 5, 30.0, 300), 300);
        assert_eq!(admitted(5.0, 0, 30.0, 300), 300);
    }

    #[test]
    fn another_rate_holds_from_the_last_frame_on() {
        let start = Instant::now() + Duration::from_secs(1);
        let at = |ms| start + Duration::from_millis(ms);
        let mut pacer = Pacer::new(10.0);
        pacer.set_rate(5.0);
        assert!(pacer.admit(start));
        assert!(!pacer.admit(at(100)));
        pacer.set_rate(10.0);
        assert!(pacer.admit(at(105)));
        pacer.set_rate(1.0);
        assert!(!pacer.admit(at(800)));
        assert!(pacer.admit(at(1105)));
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pacer = Pacer::new(10.0);
        assert!(pacer.admit(start));
        let later = start + Duration::from_secs(60);
        assert!(pacer.admit(later));
        assert!(!pacer.admit(later + Duration::from_millis(30)));
        assert!(pacer.admit(later + Duration::from_millis(100)));
    }

    #[test]
    fn senseless_rates_do_not_panic() {
        for rate in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE] {
            assert!(Pacer::new(rate).admit(Instant::now()));
        }
    }
}
