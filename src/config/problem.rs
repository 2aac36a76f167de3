//! What is wrong with a configuration, and where.

use std::cell::RefCell;
use std::fmt;

use thiserror::Error;

/// One thing that is wrong, or worth a warning, in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written: `vedetta.toml:12`, `--set mqtt.port=0` or `VEDETTA__MQTT__PORT`.
    pub origin: String,
    /// The key, dotted, when it is about one.
    pub key: Option<String>,
    /// The value as written, when it is short and no secret.
    pub value: Option<String>,
    /// What is wrong and what would be legal.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = {value}: ")?,
            (Some(key), None) => write!(f, "{key}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.message)
    }
}

/// The configuration cannot be used. Every problem that was found is listed, in file order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", Listed(problems))]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// `EX_CONFIG` of `sysexits.h`; the systemd unit does not restart on it.
    pub const EXIT_CODE: u8 = 78;
}

/// Most problems that an error prints; the rest is counted.
pub(super) const MAX_LISTED: usize = 40;

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().take(MAX_LISTED).enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

/// Who wrote a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A line of the file, from 1.
    Line(usize),
    /// An override: its text or variable name.
    Override(String),
}

/// Where a value stands and how to name it in a message.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub origin: Origin,
    pub key: String,
    pub shown: Option<String>,
}

/// Number of a [`Place`] in [`Problems`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlaceId(pub usize);

/// Collects problems while the rest is still being read, so that all are reported at once.
#[derive(Debug)]
pub(super) struct Problems {
    file: String,
    places: RefCell<Vec<Place>>,
    errors: RefCell<Vec<(usize, Problem)>>,
    warnings: RefCell<Vec<(usize, Problem)>>,
}

/// Most problems kept; a hostile file could have one per byte.
const MAX_KEPT: usize = 1000;

impl Problems {
    pub fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            places: RefCell::default(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub fn add_place(&self, place: Place) -> PlaceId {
        let mut places = self.places.borrow_mut();
        places.push(place);
        PlaceId(places.len() - 1)
    }

    /// Who wrote the value at `place`.
    pub fn origin(&self, place: PlaceId) -> Option<Origin> {
        let places = self.places.borrow();
        places.get(place.0).map(|place| place.origin.clone())
    }

    /// The value at `place` is illegal.
    pub fn at(&self, place: PlaceId, message: impl Into<String>) {
        self.add(&self.errors, self.place(place), message.into());
    }

    /// The value at `place` is legal, but the user should know something.
    pub fn warn(&self, place: PlaceId, message: impl Into<String>) {
        self.add(&self.warnings, self.place(place), message.into());
    }

    /// A key or value without a registered place is illegal.
    pub fn at_key(&self, origin: Origin, key: String, message: impl Into<String>) {
        let shown = None;
        let place = Place { origin, key, shown };
        self.add(&self.errors, Some(place), message.into());
    }

    /// The file as a whole, or one of its lines, is illegal.
    pub fn in_file(&self, line: Option<usize>, message: impl Into<String>) {
        let (key, shown) = (String::new(), None);
        let place = line.map(|line| Place {
            origin: Origin::Line(line),
            key,
            shown,
        });
        self.add(&self.errors, place, message.into());
    }

    /// Every error, in file order, the overrides last; then every warning, likewise.
    pub fn into_sorted(self) -> (Vec<Problem>, Vec<Problem>) {
        let sorted = |list: RefCell<Vec<(usize, Problem)>>| {
            let mut list = list.into_inner();
            list.sort_by_key(|(position, _)| *position);
            list.dedup();
            list.into_iter().map(|(_, problem)| problem).collect()
        };
        (sorted(self.errors), sorted(self.warnings))
    }

    fn place(&self, place: PlaceId) -> Option<Place> {
        self.places.borrow().get(place.0).cloned()
    }

    fn add(&self, list: &RefCell<Vec<(usize, Problem)>>, place: Option<Place>, message: String) {
        if list.borrow().len() >= MAX_KEPT {
            return;
        }
        let (position, origin) = match place.as_ref().map(|place| &place.origin) {
            None => (0, self.file.clone()),
            Some(Origin::Line(line)) => (*line, format!("{}:{line}", self.file)),
            // The sort is stable: overrides keep the order in which they were checked.
            Some(Origin::Override(text)) => (usize::MAX, text.clone()),
        };
        let (key, value) = place.map_or((None, None), |place| {
            (Some(place.key).filter(|key| !key.is_empty()), place.shown)
        });
        let problem = Problem {
            origin,
            key,
            value,
            message,
        };
        list.borrow_mut().push((position, problem));
    }
}

/// The known key nearest to a mistyped one, by edit distance; `None` when none is near.
pub(super) fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let typed: Vec<char> = typed.chars().take(64).collect();
    let contains = |name: &str| {
        typed.len() >= 3
            && name
                .split('_')
                .any(|part| part.chars().eq(typed.iter().copied()))
    };
    known
        .iter()
        .map(|name| {
            (
                if contains(name) {
                    1
                } else {
                    distance(&typed, name)
                },
                *name,
            )
        })
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(typed.len()).div_ceil(3))
        .map(|(_, name)| name)
}

/// Levenshtein distance, one row at a time.
fn distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, letter) in b.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in a.iter().enumerate() {
            let substituted = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named_and_a_far_one_is_not() {
        let known = ["host", "port", "rate_fps", "password_file"];
        assert_eq!(nearest("hots", &known), Some("host"));
        assert_eq!(nearest("fps", &known), Some("rate_fps"));
        assert_eq!(nearest("passwordfile", &known), Some("password_file"));
        assert_eq!(nearest("colour", &known), None);
    }
}
