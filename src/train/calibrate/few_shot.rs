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

/// Tries every blend. Of those that are within a standard error of the best the one with the least
/// `alpha` is taken (neighbouring frames flatter a large one), and only when it lowers the mean
/// log-loss by more than the standard error of the difference between frames.
pub fn attempt(frames: &Frames, kept: &Kept) -> Trial {
    let plain = losses(&frames.scores(None, |_| None));
    let blends = ALPHA
        .iter()
        .flat_map(|alpha| BETA.map(|beta| (*alpha, beta)));
    let tried: Vec<(f32, f32, Vec<f64>)> = blends
        .map(|(alpha, beta)| (alpha, beta, losses(&kept.scores(frames, alpha, beta))))
        .collect();
    let order =
        |a: &&(f32, f32, Vec<f64>), b: &&(f32, f32, Vec<f64>)| mean(&a.2).total_cmp(&mean(&b.2));
    let best = tried.iter().min_by(order).map_or(&plain, |best| &best.2);
    let chosen = ALPHA.iter().find_map(|alpha| {
        let of_alpha = tried.iter().filter(|one| one.0 == *alpha);
        let candidate = of_alpha.min_by(order)?;
        let worse = differences(&candidate.2, best);
        (mean(&worse) <= standard_error(&worse)).then_some(candidate)
    });
    let Some((alpha, beta, blended)) = chosen.cloned() else {
        return Trial {
            few_shot: None,
            log_loss: (mean(&plain), mean(&plain)),
            error: 0.0,
        };
    };
    let gains = differences(&plain, &blended);
    let error = standard_error(&gains);
    let helps = mean(&gains) > error;
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

/// Per frame: the log-loss, mean over the labels that some frame shows. A label that cannot be fitted
/// is guessed by its share of the frames.
fn losses(table: &[Vec<Sample>]) -> Vec<f64> {
    let guess = |samples: &[Sample]| -> Option<Vec<f64>> {
        let shown = samples.iter().filter(|sample| sample.1).count();
        let platt = Platt::fit(samples);
        #[expect(clippy::cast_precision_loss, reason = "a count of frames")]
        let share = shown as f32 / samples.len() as f32;
        let loss =
            |&(p, shows): &Sample| log_loss(platt.map_or(share, |platt| platt.apply(p)), shows);
        (shown > 0).then(|| samples.iter().map(loss).collect())
    };
    let of_labels: Vec<Vec<f64>> = table.iter().filter_map(|s| guess(s)).collect();
    let frames = table.first().map_or(0, Vec::len);
    let of_frame = |n: usize| mean(&of_labels.iter().map(|of| of[n]).collect::<Vec<f64>>());
    (0..frames).map(of_frame).collect()
}

fn differences(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
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
