//! Frames whose labels are known, blended into the logits: a training-free few-shot adapter after
//! Zhang et al., "Tip-Adapter" (ECCV 2022), formula 5.
//!
//! The affinity of a picture `v` to a label is the mean of `exp(−β(1 − ⟨v,k⟩))` over the frames `k`
//! that show the label (the paper sums; a mean is fair to labels with few frames). `α` times the
//! affinity is added to the label's logit. What frames of no label, and of labels that do not compete
//! with the one in question, have in common with the picture is added to the logits of the negatives.

use std::sync::Arc;

use crate::encoder::Embedding;

/// Labelled frames and how much they count.
#[derive(Clone, Debug, PartialEq)]
pub struct Shots {
    /// One unit vector per frame.
    pub keys: Arc<[Embedding]>,
    /// Per frame: position of the label it shows in the bank; `None` where it shows none of them.
    pub shows: Vec<Option<usize>>,
    /// Per label of the bank: whether its logits are blended at all.
    pub blended: Vec<bool>,
    /// `α` ≥ 0: the most that a logit gains.
    pub alpha: f32,
    /// `β` > 0: how much closer frames count more.
    pub beta: f32,
}

impl Shots {
    /// How much the picture has in common with the frames of each of `labels` labels, without frame
    /// number `left_out`.
    pub(super) fn affinities(
        &self,
        image: &Embedding,
        labels: usize,
        left_out: Option<usize>,
    ) -> Affinities {
        let mut sums = vec![(0.0, 0.0); labels + 1];
        for (n, (key, shows)) in self.keys.iter().zip(&self.shows).enumerate() {
            if left_out == Some(n) {
                continue;
            }
            let distance = 1.0 - f64::from(image.dot(key));
            let class = shows.filter(|label| *label < labels).unwrap_or(labels);
            sums[class].0 += (-f64::from(self.beta) * distance).exp();
            sums[class].1 += 1.0;
        }
        Affinities {
            sums,
            alpha: f64::from(self.alpha),
        }
    }
}

/// Sum and number per label; the last is for frames of no label.
pub(super) struct Affinities {
    sums: Vec<(f64, f64)>,
    alpha: f64,
}

impl Affinities {
    /// What label `label` gains.
    pub fn of(&self, label: usize) -> f64 {
        self.mean([self.sums[label]].into_iter())
    }

    /// What the negatives gain: all frames but those of the labels that `competes` is true for.
    pub fn besides(&self, competes: impl Fn(usize) -> bool) -> f64 {
        let last = self.sums.len() - 1;
        let sums = self.sums.iter().enumerate();
        let rest = sums.filter(|(n, _)| *n == last || !competes(*n));
        self.mean(rest.map(|(_, sum)| *sum))
    }

    fn mean(&self, sums: impl Iterator<Item = (f64, f64)>) -> f64 {
        let (sum, count) = sums.fold((0.0, 0.0), |(s, c), (sum, count)| (s + sum, c + count));
        if count > 0.0 {
            self.alpha * sum / count
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LabelBank, score, score_without};
    use super::*;

    fn unit(values: &[f32]) -> Embedding {
        Embedding::normalized(values.to_vec()).unwrap()
    }

    /// Two labels and a negative that the texts cannot tell apart, one frame of each.
    fn bank(groups: Vec<Option<usize>>, alpha: f32) -> LabelBank {
        let text = unit(&[0.0, 0.0, 0.0, 1.0]);
        let keys = [
            [1.0, 0.0, 0.0, 0.2],
            [0.0, 1.0, 0.0, 0.2],
            [0.0, 0.0, 1.0, 0.2],
        ];
        LabelBank {
            labels: vec![text.clone(), text.clone()],
            groups,
            negatives: vec![text].into(),
            shots: Some(Shots {
                keys: keys.iter().map(|k| unit(k)).collect(),
                shows: vec![Some(0), Some(1), None],
                blended: vec![true, true],
                alpha,
                beta: 5.0,
            }),
        }
    }

    fn probabilities(bank: &LabelBank, image: &[f32]) -> Vec<f32> {
        let scores = score(&unit(image), bank, 20.0);
        scores.iter().map(|s| s.probability).collect()
    }

    #[test]
    fn a_picture_like_a_labelled_frame_gains_that_label() {
        for groups in [vec![None, None], vec![Some(0), Some(0)]] {
            let bank = bank(groups, 5.0);
            let first = probabilities(&bank, &[1.0, 0.1, 0.0, 0.2]);
            assert!(first[0] > 0.9 && first[1] < 0.1, "{first:?}");
            let none = probabilities(&bank, &[0.0, 0.1, 1.0, 0.2]);
            assert!(none.iter().all(|p| *p < 0.1), "{none:?}");
        }
    }

    #[test]
    fn the_gain_is_alpha_times_the_affinity() {
        let bank = bank(vec![None, None], 3.0);
        let image = unit(&[1.0, 0.5, 0.0, 0.2]);
        let shots = bank.shots.as_ref().unwrap();
        let near = |n: usize| (-5.0 * (1.0 - f64::from(image.dot(&shots.keys[n])))).exp();
        let own = 3.0 * near(0);
        let rest = 3.0 * (near(1) + near(2)) / 2.0;
        let expected = 1.0 / (1.0 + (rest - own).exp());
        let found = f64::from(score(&image, &bank, 20.0)[0].probability);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn a_frame_that_is_left_out_does_not_recognise_itself() {
        let bank = bank(vec![None, None], 5.0);
        let frame = bank.shots.as_ref().unwrap().keys[0].clone();
        let with = score(&frame, &bank, 20.0)[0].probability;
        let without = score_without(&frame, &bank, 20.0, Some(0))[0].probability;
        assert!(with > 0.9 && without < 0.5, "{with} {without}");
    }

    #[test]
    fn labels_that_are_not_blended_and_an_alpha_of_zero_change_nothing() {
        let mut plain = bank(vec![None, None], 5.0);
        let image = [1.0, 0.1, 0.0, 0.2];
        plain.shots.as_mut().unwrap().blended = vec![false, false];
        let expected = probabilities(
            &LabelBank {
                shots: None,
                ..plain.clone()
            },
            &image,
        );
        assert_eq!(probabilities(&plain, &image), expected);
        assert_eq!(
            probabilities(&bank(vec![None, None], 0.0), &image),
            expected
        );
    }
}
