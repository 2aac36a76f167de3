//! A token bucket: so many at once, so many per second. Pure: time is an argument.

use std::time::Duration;

/// Allows `burst` at once and `per_second` in the long run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limiter {
    burst: f64,
    per_second: f64,
    tokens: f64,
    last: Duration,
}

impl Limiter {
    pub fn new(burst: u32, per_second: u32) -> Self {
        let burst = f64::from(burst);
        Self {
            burst,
            per_second: f64::from(per_second),
            tokens: burst,
            last: Duration::ZERO,
        }
    }

    /// Takes one at `now`, time since any fixed start.
    pub fn allows(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limiter: &mut Limiter, at_ms: u64, asked: usize) -> usize {
        let now = Duration::from_millis(at_ms);
        (0..asked).filter(|_| limiter.allows(now)).count()
    }

    #[test]
    fn a_burst_passes_and_then_ten_per_second() {
        let mut limiter = Limiter::new(20, 10);
        assert_eq!(allowed(&mut limiter, 0, 50), 20);
        assert_eq!(allowed(&mut limiter, 500, 50), 5);
        assert_eq!(
            allowed(&mut limiter, 60_000, 50),
            20,
            "never more than the burst"
        );
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let mut limiter = Limiter::new(2, 10);
        assert_eq!(allowed(&mut limiter, 1000, 5), 2);
        assert_eq!(allowed(&mut limiter, 0, 5), 0);
        assert_eq!(allowed(&mut limiter, 1000, 5), 0);
    }
}
