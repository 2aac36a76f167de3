//! Checks of single values. Each returns `None` when the key is absent or was reported as wrong.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::environment::Environment;
use super::super::problem::{Origin, PlaceId, Problems};
use super::super::read::{Field, Key};
use super::super::{Id, Probability};

/// Longest name, noun or prompt, characters.
pub const MAX_TEXT: usize = 256;

/// What every check needs.
pub struct Context<'a> {
    pub problems: &'a Problems,
    pub environment: &'a Environment,
    /// Folder of the configuration file: relative paths in it start here.
    pub folder: &'a Path,
    /// Whether everybody on the machine can read the configuration file.
    pub readable_by_all: bool,
}

impl Context<'_> {
    /// Reports the value at `place` and returns `None`.
    pub fn wrong<T>(&self, place: PlaceId, message: impl Into<String>) -> Option<T> {
        self.problems.at(place, message);
        None
    }

    pub fn number(&self, key: &Key<f64>, legal: RangeInclusive<f64>) -> Option<f64> {
        let (place, value) = given(key)?;
        if legal.contains(value) {
            return Some(*value);
        }
        self.wrong(
            place,
            format!("must be {} to {}", legal.start(), legal.end()),
        )
    }

    /// A number of seconds.
    pub fn seconds(&self, key: &Key<f64>, legal: RangeInclusive<f64>) -> Option<Duration> {
        self.number(key, legal).map(seconds)
    }

    pub fn probability(&self, key: &Key<f64>) -> Option<f64> {
        self.number(key, 0.0..=1.0)
    }

    pub fn whole(&self, key: &Key<u64>, legal: RangeInclusive<u64>) -> Option<u64> {
        let (place, value) = given(key)?;
        if legal.contains(value) {
            return Some(*value);
        }
        self.wrong(
            place,
            format!("must be {} to {}", legal.start(), legal.end()),
        )
    }

    pub fn flag(&self, key: &Key<bool>) -> Option<bool> {
        given(key).map(|(_, value)| *value)
    }

    /// Text for people: one line, not empty, surrounding space removed.
    pub fn text(&self, key: &Key<String>) -> Option<String> {
        let (place, text) = given(key)?;
        match line(text) {
            Ok(text) => Some(text),
            Err(message) => self.wrong(place, message),
        }
    }

    /// A list of such texts.
    pub fn texts(
        &self,
        key: &Key<Vec<String>>,
        legal: RangeInclusive<usize>,
    ) -> Option<Vec<String>> {
        let (place, texts) = given(key)?;
        if !legal.contains(&texts.len()) {
            let (least, most) = (legal.start(), legal.end());
            return self.wrong(place, format!("must have {least} to {most} entries"));
        }
        let entry = |(n, text): (usize, &String)| {
            line(text).map_err(|message| format!("entry {} {message}", n + 1))
        };
        match texts.iter().enumerate().map(entry).collect() {
            Ok(texts) => Some(texts),
            Err(message) => self.wrong(place, message),
        }
    }

    pub fn id(&self, key: &Key<String>) -> Option<Id> {
        let (place, text) = given(key)?;
        Id::new(text).or_else(|| {
            let made = Id::from_text(text).map(|id| format!("; {id} would do"));
            let made = made.unwrap_or_default();
            self.wrong(place, format!("must be {}{made}", Id::LEGAL))
        })
    }

    /// A path; a relative one starts at the folder of the file, in an override at the working
    /// directory.
    pub fn path(&self, key: &Key<String>) -> Option<PathBuf> {
        let (place, text) = given(key)?;
        if text.is_empty() || text.contains('\0') || text.len() > 4096 {
            return self.wrong(place, "must be a path");
        }
        Some(self.base(place).join(text))
    }

    /// Where a relative path at `place` starts.
    pub fn base(&self, place: PlaceId) -> &Path {
        match self.problems.origin(place) {
            Some(Origin::Override(_)) => &self.environment.directory,
            _ => self.folder,
        }
    }

    /// A path, or `credential:NAME` for a file that systemd's `LoadCredential=` provides.
    pub fn secret_path(&self, key: &Key<String>) -> Option<PathBuf> {
        let (place, text) = given(key)?;
        let Some(name) = text.strip_prefix("credential:") else {
            return self.path(key);
        };
        if name.is_empty() || name.contains(['/', '\0']) || [".", ".."].contains(&name) {
            return self.wrong(place, "must be credential:NAME, where NAME has no '/'");
        }
        match self.environment.variable("CREDENTIALS_DIRECTORY") {
            Some(folder) => Some(Path::new(folder).join(name)),
            None => self.wrong(
                place,
                format!(
                    "$CREDENTIALS_DIRECTORY is not set; systemd sets it for a unit with a line \
                     LoadCredential={name}:/path. By hand name the folder: \
                     CREDENTIALS_DIRECTORY=/etc/vedetta vedetta check"
                ),
            ),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &Key<String>, legal: &[(&str, T)]) -> Option<T> {
        let (place, text) = given(key)?;
        find(text, legal).or_else(|| self.wrong(place, format!("must be {}", one_of(legal))))
    }
}

/// The place and value of a key that is there and has the right type.
pub fn given<T>(key: &Key<T>) -> Option<(PlaceId, &T)> {
    let Field { place, value } = key.as_ref()?;
    Some((*place, value.as_ref()?))
}

/// The value of a word.
pub fn find<T: Copy>(word: &str, legal: &[(&str, T)]) -> Option<T> {
    legal
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, value)| *value)
}

/// The legal words, for a message.
pub fn one_of<T>(legal: &[(&str, T)]) -> String {
    let words: Vec<_> = legal.iter().map(|(name, _)| format!("{name:?}")).collect();
    format!("one of {}", words.join(", "))
}

/// Seconds as a duration; only for checked numbers.
pub fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

/// A checked number in the precision of the pipeline.
#[expect(
    clippy::cast_possible_truncation,
    reason = "checked numbers are small; f32 is what the pipeline computes in"
)]
pub fn narrow(value: f64) -> f32 {
    value as f32
}

/// A number that was checked to be 0–1.
pub fn probability(value: f64) -> Option<Probability> {
    Probability::new(narrow(value))
}

/// A checked number as a count.
pub fn count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn line(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = (1..=MAX_TEXT).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("must be one line of 1 to {MAX_TEXT} characters"))
}
