//! Platt's two numbers and two thresholds of one label, from few frames. Pure.
//!
//! With twenty frames a threshold must not be measured on the frames it was chosen on. So each frame
//! is judged by what is fitted to the others (leave one out; above `MAX_FOLDS` frames, leave one
//! part in `MAX_FOLDS` out), and what that gives is what is reported, and what decides whether the
//! wanted precision is reached.
//!
//! A threshold lies halfway, in logits, between the lowest score that is taken and the highest that
//! is not: of all cuts with at least the target precision the one that finds most frames. When
//! leaving out shows that this is too optimistic, a stricter target is tried, up to 1.

use crate::calibrate::{Fit, Measured, Platt, Thresholds, logit, sigmoid};
use crate::config::{Probability, Rule};

/// Frames with and without the label that are needed.
pub const LEAST: usize = 3;

/// Parts the frames are divided into at most.
const MAX_FOLDS: usize = 200;

/// Share of frames without the label that have to lie under the leave threshold.
const QUIET: f64 = 0.9;

/// A score and whether the frame shows the label.
pub type Sample = (f32, bool);

/// Why a label has no thresholds, or no fit at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shortfall {
    /// Fewer than [`LEAST`] frames of a kind: with and without the label.
    TooFew(usize, usize),
    /// Frames that show the label do not score higher than those that do not.
    Blind,
    /// The wanted precision is not reached; the best that was, where anything was found at all.
    Imprecise(Option<f64>),
}

/// What was found for one label.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// What goes into the file.
    pub fit: Fit,
    /// What is missing in it.
    pub shortfall: Option<Shortfall>,
    /// Mean negative log-likelihood of the frames before and after Platt's numbers, each frame
    /// judged by what was fitted without it.
    pub log_loss: Option<(f64, f64)>,
}

/// Fits one label. `samples` are uncalibrated probabilities.
pub fn choose(samples: &[Sample], precision: Probability) -> Choice {
    let shown = samples.iter().filter(|sample| sample.1).count();
    let missing = |shortfall| Choice {
        fit: Fit::default(),
        shortfall: Some(shortfall),
        log_loss: None,
    };
    if shown < LEAST || samples.len() - shown < LEAST {
        return missing(Shortfall::TooFew(shown, samples.len() - shown));
    }
    let Some(platt) = Platt::fit(samples) else {
        return missing(Shortfall::Blind);
    };
    let wanted = f64::from(precision.get());
    let mut best: Option<Measured> = None;
    let mut reached = None;
    for target in [wanted, f64::midpoint(wanted, 1.0), 1.0] {
        let measured = left_out(samples, target);
        let is_better = |best: Measured| measured.precision() > best.precision();
        if best.is_none_or(is_better) {
            best = Some(measured);
        }
        if measured.precision().is_some_and(|p| p >= wanted)
            && let Some(cut) = cut(samples, target)
        {
            best = Some(measured);
            reached = thresholds(platt, cut, samples);
            break;
        }
    }
    let shortfall = match (reached, best) {
        (Some(_), _) => None,
        (None, best) => Some(Shortfall::Imprecise(best.and_then(|m| m.precision()))),
    };
    Choice {
        fit: Fit {
            platt: Some(platt),
            thresholds: reached,
            measured: best,
        },
        shortfall,
        log_loss: Some(losses(samples)),
    }
}

/// The logit from which a label is taken for seen: at least `target` of what lies over it shows the
/// label, and of all such cuts it finds most. `None` without any.
pub fn cut(samples: &[Sample], target: f64) -> Option<f32> {
    let mut sorted: Vec<(f32, bool)> = samples.iter().map(|&(p, s)| (logit(p), s)).collect();
    sorted.retain(|sample| !sample.0.is_nan());
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut found, mut taken, mut best) = (0.0, 0.0, None);
    let mut at = 0;
    while at < sorted.len() {
        let level = sorted[at].0;
        let (before, start) = (found, at);
        while at < sorted.len() && sorted[at].0 == level {
            found += f64::from(u8::from(sorted[at].1));
            at += 1;
        }
        taken += count(at - start);
        // Equal recall is no reason to take more that is wrong.
        if found > before && found / taken >= target {
            let below = sorted.get(at).map_or(level, |next| next.0);
            best = Some(f32::midpoint(level, below));
        }
    }
    best
}

/// Counts what the samples of each part are taken for when the cut is chosen on the others.
fn left_out(samples: &[Sample], target: f64) -> Measured {
    let folds = samples.len().min(MAX_FOLDS);
    let mut judged = Vec::with_capacity(samples.len());
    for fold in 0..folds {
        let cut = cut(&others(samples, fold, folds), target);
        let part = samples.iter().skip(fold).step_by(folds);
        judged.extend(part.map(|&(p, shows)| {
            let taken = cut.is_some_and(|cut| logit(p) >= cut);
            (f32::from(u8::from(taken)), shows)
        }));
    }
    crate::train::frames::measure(&judged, 0.5)
}

fn others(samples: &[Sample], fold: usize, folds: usize) -> Vec<Sample> {
    let samples = samples.iter().enumerate();
    samples
        .filter(|(n, _)| n % folds != fold)
        .map(|(_, sample)| *sample)
        .collect()
}

fn losses(samples: &[Sample]) -> (f64, f64) {
    let folds = samples.len().min(MAX_FOLDS);
    let (mut before, mut after) = (0.0, 0.0);
    for fold in 0..folds {
        let platt = Platt::fit(&others(samples, fold, folds)).unwrap_or_default();
        for &(p, shows) in samples.iter().skip(fold).step_by(folds) {
            before += log_loss(p, shows);
            after += log_loss(platt.apply(p), shows);
        }
    }
    let of = count(samples.len().max(1));
    (before / of, after / of)
}

/// Negative log-likelihood of one frame, finite.
pub fn log_loss(probability: f32, shows: bool) -> f64 {
    let p = f64::from(probability).clamp(1e-6, 1.0 - 1e-6);
    if shows { -p.ln() } else { -(1.0 - p).ln() }
}

/// Both thresholds on the calibrated scale. A label is left where its usual distance says
/// ([`Rule::leave_for`]), but not under the score of nine in ten frames that do not show it: it
/// would never be left.
fn thresholds(platt: Platt, cut: f32, samples: &[Sample]) -> Option<Thresholds> {
    let enter = Probability::new(platt.apply(sigmoid(cut)))?;
    let mut without: Vec<f32> = samples
        .iter()
        .filter(|sample| !sample.1)
        .map(|sample| platt.apply(sample.0))
        .collect();
    without.sort_by(f32::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a position in a list"
    )]
    let quiet = without[((count(without.len() - 1)) * QUIET).ceil() as usize];
    let leave = Rule::leave_for(enter).get().max(quiet).min(enter.get());
    Some(Thresholds {
        enter,
        leave: Probability::new(leave)?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a count of frames")]
fn count(n: usize) -> f64 {
    n as f64
}

/// Lower end of Wilson's 95 % interval for a share of `right` in `of`: what the share may well be.
pub fn surely(right: u32, of: u32) -> f64 {
    if of == 0 {
        return 0.0;
    }
    let (n, z) = (f64::from(of), 1.96);
    let p = f64::from(right) / n;
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    ((centre - spread) / (1.0 + z * z / n)).max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn p(value: f32) -> Probability {
        Probability::new(value).unwrap()
    }

    fn samples(with: &[f32], without: &[f32]) -> Vec<Sample> {
        let with = with.iter().map(|p| (*p, true));
        with.chain(without.iter().map(|p| (*p, false))).collect()
    }

    #[test]
    fn frames_that_differ_clearly_are_cut_halfway_between() {
        let samples = samples(&[0.9, 0.95, 0.99, 0.9], &[0.1, 0.05, 0.01, 0.1]);
        assert!(cut(&samples, 0.95).unwrap().abs() < 1e-4);
        let choice = choose(&samples, p(0.95));
        assert_eq!(choice.shortfall, None);
        let measured = choice.fit.measured.unwrap();
        assert_eq!(
            (measured.found, measured.mistaken, measured.shown),
            (4, 0, 4)
        );
        let thresholds = choice.fit.thresholds.unwrap();
        assert!((thresholds.enter.get() - 0.5).abs() < 0.1);
        assert!(thresholds.leave < thresholds.enter);
    }

    #[test]
    fn of_two_cuts_with_enough_precision_the_one_that_finds_more_is_taken() {
        // Taken from the top: 1/1, 2/2, 2/3, 3/4.
        let samples = samples(&[0.9, 0.8, 0.5], &[0.6, 0.2, 0.1]);
        let between = |a: f32, b: f32| f32::midpoint(logit(a), logit(b));
        assert_eq!(cut(&samples, 1.0), Some(between(0.8, 0.6)));
        assert_eq!(cut(&samples, 0.75), Some(between(0.5, 0.2)));
        assert_eq!(cut(&samples, 0.7), Some(between(0.5, 0.2)));
        assert_eq!(cut(&[(0.9, false), (0.1, true)], 0.9), None);
    }

    #[test]
    fn equal_scores_are_taken_together() {
        let samples = [(0.9, true), (0.9, false), (0.1, false)];
        assert_eq!(cut(&samples, 1.0), None);
        let halfway = f32::midpoint(logit(0.9), logit(0.1));
        assert_eq!(cut(&samples, 0.5), Some(halfway));
    }

    #[test]
    fn a_precision_that_cannot_be_reached_is_said_and_not_invented() {
        // The best frame is a wrong one, and the rest alternates.
        let samples: Vec<Sample> = (0..30_u8)
            .map(|n| (0.95 - f32::from(n) * 0.03, n % 2 == 1))
            .collect();
        let choice = choose(&samples, p(0.95));
        assert_eq!(choice.fit.thresholds, None);
        assert!(
            matches!(
                choice.shortfall,
                Some(Shortfall::Imprecise(_) | Shortfall::Blind)
            ),
            "{choice:?}"
        );
    }

    #[test]
    fn too_few_frames_and_a_blind_model_give_no_fit() {
        let few = samples(&[0.9, 0.8], &[0.1, 0.2, 0.3]);
        assert_eq!(
            choose(&few, p(0.9)).shortfall,
            Some(Shortfall::TooFew(2, 3))
        );
        let blind = samples(&[0.1, 0.2, 0.3], &[0.9, 0.8, 0.7]);
        let choice = choose(&blind, p(0.9));
        assert_eq!(
            (choice.shortfall, choice.fit),
            (Some(Shortfall::Blind), Fit::default())
        );
    }

    #[test]
    fn what_is_measured_was_not_fitted_on() {
        // One frame without the label lies over all others: chosen on all frames, the cut would
        // avoid it; judged by the others, it is mistaken.
        let samples = samples(&[0.8, 0.75, 0.7, 0.65, 0.6], &[0.99, 0.1, 0.1, 0.1, 0.1]);
        let measured = left_out(&samples, 0.8);
        assert_eq!(measured.mistaken, 1, "{measured:?}");
    }

    #[test]
    fn nine_in_ten_frames_without_the_label_lie_under_where_it_is_left() {
        let with = [0.97_f32; 10];
        let without = [0.9_f32; 10];
        let choice = choose(&samples(&with, &without), p(0.9));
        let (fit, thresholds) = (choice.fit.platt.unwrap(), choice.fit.thresholds.unwrap());
        assert!(fit.apply(0.9) <= thresholds.leave.get() && thresholds.leave < thresholds.enter);
    }

    #[test]
    fn ten_of_ten_may_well_be_seven() {
        assert!((surely(10, 10) - 0.722).abs() < 0.001);
        assert!((surely(0, 10)).abs() < 1e-9);
        assert!((surely(81, 100) - 0.722).abs() < 0.001);
    }

    proptest! {
        #[test]
        fn a_cut_has_its_precision_and_none_finds_more(
            samples in prop::collection::vec((0.01f32..0.99, any::<bool>()), 1..40),
            target in 0.3f64..1.0,
        ) {
            let right = |cut: f32| {
                let taken: Vec<_> = samples.iter().filter(|s| logit(s.0) >= cut).collect();
                let found = taken.iter().filter(|s| s.1).count();
                (found, found as f64 / taken.len().max(1) as f64)
            };
            let every = samples.iter().map(|s| right(logit(s.0)));
            let most = every.filter(|(f, p)| *f > 0 && *p >= target).map(|(f, _)| f).max();
            match cut(&samples, target) {
                Some(cut) => {
                    let (found, precision) = right(cut);
                    prop_assert!(precision >= target);
                    prop_assert_eq!(Some(found), most);
                }
                None => prop_assert_eq!(most, None),
            }
        }

        #[test]
        fn thresholds_keep_what_the_cut_says(
            samples in prop::collection::vec((0.02f32..0.98, any::<bool>()), 8..40),
        ) {
            let choice = choose(&samples, p(0.8));
            if let (Some(platt), Some(thresholds)) = (choice.fit.platt, choice.fit.thresholds) {
                prop_assert!(thresholds.leave <= thresholds.enter);
                let measured = choice.fit.measured.unwrap();
                prop_assert!(measured.precision().unwrap() >= 0.8);
                let taken: Vec<_> = samples.iter().filter(|s| platt.apply(s.0) >= thresholds.enter.get()).collect();
                let found = taken.iter().filter(|s| s.1).count();
                prop_assert!(found as f64 / taken.len() as f64 >= 0.8 - 1e-6);
            }
        }
    }
}
