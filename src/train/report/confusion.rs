//! What was taken for what.

use std::fmt::Write;

use super::escape;

/// Classes that a table shows at most: those with most mistakes.
const MAX_SHOWN: usize = 30;

/// Counts of right class and answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    names: Vec<String>,
    /// `[right][answered]`.
    counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// From pairs of right class and answer, both positions in `names`.
    ///
    /// # Panics
    /// When a position is out of range.
    pub fn new(names: Vec<String>, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut counts = vec![vec![0; names.len()]; names.len()];
        for (right, answered) in pairs {
            counts[right][answered] += 1;
        }
        Self { names, counts }
    }

    /// Photos of a class, and how many of them were answered rightly.
    pub fn of(&self, class: usize) -> (usize, usize) {
        let row = &self.counts[class];
        (row.iter().sum(), row[class])
    }

    /// Share of photos that were answered rightly, 0–1; 0 where there are none.
    #[expect(clippy::cast_precision_loss, reason = "counts of photos")]
    pub fn accuracy(&self) -> f64 {
        let (photos, right) = (0..self.names.len())
            .map(|class| self.of(class))
            .fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        right as f64 / photos.max(1) as f64
    }

    /// Mistakes, the most frequent first: right class, answer, count.
    pub fn mistakes(&self) -> Vec<(&str, &str, usize)> {
        let name = |class: usize| self.names[class].as_str();
        let mut mistakes: Vec<_> = (0..self.names.len())
            .flat_map(|right| (0..self.names.len()).map(move |answered| (right, answered)))
            .filter(|(right, answered)| right != answered)
            .map(|(right, answered)| (name(right), name(answered), self.counts[right][answered]))
            .filter(|(_, _, count)| *count > 0)
            .collect();
        mistakes.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        mistakes
    }

    /// A table, rows being what is right. Of many classes those with most mistakes are shown.
    #[expect(clippy::cast_precision_loss, reason = "counts of photos")]
    pub fn html(&self) -> String {
        let mut shown: Vec<usize> = (0..self.names.len()).collect();
        let wrong = |class: usize| {
            let missed = self.of(class).0 - self.of(class).1;
            let taken: usize = self.counts.iter().map(|row| row[class]).sum();
            missed + taken - self.counts[class][class]
        };
        let mut html = String::new();
        if shown.len() > MAX_SHOWN {
            shown.sort_by_key(|class| std::cmp::Reverse(wrong(*class)));
            shown.truncate(MAX_SHOWN);
            shown.sort_unstable();
            let all = self.names.len();
            let _ = write!(
                html,
                "<p class=note>The {MAX_SHOWN} of {all} classes with most mistakes.</p>"
            );
        }
        html.push_str("<div class=scroll><table class=confusion><thead><tr><th></th>");
        for class in &shown {
            let _ = write!(
                html,
                "<th><span>{}</span></th>",
                escape(&self.names[*class])
            );
        }
        html.push_str("</tr></thead><tbody>");
        for right in &shown {
            let name = escape(&self.names[*right]);
            let _ = write!(html, "<tr><th>{name}</th>");
            let all = self.of(*right).0.max(1) as f64;
            for answered in &shown {
                let count = self.counts[*right][*answered];
                let own = if right == answered { "right " } else { "" };
                if count == 0 {
                    let _ = write!(html, "<td class=\"{own}\"></td>");
                    continue;
                }
                let strength = 0.15 + 0.6 * count as f64 / all;
                let taken = escape(&self.names[*answered]);
                let _ = write!(
                    html,
                    "<td class=\"{own}on\" style=\"--a:{strength:.2}\" title=\"{name}, taken for \
                     {taken}: {count}\">{count}</td>"
                );
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>");
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confusion() -> Confusion {
        let names = ["mela", "pera", "<kiwi>"].map(str::to_owned).to_vec();
        Confusion::new(names, [(0, 0), (0, 0), (0, 2), (1, 1), (2, 0), (2, 0)])
    }

    #[test]
    fn counts_add_up() {
        let confusion = confusion();
        assert_eq!([0, 1, 2].map(|c| confusion.of(c)), [(3, 2), (1, 1), (2, 0)]);
        assert!((confusion.accuracy() - 0.5).abs() < 1e-9);
        assert_eq!(
            confusion.mistakes(),
            [("<kiwi>", "mela", 2), ("mela", "<kiwi>", 1)]
        );
    }

    #[test]
    fn the_table_has_a_cell_per_pair_and_no_markup_of_names() {
        let html = confusion().html();
        assert_eq!(html.matches("<td").count(), 9);
        assert!(!html.contains("<kiwi>"));
        let names = (0..50).map(|i| i.to_string()).collect();
        let many = Confusion::new(names, [(40, 41), (41, 40)]).html();
        assert_eq!(many.matches("<td").count(), MAX_SHOWN * MAX_SHOWN);
        assert!(many.contains("41, taken for 40: 1"));
    }
}
