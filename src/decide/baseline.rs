//! What a score is like on a quiet day, per camera, zone and label: running mean and variance of the
//! score's logit, frozen while anything is active.
//!
//! Off by default: where a label is never quite absent from a scene (a shop sign with an apple on
//! it), a score counts only where it stands out from the usual one.

use std::time::Duration;

use super::decider::Usual;
use crate::calibrate::logit;
use crate::config::BaselineRule;

/// A deviation is told only after this much quiet time.
const LEARN_FOR: Duration = Duration::from_secs(300);
/// Smallest standard deviation, in logits: a perfectly still scene must not make every flicker an
/// outlier.
const MIN_DEVIATION: f64 = 0.1;

/// An exponentially weighted mean and variance.
#[derive(Clone, Debug)]
pub(super) struct Baseline {
    rule: BaselineRule,
    mean: f64,
    variance: f64,
    learned: Duration,
    last_at: Option<Duration>,
}

impl Baseline {
    /// Knows nothing yet; forgets with the rule's `forget_after` as time constant τ.
    pub fn new(rule: BaselineRule) -> Self {
        Self {
            rule,
            mean: 0.0,
            variance: 0.0,
            learned: Duration::ZERO,
            last_at: None,
        }
    }

    /// The rule in force.
    pub fn rule(&self) -> BaselineRule {
        self.rule
    }

    /// Nothing is seen for a while: the time that passes does not count.
    pub fn pause(&mut self) {
        self.last_at = None;
    }

    /// How `probability` stands to what is usual. It fell back when it lost half of what makes it
    /// stand out.
    pub fn compare(&self, probability: f32) -> Usual {
        match self.deviation(probability) {
            None => Usual::Learning,
            Some(deviation) if deviation >= self.rule.deviations => Usual::StandsOut,
            Some(deviation) if deviation < self.rule.deviations / 2.0 => Usual::FellBack,
            Some(_) => Usual::Between,
        }
    }

    /// Learns `probability` at `now` (uptime) while the scene is quiet. With `active`, nothing is
    /// learned, and the time that passes does not count. Not a number is ignored.
    ///
    /// Weighted by time and not by frames, because the change gate makes frames irregular:
    /// α = Δt / min(learned time, τ), a plain mean at first and an exponential one later; incremental
    /// mean and variance after Finch, "Incremental calculation of weighted mean and variance" (2009),
    /// section 9.
    pub fn learn(&mut self, now: Duration, probability: f32, active: bool) {
        let value = f64::from(logit(probability));
        if active || !value.is_finite() {
            self.pause();
            return;
        }
        let Some(last_at) = self.last_at.replace(now) else {
            if self.learned.is_zero() {
                self.mean = value;
            }
            return;
        };
        let step = now.saturating_sub(last_at);
        self.learned += step;
        let horizon = self.learned.min(self.rule.forget_after).as_secs_f64();
        if horizon <= 0.0 {
            return;
        }
        let alpha = (step.as_secs_f64() / horizon).min(1.0);
        let difference = value - self.mean;
        let increment = alpha * difference;
        self.mean += increment;
        self.variance = (1.0 - alpha) * (self.variance + difference * increment);
    }

    /// How many standard deviations `probability` lies over what is usual; `None` until five quiet
    /// minutes were learned.
    pub fn deviation(&self, probability: f32) -> Option<f32> {
        let value = f64::from(logit(probability));
        if self.learned < LEARN_FOR || !value.is_finite() {
            return None;
        }
        let deviation = (value - self.mean) / self.variance.sqrt().max(MIN_DEVIATION);
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        let deviation = deviation as f32;
        Some(deviation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BaselineRule = BaselineRule {
        deviations: 4.0,
        forget_after: Duration::from_secs(3600),
    };

    fn quiet() -> Baseline {
        let mut baseline = Baseline::new(RULE);
        for second in 0..600 {
            let probability = if second % 2 == 0 { 0.25 } else { 0.35 };
            baseline.learn(Duration::from_secs(second), probability, false);
        }
        baseline
    }

    #[test]
    fn what_is_usual_deviates_little_and_what_is_not_a_lot() {
        let baseline = quiet();
        assert!(baseline.deviation(0.3).unwrap().abs() < 0.5);
        assert!(baseline.deviation(0.9).unwrap() > 10.0);
    }

    #[test]
    fn nothing_is_told_before_it_was_learned() {
        let mut baseline = Baseline::new(RULE);
        for second in 0..=299 {
            baseline.learn(Duration::from_secs(second), 0.3, false);
            assert_eq!(baseline.deviation(0.3), None);
        }
        baseline.learn(Duration::from_secs(300), 0.3, false);
        assert!(baseline.deviation(0.3).is_some());
    }

    #[test]
    fn an_active_hour_changes_nothing() {
        let mut baseline = quiet();
        let before = baseline.deviation(0.5);
        for second in 600..4200 {
            baseline.learn(Duration::from_secs(second), 0.95, true);
        }
        baseline.learn(Duration::from_secs(4200), 0.3, false);
        assert_eq!(baseline.deviation(0.5), before);
    }

    #[test]
    fn a_new_normal_is_learned_in_a_few_time_constants() {
        let mut baseline = quiet();
        assert!(baseline.deviation(0.6).unwrap() > 2.0);
        for second in (600..6 * 3600).step_by(10) {
            baseline.learn(Duration::from_secs(second), 0.6, false);
        }
        assert!(baseline.deviation(0.6).unwrap().abs() < 0.5);
    }

    #[test]
    fn nonsense_is_not_learned() {
        let mut baseline = quiet();
        let before = baseline.deviation(0.5);
        baseline.learn(Duration::from_secs(600), f32::NAN, false);
        assert_eq!(baseline.deviation(0.5), before);
        assert_eq!(baseline.deviation(f32::NAN), None);
    }
}
