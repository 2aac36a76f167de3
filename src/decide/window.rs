//! A sliding median.

use std::collections::VecDeque;

use super::Observation;

/// The last observations of one label, at most `length` of them.
#[derive(Clone, Debug, Default)]
pub struct Window {
    seen: VecDeque<Observation>,
    length: usize,
}

impl Window {
    /// An empty window of `length` observations (at least one).
    pub fn new(length: usize) -> Self {
        Self {
            seen: VecDeque::new(),
            length: length.max(1),
        }
    }

    /// Adds an observation; the oldest falls out when the window is full.
    pub fn push(&mut self, observation: Observation) {
        self.seen.push_back(observation);
        self.trim();
    }

    /// The newest observation.
    pub fn last(&self) -> Option<Observation> {
        self.seen.back().copied()
    }

    /// Changes the length and keeps the newest observations.
    pub fn resize(&mut self, length: usize) {
        self.length = length.max(1);
        self.trim();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// Median probability and median margin, each on its own; `None` until at least half of the
    /// window (rounded up) is filled. With an even number of observations it is the mean of the
    /// middle two.
    pub fn median(&self) -> Option<Observation> {
        let enough = self.seen.len() >= self.length.div_ceil(2);
        enough.then(|| Observation {
            probability: median(self.seen.iter().map(|o| o.probability)),
            margin: median(self.seen.iter().map(|o| o.margin)),
        })
    }

    /// `[over, held]`: how many of the held observations reach `enter`.
    pub fn over(&self, enter: f32) -> [u32; 2] {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let over = self.seen.iter().filter(|o| o.probability >= enter).count();
        [count(over), count(self.seen.len())]
    }

    fn trim(&mut self) {
        while self.seen.len() > self.length {
            self.seen.pop_front();
        }
    }
}

fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut sorted: Vec<f32> = values.collect();
    sorted.sort_by(f32::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f32::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(probability: f32) -> Observation {
        Observation {
            probability,
            margin: probability - 0.5,
        }
    }

    #[test]
    fn one_outlier_does_not_move_the_median() {
        let mut window = Window::new(5);
        for p in [0.1, 0.1, 0.99, 0.1, 0.1] {
            window.push(of(p));
        }
        assert_eq!(window.median(), Some(of(0.1)));
        assert_eq!(window.over(0.7), [1, 5]);
    }

    #[test]
    fn there_is_no_median_before_half_of_the_window_is_filled() {
        let mut window = Window::new(5);
        window.push(of(0.9));
        window.push(of(0.9));
        assert_eq!(window.median(), None);
        window.push(of(0.9));
        assert!(window.median().is_some());
    }

    #[test]
    fn shrinking_keeps_the_newest() {
        let mut window = Window::new(5);
        for p in [0.1, 0.2, 0.3, 0.4, 0.5] {
            window.push(of(p));
        }
        window.resize(1);
        assert_eq!(window.median(), Some(of(0.5)));
    }
}
