//! Which photo is before the lens, and what was said about it. Pure: time is an argument.

use std::time::Duration;

/// Share of a photo's time after which what is ON counts as the verdict: late enough for the dwell
/// time, early enough for a clock that started a little after the camera.
const JUDGED_AT: f64 = 0.85;

/// What became of the showings of one photo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times it was shown long enough to be judged.
    pub shown: u32,
    /// The label that its file is named after was ON, and no other.
    pub right: u32,
    /// Another label was ON.
    pub wrong: u32,
    /// None was.
    pub undecided: u32,
    /// Labels that were ON the last time.
    pub seen: Vec<String>,
}

/// The photos, one after the other, over and over.
#[derive(Clone, Debug)]
pub struct Showings {
    expected: Vec<Option<String>>,
    pace: Duration,
    judged: u64,
    /// One for each photo.
    pub tallies: Vec<Tally>,
}

impl Showings {
    /// `expected` is the label each photo shows, where its name says so; each stands for `pace`.
    pub fn new(expected: Vec<Option<String>>, pace: Duration) -> Self {
        let tallies = vec![Tally::default(); expected.len()];
        Self {
            expected,
            pace,
            judged: 0,
            tallies,
        }
    }

    /// Index of the photo that is shown `elapsed` after the first one appeared.
    pub fn photo(&self, elapsed: Duration) -> usize {
        let count = u64::try_from(self.expected.len()).unwrap_or(1).max(1);
        let number = self.number(elapsed).0;
        usize::try_from(number % count).unwrap_or(0)
    }

    /// Takes in which labels are ON `elapsed` after the first photo appeared. Call it several times
    /// for each photo; a showing that was missed is not judged.
    pub fn follow(&mut self, elapsed: Duration, on: &[&str]) {
        let (number, share) = self.number(elapsed);
        if share < JUDGED_AT || number < self.judged || self.expected.is_empty() {
            return;
        }
        self.judged = number + 1;
        let photo = self.photo(elapsed);
        let tally = &mut self.tallies[photo];
        tally.shown += 1;
        tally.seen = on.iter().map(|label| (*label).to_owned()).collect();
        match (&self.expected[photo], on) {
            (None, _) => {}
            (Some(_), []) => tally.undecided += 1,
            (Some(expected), [one]) if expected == one => tally.right += 1,
            (Some(_), _) => tally.wrong += 1,
        }
    }

    /// The camera started again: the first photo is next.
    pub fn restart(&mut self) {
        self.judged = 0;
    }

    /// All photos together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for tally in &self.tallies {
            total.shown += tally.shown;
            total.right += tally.right;
            total.wrong += tally.wrong;
            total.undecided += tally.undecided;
        }
        total
    }

    /// The number of the showing, and how much of its time has passed, 0–1.
    fn number(&self, elapsed: Duration) -> (u64, f64) {
        let pace = self.pace.as_micros().max(1);
        let number = u64::try_from(elapsed.as_micros() / pace).unwrap_or(u64::MAX - 1);
        let showings = elapsed.as_secs_f64() / self.pace.as_secs_f64().max(1e-6);
        (number, showings.fract())
    }
}

/// The label that a photo is named after: `04-mela.jpg` shows `mela`. The longest one, when several
/// stand in the name; when none does, the only one in which the name stands: `mela-verde`.
pub fn expected<'a>(file_stem: &str, labels: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let words = |text: &str| {
        let lower = text.to_lowercase();
        let words = lower.split(|c: char| !c.is_alphanumeric());
        let words = words.filter(|w| !w.is_empty() && !w.chars().all(|c| c.is_ascii_digit()));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let stem = words(file_stem);
    let within = |a: &[String], b: &[String]| !a.is_empty() && b.windows(a.len()).any(|w| w == a);
    let labels: Vec<&str> = labels.into_iter().collect();
    let in_name = labels.iter().filter(|label| within(&words(label), &stem));
    let mut around_name = labels.iter().filter(|label| within(&stem, &words(label)));
    in_name
        .max_by_key(|label| label.len())
        .copied()
        .or_else(|| {
            let only = around_name.next()?;
            around_name.next().is_none().then_some(*only)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn showings() -> Showings {
        let expected = [Some("mela"), Some("banana"), None];
        let expected = expected.map(|e| e.map(str::to_owned));
        Showings::new(expected.to_vec(), Duration::from_secs(4))
    }

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_photo_is_judged_once_and_late_in_its_time() {
        let mut s = showings();
        s.follow(at(1.0), &["banana"]);
        assert_eq!(s.total().shown, 0);
        s.follow(at(3.5), &["mela"]);
        s.follow(at(3.9), &["banana"]);
        assert_eq!((s.tallies[0].shown, s.tallies[0].right), (1, 1));
        assert_eq!(s.tallies[0].seen, ["mela"]);
    }

    #[test]
    fn right_wrong_and_undecided_are_told_apart() {
        let mut s = showings();
        s.follow(at(3.9), &[]);
        s.follow(at(7.9), &["mela"]);
        s.follow(at(11.9), &["mela"]);
        s.follow(at(15.9), &["mela", "banana"]);
        s.follow(at(19.9), &["banana"]);
        let total = s.total();
        assert_eq!(
            (total.shown, total.right, total.wrong, total.undecided),
            (5, 1, 2, 1)
        );
    }

    #[test]
    fn photos_come_again_after_the_last_one() {
        let s = showings();
        let photos = [0.0, 4.1, 8.1, 12.1, 3.99].map(|seconds| s.photo(at(seconds)));
        assert_eq!(photos, [0, 1, 2, 0, 0]);
    }

    #[test]
    fn a_file_name_says_what_a_photo_shows() {
        let labels = [
            "mela",
            "mela-verde",
            "cartone-di-latte",
            "scaffale-vuoto",
            "scaffale-pieno",
        ];
        for (stem, label) in [
            ("04-mela", Some("mela")),
            ("latte", Some("cartone-di-latte")),
            ("scaffale", None),
            ("mela verde 2", Some("mela-verde")),
            ("IMG_0012 Scaffale-Vuoto", Some("scaffale-vuoto")),
            ("0007", None),
            ("melanzana", None),
            ("", None),
        ] {
            assert_eq!(expected(stem, labels), label, "{stem}");
        }
    }
}
