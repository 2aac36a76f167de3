//! From an image embedding to probabilities, one per label. Pure.
//!
//! `P(l) = exp(z_l) / Σ_c exp(z_c)` with the logits `z_c = s·⟨v,t_c⟩`, summed over the label itself,
//! the other labels of its group, and the negatives. A label without a group competes only with the
//! negatives. [`Shots`] add to the logits what the picture has in common with labelled frames.

use std::sync::Arc;

use crate::encoder::Embedding;

mod shots;

pub use shots::Shots;

/// What images are compared with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelBank {
    /// One unit vector per label.
    pub labels: Vec<Embedding>,
    /// Per label: the index of its group. Labels with equal indices exclude each other.
    pub groups: Vec<Option<usize>>,
    /// Prompts that compete with every label, shared by the banks of all zones.
    pub negatives: Arc<[Embedding]>,
    /// Frames whose labels are known, where a calibration has some.
    pub shots: Option<Shots>,
}

/// One label's score in one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Cosine between picture and label, −1–1. Never a decision by itself.
    pub cosine: f32,
    /// Probability over the label's group and the negatives, 0–1.
    pub probability: f32,
    /// Probability minus the best competitor's; 1 when nothing competes.
    pub margin: f32,
}

/// Scores every label of `bank` for the picture `image`, in the bank's order. `logit_scale` is the
/// bundle's, linear.
///
/// # Panics
/// When the bank has not one group entry per label, or embeddings of another space.
pub fn score(image: &Embedding, bank: &LabelBank, logit_scale: f32) -> Vec<Score> {
    score_without(image, bank, logit_scale, None)
}

/// [`score`] as if frame number `left_out` of the bank's shots were not there: the picture is that
/// frame, and must not recognise itself.
///
/// # Panics
/// As [`score`].
pub fn score_without(
    image: &Embedding,
    bank: &LabelBank,
    logit_scale: f32,
    left_out: Option<usize>,
) -> Vec<Score> {
    assert_eq!(
        bank.labels.len(),
        bank.groups.len(),
        "one group entry per label"
    );
    let cosines: Vec<f32> = bank.labels.iter().map(|label| image.dot(label)).collect();
    let negatives: Vec<f32> = bank.negatives.iter().map(|n| image.dot(n)).collect();
    let shots = bank.shots.as_ref();
    let affinities = shots.map(|shots| shots.affinities(image, bank.labels.len(), left_out));
    let scale = f64::from(logit_scale);
    (0..bank.labels.len())
        .map(|label| {
            let group = bank.groups[label];
            let is_rival =
                |other: usize| other != label && group.is_some() && bank.groups[other] == group;
            let affinities = affinities.as_ref().filter(|_| {
                shots.is_some_and(|shots| shots.blended.get(label).copied().unwrap_or(false))
            });
            let of = |other: usize| affinities.map_or(0.0, |a| a.of(other));
            let of_rest = affinities.map_or(0.0, |a| a.besides(|n| n == label || is_rival(n)));
            let logit = |cosine: f32, affinity: f64| scale * f64::from(cosine) + affinity;
            let own = logit(cosines[label], of(label));
            let rivals = (0..bank.labels.len())
                .filter(|other| is_rival(*other))
                .map(|other| logit(cosines[other], of(other)));
            let negatives = negatives.iter().map(|cosine| logit(*cosine, of_rest));
            against(cosines[label], own, rivals.chain(negatives))
        })
        .collect()
}

/// One label's logit against its competitors'.
fn against(cosine: f32, own: f64, competitors: impl Iterator<Item = f64>) -> Score {
    // Relative to the label's own logit: the label's term is exp(0) = 1. In f64, with logits of at
    // most some ±1000 apart, exp may overflow to infinity; 1/∞ = 0 is then the right answer.
    let (mut sum, mut best) = (1.0f64, 0.0f64);
    for competitor in competitors {
        let term = (competitor - own).exp();
        sum += term;
        best = best.max(term);
    }
    let probability = 1.0 / sum;
    // ∞/∞ where the best competitor alone overflows: it has everything.
    let rival = if best.is_finite() { best / sum } else { 1.0 };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both are within −1–1; rounding is meant"
    )]
    Score {
        cosine,
        probability: probability as f32,
        margin: (probability - rival) as f32,
    }
}

/// Softmax of `logit_scale · cosine`, over exactly these cosines.
pub fn softmax(cosines: &[f32], logit_scale: f32) -> Vec<f32> {
    let scale = f64::from(logit_scale);
    let most = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let terms: Vec<f64> = cosines
        .iter()
        .map(|cosine| (scale * (f64::from(*cosine) - f64::from(most))).exp())
        .collect();
    let sum: f64 = terms.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within 0–1; rounding is meant"
    )]
    terms.iter().map(|term| (term / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unit(values: &[f32]) -> Embedding {
        Embedding::normalized(values.to_vec()).expect("not zero")
    }

    fn embedding() -> impl Strategy<Value = Embedding> {
        prop::collection::vec(-1.0f32..1.0, 6).prop_filter_map("zero vector", Embedding::normalized)
    }

    fn embeddings(most: usize) -> impl Strategy<Value = Vec<Embedding>> {
        prop::collection::vec(embedding(), 0..most)
    }

    proptest! {
        #[test]
        fn one_group_without_negatives_sums_to_one(
            image in embedding(), labels in embeddings(6), scale in 1.0f32..1000.0,
        ) {
            let groups = vec![Some(0); labels.len()];
            let bank = LabelBank { labels, groups, negatives: [].into(), shots: None };
            let scores = score(&image, &bank, scale);
            let sum: f32 = scores.iter().map(|s| s.probability).sum();
            prop_assert!(scores.is_empty() || (sum - 1.0).abs() < 1e-5);
            let cosines: Vec<f32> = scores.iter().map(|s| s.cosine).collect();
            for (score, p) in scores.iter().zip(softmax(&cosines, scale)) {
                prop_assert!((score.probability - p).abs() < 1e-6);
            }
        }

        #[test]
        fn scores_stay_in_range_and_margins_follow_the_order(
            image in embedding(), labels in embeddings(5), negatives in embeddings(5),
            scale in 1.0f32..1000.0,
        ) {
            let groups = (0..labels.len()).map(|i| (i % 3 > 0).then_some(i % 3)).collect();
            let bank = LabelBank { labels, groups, negatives: negatives.into(), shots: None };
            for (i, s) in score(&image, &bank, scale).into_iter().enumerate() {
                prop_assert!((0.0..=1.0).contains(&s.probability));
                prop_assert!((-1.0..=1.0).contains(&s.margin));
                let beaten = |c: &Embedding| image.dot(c) <= s.cosine;
                let rivals = bank.labels.iter().zip(&bank.groups).enumerate()
                    .filter(|(j, (_, g))| *j != i && g.is_some() && **g == bank.groups[i])
                    .map(|(_, (l, _))| l);
                let best = rivals.chain(bank.negatives.iter()).all(beaten);
                prop_assert_eq!(best, s.margin >= 0.0);
            }
        }

        #[test]
        fn a_label_closer_to_the_picture_is_never_less_probable(
            image in embedding(), far in embedding(), negatives in embeddings(5),
            pull in 0.0f32..1.0,
        ) {
            let mix: Vec<f32> = far.as_slice().iter().zip(image.as_slice())
                .map(|(f, i)| f + pull * i).collect();
            let near = Embedding::normalized(mix);
            prop_assume!(near.is_some());
            let probability = |label: &Embedding| {
                let bank = LabelBank {
                    labels: vec![label.clone()], groups: vec![None], negatives: negatives.clone().into(), shots: None,
                };
                score(&image, &bank, 20.0)[0].probability
            };
            prop_assert!(probability(&near.unwrap()) >= probability(&far) - 1e-6);
        }

        #[test]
        fn the_order_of_labels_and_negatives_does_not_matter(
            image in embedding(), labels in embeddings(5), negatives in embeddings(5),
        ) {
            let groups: Vec<_> = (0..labels.len()).map(|i| Some(i % 2)).collect();
            let bank = LabelBank { labels, groups, negatives: negatives.into(), shots: None };
            let mut turned = bank.clone();
            turned.labels.reverse();
            turned.groups.reverse();
            turned.negatives = bank.negatives.iter().rev().cloned().collect();
            let mut scores = score(&image, &turned, 20.0);
            scores.reverse();
            for (a, b) in score(&image, &bank, 20.0).iter().zip(&scores) {
                prop_assert!((a.probability - b.probability).abs() < 1e-6);
                prop_assert!((a.margin - b.margin).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn labels_of_different_groups_do_not_compete() {
        let image = unit(&[1.0, 1.0]);
        let bank = LabelBank {
            labels: vec![unit(&[1.0, 0.0]), unit(&[0.0, 1.0]), unit(&[1.0, 1.0])],
            groups: vec![Some(0), Some(1), None],
            negatives: [].into(),
            shots: None,
        };
        let scores = score(&image, &bank, 20.0);
        assert!(
            scores
                .iter()
                .all(|s| s.probability == 1.0 && s.margin == 1.0)
        );
    }

    #[test]
    fn a_negative_that_fits_better_takes_the_probability() {
        let image = unit(&[1.0, 0.0]);
        let bank = LabelBank {
            labels: vec![unit(&[0.0, 1.0])],
            groups: vec![None],
            negatives: [unit(&[1.0, 0.0])].into(),
            shots: None,
        };
        let s = score(&image, &bank, 20.0)[0];
        assert!(s.probability < 1e-6);
        assert!(s.margin < -0.99);
    }

    #[test]
    fn the_largest_scale_stays_finite() {
        let image = unit(&[1.0, 0.0]);
        let bank = LabelBank {
            labels: vec![unit(&[-1.0, 0.0]), unit(&[1.0, 0.0])],
            groups: vec![Some(0), Some(0)],
            negatives: [].into(),
            shots: None,
        };
        let scores = score(&image, &bank, 1000.0);
        assert_eq!((scores[0].probability, scores[0].margin), (0.0, -1.0));
        assert_eq!((scores[1].probability, scores[1].margin), (1.0, 1.0));
        assert_eq!(softmax(&[-1.0, 1.0], 1000.0), [0.0, 1.0]);
    }
}
