//! What is measured, as formulas. Pure.
//!
//! Ties. A score says nothing about the order of equal candidates, so a right one among them counts
//! with what a random order would give on average: a model that scores everything alike gets chance,
//! not luck. In curves equal scores are taken together, because a threshold cannot part them. A score
//! that is not a number is worse than any other.

/// Place of the right candidate among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Candidates with a higher score.
    pub better: usize,
    /// Other candidates with the same score.
    pub equal: usize,
}

impl Rank {
    /// Place of candidate `right` among `scores`, higher being better.
    ///
    /// # Panics
    /// When there is no such candidate.
    pub fn of(scores: &[f32], right: usize) -> Self {
        let own = scores[right];
        let mut rank = Self {
            better: 0,
            equal: 0,
        };
        for (n, score) in scores.iter().enumerate() {
            if n == right {
                continue;
            }
            match (score.is_nan(), own.is_nan()) {
                (true, true) => rank.equal += 1,
                (true, false) => {}
                (false, true) => rank.better += 1,
                (false, false) if *score > own => rank.better += 1,
                (false, false) if *score == own => rank.equal += 1,
                (false, false) => {}
            }
        }
        rank
    }

    /// Probability, over the orders of equal candidates, that the right one is among the first `k`.
    pub fn within(self, k: usize) -> f64 {
        let places = k.saturating_sub(self.better).min(self.equal + 1);
        count(places) / count(self.equal + 1)
    }

    /// Mean, over the orders of equal candidates, of 1 / place, 0 beyond place `k`.
    pub fn reciprocal(self, k: usize) -> f64 {
        let last = (self.better + self.equal + 1).min(k);
        let places = self.better + 1..=last;
        places.map(|place| 1.0 / count(place)).sum::<f64>() / count(self.equal + 1)
    }
}

/// Share of questions whose right candidate is among the first `k` (accuracy@k, recall@k); 0 without
/// any question.
pub fn accuracy_at(ranks: &[Rank], k: usize) -> f64 {
    ranks.iter().map(|rank| rank.within(k)).sum::<f64>() / count(ranks.len().max(1))
}

/// Mean reciprocal rank, 0 beyond place `k` (MRR@k); 0 without any question.
pub fn mrr_at(ranks: &[Rank], k: usize) -> f64 {
    ranks.iter().map(|rank| rank.reciprocal(k)).sum::<f64>() / count(ranks.len().max(1))
}

/// What a threshold gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Scores from here on are taken.
    pub threshold: f32,
    /// Share of what is taken that is right.
    pub precision: f64,
    /// Share of what is right that is taken.
    pub recall: f64,
}

/// One point per distinct score, the highest threshold first: `(score, right)` samples. Empty where
/// none is right.
pub fn curve(samples: &[(f32, bool)]) -> Vec<Point> {
    let mut sorted: Vec<(f32, bool)> = samples.iter().copied().filter(|s| !s.0.is_nan()).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let right = samples.iter().filter(|sample| sample.1).count();
    if right == 0 {
        return Vec::new();
    }
    let (mut points, mut found) = (Vec::new(), 0);
    for (n, (score, is_right)) in sorted.iter().enumerate() {
        found += usize::from(*is_right);
        // Zeros of both signs are one score.
        if sorted.get(n + 1).is_none_or(|next| next.0 != *score) {
            points.push(Point {
                threshold: *score,
                precision: count(found) / count(n + 1),
                recall: count(found) / count(right),
            });
        }
    }
    points
}

/// Average precision: `Σ (R_n − R_{n−1}) P_n` over the points of [`curve`]; `None` where none is
/// right.
pub fn average_precision(samples: &[(f32, bool)]) -> Option<f64> {
    let points = curve(samples);
    let first = points.first()?;
    let steps = points
        .windows(2)
        .map(|p| (p[1].recall - p[0].recall) * p[1].precision);
    Some(first.recall * first.precision + steps.sum::<f64>())
}

#[expect(clippy::cast_precision_loss, reason = "a count of photos")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn ranks_by_hand() {
        let scores = [0.3, 0.9, 0.5, 0.5, f32::NAN];
        assert_eq!(
            Rank::of(&scores, 1),
            Rank {
                better: 0,
                equal: 0
            }
        );
        assert_eq!(
            Rank::of(&scores, 2),
            Rank {
                better: 1,
                equal: 1
            }
        );
        assert_eq!(
            Rank::of(&scores, 0),
            Rank {
                better: 3,
                equal: 0
            }
        );
        assert_eq!(
            Rank::of(&scores, 4),
            Rank {
                better: 4,
                equal: 0
            }
        );
        // Second or third place.
        let tied = Rank::of(&scores, 2);
        assert!(
            close(tied.within(1), 0.0) && close(tied.within(2), 0.5) && close(tied.within(3), 1.0)
        );
        assert!(close(tied.reciprocal(2), 0.25));
        assert!(close(tied.reciprocal(10), (0.5 + 1.0 / 3.0) / 2.0));
    }

    #[test]
    fn means_by_hand() {
        // Places 1, 3 and 7.
        let ranks = [0, 2, 6].map(|better| Rank { better, equal: 0 });
        assert!(close(accuracy_at(&ranks, 1), 1.0 / 3.0));
        assert!(close(accuracy_at(&ranks, 5), 2.0 / 3.0));
        assert!(close(accuracy_at(&ranks, 10), 1.0));
        assert!(close(mrr_at(&ranks, 1), 1.0 / 3.0));
        assert!(close(mrr_at(&ranks, 5), (1.0 + 1.0 / 3.0) / 3.0));
        assert!(close(
            mrr_at(&ranks, 10),
            (1.0 + 1.0 / 3.0 + 1.0 / 7.0) / 3.0
        ));
        assert!(close(accuracy_at(&[], 1), 0.0) && close(mrr_at(&[], 1), 0.0));
    }

    #[test]
    fn a_model_that_scores_everything_alike_gets_chance() {
        let ranks: Vec<Rank> = (0..10).map(|right| Rank::of(&[0.5; 10], right)).collect();
        assert!(close(accuracy_at(&ranks, 1), 0.1) && close(accuracy_at(&ranks, 5), 0.5));
    }

    #[test]
    fn a_curve_by_hand() {
        let samples = [
            (0.9, true),
            (0.8, false),
            (0.6, true),
            (0.6, false),
            (0.2, false),
        ];
        let points = curve(&samples);
        let expected = [
            (0.9, 1.0, 0.5),
            (0.8, 0.5, 0.5),
            (0.6, 0.5, 1.0),
            (0.2, 0.4, 1.0),
        ];
        assert_eq!(points.len(), expected.len());
        for (point, (threshold, precision, recall)) in points.iter().zip(expected) {
            assert_eq!(point.threshold, threshold);
            assert!(close(point.precision, precision) && close(point.recall, recall));
        }
        assert!(close(
            average_precision(&samples).unwrap(),
            0.5 * 1.0 + 0.5 * 0.5
        ));
        assert_eq!(average_precision(&[(0.3, false)]), None);
    }

    /// Few distinct values, so that ties are common.
    fn score() -> impl Strategy<Value = f32> {
        (0..6_u8).prop_map(|n| f32::from(n) / 8.0)
    }

    proptest! {
        #[test]
        fn ranks_are_the_mean_over_all_orders_of_equal_candidates(
            scores in prop::collection::vec(score(), 1..7), right in any::<prop::sample::Index>(), k in 1usize..8,
        ) {
            let right = right.index(scores.len());
            // Brute force: every order of the candidates, sorted stably by score.
            let mut orders = vec![vec![]];
            for n in 0..scores.len() {
                orders = orders.iter().flat_map(|order: &Vec<usize>| (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, n);
                    longer
                })).collect();
            }
            let (mut within, mut reciprocal) = (0.0, 0.0);
            for order in &mut orders {
                order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
                let place = 1 + order.iter().position(|n| *n == right).unwrap();
                within += f64::from(u8::from(place <= k));
                reciprocal += if place <= k { 1.0 / count(place) } else { 0.0 };
            }
            let rank = Rank::of(&scores, right);
            prop_assert!(close(rank.within(k), within / count(orders.len())));
            prop_assert!(close(rank.reciprocal(k), reciprocal / count(orders.len())));
        }

        #[test]
        fn every_point_of_a_curve_is_what_its_threshold_gives(
            samples in prop::collection::vec((score(), any::<bool>()), 0..40),
        ) {
            let points = curve(&samples);
            let right = samples.iter().filter(|s| s.1).count();
            prop_assert_eq!(points.is_empty(), right == 0);
            for point in &points {
                let taken: Vec<_> = samples.iter().filter(|s| s.0 >= point.threshold).collect();
                let found = taken.iter().filter(|s| s.1).count();
                prop_assert!(close(point.precision, count(found) / count(taken.len())));
                prop_assert!(close(point.recall, count(found) / count(right)));
            }
            prop_assert!(points.windows(2).all(|p| p[0].threshold > p[1].threshold));
            if let Some(ap) = average_precision(&samples) {
                prop_assert!((0.0..=1.0 + 1e-9).contains(&ap));
            }
        }
    }
}
