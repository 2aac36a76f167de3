//! The database file as the queue sees it: there, there to be read, or to be tried again later.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::store::{Change, Contents, Opener, Payload, Store, StoreError, move_aside};

/// How long a disk that refused is left alone.
const RETRY: Duration = Duration::from_secs(30);

/// What an attempt to open the file gave.
pub(super) enum Opened {
    /// The file was read; [`Disk::works`] says whether it can be written too.
    Read(Contents),
    /// The file was damaged, is out of the way, and an empty one took its place.
    Anew,
    /// The disk refuses.
    No,
}

/// What can be done with the file at the moment.
enum Hold {
    Nothing,
    /// A disk that is full or became read-only.
    Reading(Store),
    Writing(Store),
}

/// The store, as far as the disk allows.
pub(super) struct Disk {
    path: PathBuf,
    opener: Opener,
    hold: Hold,
    retry_at: Option<Instant>,
    /// Damaged files that were moved aside.
    pub corrupt: u64,
    complaint: Option<String>,
}

impl Disk {
    pub fn new(state_dir: &Path, opener: Opener) -> Self {
        Self {
            path: state_dir.join("outbox.redb"),
            opener,
            hold: Hold::Nothing,
            retry_at: None,
            corrupt: 0,
            complaint: None,
        }
    }

    /// Whether it can be written, as far as is known.
    pub fn works(&self) -> bool {
        matches!(self.hold, Hold::Writing(_))
    }

    /// Whether the disk refused and should be tried again.
    pub fn is_due(&self) -> bool {
        !self.works() && self.retry_at.is_none_or(|at| Instant::now() >= at)
    }

    pub fn open(&mut self) -> Opened {
        self.retry_at = Some(Instant::now() + RETRY);
        self.hold = Hold::Nothing;
        let error = match Store::open(&self.path, &self.opener) {
            Ok((store, contents)) => {
                self.hold = Hold::Writing(store);
                return Opened::Read(contents);
            }
            Err(StoreError::Refused(error)) => {
                let found = self.look();
                self.complain(&error);
                return found.map_or(Opened::No, Opened::Read);
            }
            Err(StoreError::Corrupt(error)) => error,
        };
        self.corrupt += 1;
        match move_aside(&self.path) {
            Ok(aside) => log::error!(
                "the outbox {} is damaged ({error}); moved to {}, events in it are lost",
                self.path.display(),
                aside.display()
            ),
            Err(failed) => {
                self.complain(&format!("damaged ({error}) and cannot be moved: {failed}"));
                return Opened::No;
            }
        }
        match Store::open(&self.path, &self.opener) {
            Ok((store, _)) => {
                self.hold = Hold::Writing(store);
                Opened::Anew
            }
            Err(StoreError::Refused(error) | StoreError::Corrupt(error)) => {
                self.complain(&error);
                Opened::No
            }
        }
    }

    /// Tries to have the file open for reading only.
    fn look(&mut self) -> Option<Contents> {
        let (store, contents) = Store::look(&self.path, &self.opener).ok()?;
        self.hold = Hold::Reading(store);
        Some(contents)
    }

    /// True when `change` is on disk. After a failure the disk is read at best, until
    /// [`Disk::open`].
    pub fn commit(&mut self, change: &Change) -> bool {
        let Hold::Writing(store) = &self.hold else {
            return false;
        };
        match store.commit(change) {
            Ok(()) => {
                if self.complaint.take().is_some() {
                    log::info!("the outbox is on disk again");
                }
                true
            }
            Err(error) => {
                self.lose(&error.to_string());
                false
            }
        }
    }

    /// What is stored under `sequence`, if anything; the outer `None` when that cannot be known now.
    pub fn read(&mut self, sequence: u64) -> Option<Option<Payload>> {
        let store = match &self.hold {
            Hold::Nothing => return None,
            Hold::Reading(store) | Hold::Writing(store) => store,
        };
        match store.read(sequence) {
            Ok(found) => Some(found),
            Err(error) => {
                self.lose(&error.to_string());
                None
            }
        }
    }

    fn lose(&mut self, error: &str) {
        let wrote = self.works();
        // Before another look: two cannot have the file open.
        self.hold = Hold::Nothing;
        self.retry_at = Some(Instant::now() + RETRY);
        if wrote {
            self.look();
        }
        self.complain(error);
    }

    /// One line per change, not per attempt.
    fn complain(&mut self, error: &str) {
        if self.complaint.as_deref() != Some(error) {
            let what = match self.hold {
                Hold::Reading(_) => "written",
                Hold::Nothing | Hold::Writing(_) => "used",
            };
            log::error!(
                "the outbox {} cannot be {what}: {error}; new events live in memory until it can",
                self.path.display()
            );
            self.complaint = Some(error.to_owned());
        }
    }

    /// Makes the next [`Disk::is_due`] true.
    #[cfg(test)]
    pub fn hurry(&mut self) {
        self.retry_at = None;
    }
}
