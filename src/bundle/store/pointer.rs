//! Which bundle is in use, which one was before, and whether the present one has proved itself. Pure:
//! the changes return what is to be written.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Version of [`Pointer`] on disk.
const SCHEMA: u32 = 1;

/// Starts that a bundle on trial has to become healthy.
pub const TRIAL_STARTS: u32 = 3;

/// A bundle's folder in the store, `<serial>-<name>-<first 12 digits of the manifest's SHA-256>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Folder(String);

impl Folder {
    /// Reads a folder name; `None` when it is not of this form.
    pub fn parse(name: &str) -> Option<Self> {
        let (serial, rest) = name.split_once('-')?;
        let (bundle, hash) = rest.rsplit_once('-')?;
        let plain = |text: &str| {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !text.is_empty() && text.len() <= 64 && text.bytes().all(legal)
        };
        let fits = serial.len() <= 18
            && serial.bytes().all(|b| b.is_ascii_digit())
            && !serial.is_empty()
            && plain(bundle)
            && plain(hash);
        fits.then(|| Self(name.to_owned()))
    }

    /// The folder of a bundle.
    pub(super) fn new(serial: u64, bundle: &str, sha256: &str) -> Option<Self> {
        Self::parse(&format!("{serial:04}-{bundle}-{}", sha256.get(..12)?))
    }

    /// Grows with every installation.
    pub(super) fn serial(&self) -> u64 {
        let digits = self.0.split('-').next().unwrap_or_default();
        digits.parse().unwrap_or(0)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits of the SHA-256 of the bundle's manifest.
    pub fn sha256(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(_, hash)| hash)
    }

    /// `name@sha256:…`, as [`crate::bundle::Bundle::id`].
    pub fn bundle_id(&self) -> String {
        let rest = self.0.split_once('-').map_or("", |(_, rest)| rest);
        let (name, hash) = rest.rsplit_once('-').unwrap_or((rest, ""));
        format!("{name}@sha256:{hash}")
    }
}

impl TryFrom<String> for Folder {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::parse(&name).ok_or_else(|| format!("{name:?} is no folder of a bundle"))
    }
}

impl From<Folder> for String {
    fn from(folder: Folder) -> Self {
        folder.0
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bundle that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// `name@sha256:…`.
    pub bundle: String,
    /// Why, for people.
    pub reason: String,
}

/// `current.json`. `None` for a bundle stands for the one that vedetta comes with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    schema: u32,
    /// In use.
    pub current: Option<Folder>,
    /// In use before, and proved.
    pub previous: Option<Folder>,
    /// Times the daemon was started with `current` since it was installed, until it proved itself.
    pub trial_starts: Option<u32>,
    /// The last bundle that was given up.
    pub failed: Option<Failed>,
}

impl Default for Pointer {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            current: None,
            previous: None,
            trial_starts: None,
            failed: None,
        }
    }
}

impl Pointer {
    pub(super) fn to(current: Option<Folder>, previous: Option<Folder>) -> Self {
        Self {
            current,
            previous,
            ..Self::default()
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let pointer: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match pointer.schema {
            SCHEMA => Ok(pointer),
            other => Err(format!("has schema {other}, not {SCHEMA}")),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Text and numbers only: JSON can say all of it.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Whether the present bundle has yet to prove itself.
    pub fn on_trial(&self) -> bool {
        self.trial_starts.is_some()
    }

    /// Whether `folder` is needed.
    pub fn refers_to(&self, folder: &Folder) -> bool {
        [&self.current, &self.previous].contains(&&Some(folder.clone()))
    }

    /// `new` on trial; what it falls back to has proved itself.
    #[must_use]
    pub fn installed(&self, new: Folder) -> Self {
        let proved = if self.on_trial() {
            &self.previous
        } else {
            &self.current
        };
        Self {
            previous: proved.clone(),
            current: Some(new),
            trial_starts: Some(0),
            ..Self::default()
        }
    }

    /// Back to the bundle before; again, and the two change places once more. A bundle on trial is
    /// given up instead. `None` when there was no other.
    #[must_use]
    pub fn rolled_back(&self) -> Option<Self> {
        if self.on_trial() {
            return Some(self.failed("rolled back by hand"));
        }
        (self.current != self.previous).then(|| Self {
            current: self.previous.clone(),
            previous: self.current.clone(),
            ..self.clone()
        })
    }

    /// The daemon is started: counts it for a bundle on trial, which is given up after
    /// [`TRIAL_STARTS`].
    #[must_use]
    pub fn started(&self) -> Self {
        match self.trial_starts {
            None => self.clone(),
            Some(starts) if starts >= TRIAL_STARTS => {
                self.failed(&format!("did not become healthy in {starts} starts"))
            }
            Some(starts) => Self {
                trial_starts: Some(starts + 1),
                ..self.clone()
            },
        }
    }

    /// The daemon was stopped on purpose: that start says nothing about the bundle.
    #[must_use]
    pub fn excused(&self) -> Self {
        Self {
            trial_starts: self.trial_starts.map(|starts| starts.saturating_sub(1)),
            ..self.clone()
        }
    }

    /// The bundle on trial proved itself.
    #[must_use]
    pub fn confirmed(&self) -> Self {
        Self {
            trial_starts: None,
            ..self.clone()
        }
    }

    /// The present bundle is given up for the one before.
    #[must_use]
    pub fn failed(&self, reason: &str) -> Self {
        let Some(current) = &self.current else {
            return self.clone();
        };
        Self {
            // A pointer whose two bundles are one leads back to what vedetta comes with.
            current: self.previous.clone().filter(|previous| previous != current),
            previous: None,
            trial_starts: None,
            failed: Some(Failed {
                bundle: current.bundle_id(),
                reason: reason.to_owned(),
            }),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(serial: u64) -> Folder {
        Folder::new(serial, "clip-it", "0123456789abcdef").unwrap()
    }

    #[test]
    fn a_folder_names_its_bundle_and_nothing_else_passes_for_one() {
        let folder = folder(7);
        assert_eq!(folder.as_str(), "0007-clip-it-0123456789ab");
        assert_eq!(folder.bundle_id(), "clip-it@sha256:0123456789ab");
        assert_eq!(folder.serial(), 7);
        for wrong in [
            "", "7", "7-", "7-a", "a-b-c", "../7-a-b", "7-a/b-c", "7-A-b", "7--",
        ] {
            assert!(Folder::parse(wrong).is_none(), "{wrong}");
        }
        assert!(Pointer::parse(br#"{"schema":1,"current":"../../etc"}"#).is_err());
        assert!(Pointer::parse(br#"{"schema":2}"#).is_err());
    }

    #[test]
    fn what_is_fallen_back_to_has_always_proved_itself() {
        let first = Pointer::default().installed(folder(1)).confirmed();
        let second = first.installed(folder(2));
        let third = second.installed(folder(3));
        assert_eq!(third.previous, Some(folder(1)));
        let back = third.failed("too slow");
        assert_eq!(
            (back.current.clone(), back.previous.clone()),
            (Some(folder(1)), None)
        );
        assert_eq!(back.failed.unwrap().reason, "too slow");
        let by_hand = third.rolled_back().unwrap();
        assert_eq!(by_hand.current, Some(folder(1)));
        assert!(!by_hand.refers_to(&folder(3)));
    }

    #[test]
    fn a_bundle_that_failed_is_never_fallen_back_to() {
        let twice = Pointer::to(Some(folder(1)), Some(folder(1)));
        assert_eq!(twice.failed("broken").current, None);
    }

    #[test]
    fn rolling_back_twice_is_rolling_forward() {
        assert_eq!(Pointer::default().rolled_back(), None);
        let both = Pointer::default().installed(folder(1)).confirmed();
        let factory = both.rolled_back().unwrap();
        assert_eq!(factory.current, None);
        assert_eq!(factory.rolled_back().unwrap(), both);
    }

    #[test]
    fn a_trial_ends_after_so_many_starts_that_were_not_stopped_on_purpose() {
        let mut pointer = Pointer::default().installed(folder(1));
        for _ in 0..10 {
            pointer = pointer.started().excused();
        }
        for _ in 0..TRIAL_STARTS {
            pointer = pointer.started();
            assert_eq!(pointer.current, Some(folder(1)));
        }
        assert_eq!(pointer.started().current, None);
        assert_eq!(pointer.confirmed().started(), pointer.confirmed());
    }
}
