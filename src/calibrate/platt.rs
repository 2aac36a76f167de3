//! Platt calibration of one label: p′ = σ(a · logit(p) + b).
//!
//! A softmax over prompts says which prompt fits best, not how often it is right. Two numbers per
//! label, fitted on labelled pictures, repair that without changing the order of the scores.

use serde::{Deserialize, Serialize};

/// Probabilities are kept this far from 0 and 1, so that their logit is finite.
const EDGE: f32 = 1e-6;

/// The two numbers of one label. The default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Raw")]
pub struct Platt {
    a: f32,
    b: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    a: f32,
    b: f32,
}

impl TryFrom<Raw> for Platt {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        Self::new(raw.a, raw.b)
            .ok_or("calibration: a has to be over 0 and at most 100, b in −100–100")
    }
}

impl Default for Platt {
    fn default() -> Self {
        Self { a: 1.0, b: 0.0 }
    }
}

impl Platt {
    /// `None` unless 0 < `a` ≤ 100 (more would turn the order of scores around, or make a step of
    /// it) and |`b`| ≤ 100.
    pub fn new(a: f32, b: f32) -> Option<Self> {
        let fits = a > 0.0 && a <= 100.0 && (-100.0..=100.0).contains(&b);
        fits.then_some(Self { a, b })
    }

    /// Slope and intercept, in logits.
    pub fn parameters(self) -> (f32, f32) {
        (self.a, self.b)
    }

    /// The calibrated probability, 0–1. NaN stays NaN.
    pub fn apply(self, probability: f32) -> f32 {
        if self == Self::default() {
            return probability;
        }
        sigmoid(self.a * logit(probability) + self.b)
    }

    /// Fits `(probability, right)` pairs by maximum likelihood, with the smoothed targets of Platt
    /// (1999) and the damped Newton steps of Lin, Lin and Weng, "A note on Platt's probabilistic
    /// outputs for support vector machines" (2007). `None` when both kinds are not there, or when
    /// the scores rise where the label is wrong.
    pub fn fit(pairs: &[(f32, bool)]) -> Option<Self> {
        let samples: Vec<(f64, bool)> = pairs
            .iter()
            .filter(|(p, _)| (0.0..=1.0).contains(p))
            .map(|&(p, right)| (f64::from(logit(p)), right))
            .collect();
        let count = |wanted: bool| {
            let n = samples.iter().filter(|(_, right)| *right == wanted).count();
            u32::try_from(n).map_or(f64::from(u32::MAX), f64::from)
        };
        let (positives, negatives) = (count(true), count(false));
        if positives < 1.0 || negatives < 1.0 {
            return None;
        }
        let high = (positives + 1.0) / (positives + 2.0);
        let low = 1.0 / (negatives + 2.0);
        let target = |right: bool| if right { high } else { low };
        let loss = |a: f64, b: f64| -> f64 {
            let one = |&(x, right): &(f64, bool)| softplus(a * x + b) - target(right) * (a * x + b);
            samples.iter().map(one).sum()
        };
        let (mut a, mut b) = (1.0, 0.0);
        let mut current = loss(a, b);
        for _ in 0..100 {
            let (mut ga, mut gb) = (0.0, 0.0);
            let (mut haa, mut hab, mut hbb) = (1e-9, 0.0, 1e-9);
            for &(x, right) in &samples {
                let p = 1.0 / (1.0 + (-(a * x + b)).exp());
                let (error, weight) = (p - target(right), p * (1.0 - p));
                ga += error * x;
                gb += error;
                haa += weight * x * x;
                hab += weight * x;
                hbb += weight;
            }
            if ga.abs().max(gb.abs()) < 1e-7 {
                break;
            }
            let determinant = haa * hbb - hab * hab;
            let da = -(hbb * ga - hab * gb) / determinant;
            let db = -(haa * gb - hab * ga) / determinant;
            // Halve the step until it helps.
            let better = (0..40)
                .map(|n| 0.5_f64.powi(n))
                .map(|step| (a + step * da, b + step * db))
                .find(|&(a, b)| loss(a, b) < current);
            let Some(better) = better else { break };
            (a, b) = better;
            current = loss(a, b);
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked by `new`")]
        let fitted = Self::new(a as f32, b as f32);
        fitted
    }
}

/// ln(p / (1 − p)), with `p` kept 1e-6 away from 0 and 1; NaN stays NaN.
pub fn logit(probability: f32) -> f32 {
    let p = probability.clamp(EDGE, 1.0 - EDGE);
    (p / (1.0 - p)).ln()
}

/// 1 / (1 + e^−x).
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + e^x), without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_of_scores_and_their_range_stay(
            a in 0.01_f32..5.0, b in -5.0_f32..5.0, p in 0.0_f32..=1.0, q in 0.0_f32..=1.0,
        ) {
            let platt = Platt::new(a, b).unwrap();
            let (low, high) = (platt.apply(p.min(q)), platt.apply(p.max(q)));
            prop_assert!(low <= high);
            prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
        }

        #[test]
        fn logit_and_sigmoid_are_inverse(p in 0.0001_f32..0.9999) {
            prop_assert!((sigmoid(logit(p)) - p).abs() < 1e-5);
        }
    }

    #[test]
    fn the_default_changes_nothing_and_nonsense_stays_nonsense() {
        for p in [0.0, 0.1, 1.0] {
            assert!((Platt::default().apply(p) - p).abs() < f32::EPSILON);
        }
        assert!(Platt::new(2.0, 0.5).unwrap().apply(f32::NAN).is_nan());
        assert_eq!(Platt::new(f32::NAN, 0.0), None);
        assert_eq!(Platt::new(-1.0, 0.0), None);
        assert!(serde_json::from_str::<Platt>(r#"{"a":0,"b":1}"#).is_err());
        assert!(serde_json::from_str::<Platt>(r#"{"a":2,"b":1}"#).is_ok());
    }

    #[test]
    fn an_overconfident_score_is_fitted_back() {
        // Says 0.9 and 0.1, is right three times in four.
        let one = |p: f32, right: bool| std::iter::repeat_n((p, right), 300);
        let three = |p: f32, right: bool| std::iter::repeat_n((p, right), 900);
        let pairs: Vec<(f32, bool)> = three(0.9, true)
            .chain(one(0.9, false))
            .chain(three(0.1, false))
            .chain(one(0.1, true))
            .collect();
        let platt = Platt::fit(&pairs).unwrap();
        assert!((platt.apply(0.9) - 0.75).abs() < 0.005);
        assert!((platt.apply(0.1) - 0.25).abs() < 0.005);
    }

    #[test]
    fn scores_at_the_very_ends_are_fitted_too() {
        // Every weight is nearly zero at the start, so that a whole Newton step leads far away.
        let pairs: Vec<(f32, bool)> = (0..4000)
            .map(|n| (f32::from(u8::from(n % 2 == 0)), (n % 2 == 0) != (n % 8 < 2)))
            .collect();
        let platt = Platt::fit(&pairs).unwrap();
        assert!((platt.apply(1.0) - 0.75).abs() < 0.005);
        assert!((platt.apply(0.0) - 0.25).abs() < 0.005);
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        assert_eq!(Platt::fit(&[(0.9, true), (0.8, true)]), None);
        let backwards = [(0.9, false), (0.8, false), (0.1, true), (0.2, true)];
        assert_eq!(Platt::fit(&backwards), None);
        assert_eq!(Platt::fit(&[(f32::NAN, true), (0.1, false)]), None);
    }

    #[test]
    fn a_few_perfectly_separated_pairs_do_not_run_away() {
        let pairs = [(0.9, true), (0.8, true), (0.2, false), (0.1, false)];
        let (a, b) = Platt::fit(&pairs).unwrap().parameters();
        assert!(a < 3.0 && b.abs() < 1.0, "{a} {b}");
    }
}
