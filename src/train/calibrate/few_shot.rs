//! Whether the labelled frames themselves help, and how much they should count.

use std::sync::Arc;

use super::choose::{Sample, log_loss};
use crate::calibrate::{FewShot, MAX_FRAMES, MAX_FRAMES_PER_LABEL, Platt};
use crate::matcher::Shots;
use crate::train::frames::Frames;

/// What is tried: the most that a logit gains,
const ALPHA: [f32; 7] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
/// and how much closer frames count more; the paper's search ends at 7 with a scale of 100.
const BETA: [f32; 5] = [1.0, 2.0, 5.0, 10.0, 20.0];

/// What came of trying.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Frames kept and how much they count; `None` where they do not help.
    pub few_shot: Option<FewShot>,
    /// Mean log-loss per frame and label without and with the best blend, each frame scored without
    /// itself and both calibrated.
    pub log_loss: (f64, f64),
    /// Standard error of the difference.
    pub error: f64,
}

/// The frames that are kept: evenly spaced ones where there are too many.
pub struct Kept {
    /// Per kept frame its position among all frames.
    pub frames: Vec<usize>,
    shots: Shots,
}

impl Kept {
    /// At most [`MAX_FRAMES_PER_LABEL`] of each label and of none, at most [`MAX_FRAMES`] in all.
    pub fn of(frames: &Frames) -> Self {
        let classes = frames.set.labels.len() + 1;
        let most = MAX_FRAMES_PER_LABEL.min(MAX_FRAMES / classes).max(1);
        let mut kept = Vec::new();
        for class in (0..frames.set.labels.len()).map(Some).chain([None]) {
            let all = frames.frames.iter().enumerate();
            let of_class: Vec<usize> = all
                .filter(|(_, frame)| frame.shows == class)
                .map(|(n, _)| n)
                .collect();
            let count = of_class.len().min(most);
            kept.extend((0..count).map(|n| of_class[n * of_class.len() / count]));
        }
        kept.truncate(MAX_FRAMES);
        let at = |n: &usize| &frames.frames[*n];
        let shots = Shots {
            keys: kept.iter().map(|n| at(n).embedding.clone()).collect(),
            shows: kept.iter().map(|n| at(n).shows).collect(),
            blended: vec![true; frames.set.labels.len()],
            alpha: 0.0,
            beta: 1.0,
        };
        Self {
            frames: kept,
            shots,
        }
    }

    /// Scores of all frames, each without itself.
    pub fn scores(&self, frames: &Frames, alpha: f32, beta: f32) -> Vec<Vec<Sample>> {
        let shots = Shots {
            alpha,
            beta,
            ..self.shots.clone()
        };
        let key = |frame: usize| self.frames.iter().position(|n| *n == frame);
        frames.scores(Some(&shots), key)
    }
}

/// Tries every blend. The best is taken when it lowers the mean log-loss by more than the standard
/// error of the difference between frames.
pub fn attempt(frames: &Frames, kept: &Kept) -> Trial {
    let plain = losses(&frames.scores(None, |_| None));
    let mut best = (0.0, 0.0, plain.clone());
    for alpha in ALPHA {
        for beta in BETA {
            let blended = losses(&kept.scores(frames, alpha, beta));
            if mean(&blended) < mean(&best.2) {
                best = (alpha, beta, blended);
            }
        }
    }
    let (alpha, beta, blended) = best;
    let gains: Vec<f64> = plain.iter().zip(&blended).map(|(a, b)| a - b).collect();
    let error = standard_error(&gains);
    let helps = alpha > 0.0 && mean(&gains) > error;
    Trial {
        few_shot: helps.then(|| FewShot {
            alpha,
            beta,
            keys: Arc::clone(&kept.shots.keys),
            shows: kept.shots.shows.clone(),
        }),
        log_loss: (mean(&plain), mean(&blended)),
        error,
    }
}

/// Per frame: the log-loss, mean over the labels that can be fitted.
fn losses(table: &[Vec<Sample>]) -> Vec<f64> {
    let fitted: Vec<(&Vec<Sample>, Platt)> = table
        .iter()
        .filter_map(|samples| Some((samples, Platt::fit(samples)?)))
        .collect();
    let frames = table.first().map_or(0, Vec::len);
    let one = |n: usize| {
        let loss = |(samples, platt): &(&Vec<Sample>, Platt)| {
            let (p, shows) = samples[n];
            log_loss(platt.apply(p), shows)
        };
        mean(&fitted.iter().map(loss).collect::<Vec<f64>>())
    };
    (0..frames).map(one).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a count of frames")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "a count of frames")]
fn standard_error(values: &[f64]) -> f64 {
    let (centre, n) = (mean(values), values.len() as f64);
    if n < 2.0 {
        return f64::INFINITY;
    }
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (squares / (n - 1.0) / n).sqrt()
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::config::Id;
    use crate::encoder::Embedding;
    use crate::label_set::{Contender, LabelSet};
    use crate::matcher::LabelBank;
    use crate::train::data::Skips;
    use crate::train::frames::Frame;

    const DIM: usize = 16;

    /// Twelve frames of each of two labels and of none. Texts cannot tell them apart; frames of a
    /// label lie around one direction when `alike`, anywhere when not.
    fn frames(alike: bool) -> Frames {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut unit = |near: Option<usize>| {
            let mut values: Vec<f32> = (0..DIM).map(|_| rng.random_range(-0.3..0.3)).collect();
            if let Some(near) = near {
                values[near] += 1.0;
            }
            Embedding::normalized(values).unwrap()
        };
        let mut all = Vec::new();
        for n in 0..36 {
            let shows = [Some(0), Some(1), None][n % 3];
            let direction = shows.map_or(2, |label: usize| label);
            all.push(Frame {
                name: n.to_string(),
                shows,
                embedding: unit(alike.then_some(direction)),
            });
        }
        let contender = |id: &str| Contender {
            id: Id::new(id).unwrap(),
            prompts: vec![id.to_owned()],
            group: None,
        };
        Frames {
            set: LabelSet {
                labels: vec![contender("a"), contender("b")],
                negatives: vec!["n".to_owned()],
            },
            enter: vec![0.7; 2],
            bank: LabelBank {
                labels: vec![unit(None), unit(None)],
                groups: vec![None; 2],
                negatives: vec![unit(None)].into(),
                shots: None,
            },
            logit_scale: 5.0,
            frames: all,
            skipped: Skips::default(),
        }
    }

    #[test]
    fn frames_that_tell_labels_apart_are_kept_and_chance_is_not() {
        let alike = frames(true);
        let trial = attempt(&alike, &Kept::of(&alike));
        assert!(trial.log_loss.1 < 0.5 * trial.log_loss.0, "{trial:?}");
        assert_eq!(trial.few_shot.unwrap().keys.len(), 36);
        let random = frames(false);
        let trial = attempt(&random, &Kept::of(&random));
        assert!(
            trial.few_shot.is_none(),
            "{:?} ± {}",
            trial.log_loss,
            trial.error
        );
    }

    #[test]
    fn of_many_frames_evenly_spaced_ones_are_kept() {
        let mut many = frames(true);
        let template = many.frames[0].clone();
        many.frames = (0..200)
            .map(|n| Frame {
                shows: (n % 2 == 0).then_some(0),
                ..template.clone()
            })
            .collect();
        let kept = Kept::of(&many);
        assert_eq!(kept.frames.len(), 2 * MAX_FRAMES_PER_LABEL);
        assert!(kept.frames.iter().any(|n| *n > 180) && kept.frames.iter().any(|n| *n < 10));
    }

    #[test]
    fn the_standard_error_of_a_mean() {
        // Variance 2.5 of five values.
        let error = standard_error(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((error - 0.5_f64.sqrt()).abs() < 1e-12);
        assert!(standard_error(&[1.0]).is_infinite());
    }
}
