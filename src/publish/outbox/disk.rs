//! The database file as the queue sees it: there, or to be tried again later.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::store::{Change, Contents, Opener, Payload, Store, StoreError, move_aside};

/// How long a disk that refused is left alone.
const RETRY: Duration = Duration::from_secs(30);

/// What an attempt to open the file gave.
pub(super) enum Opened {
    /// The file was read.
    Read(Contents),
    /// The file was damaged, is out of the way, and an empty one took its place.
    Anew,
    /// The disk refuses.
    No,
}

/// The store, while it works.
pub(super) struct Disk {
    path: PathBuf,
    opener: Opener,
    store: Option<Store>,
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
            store: None,
            retry_at: None,
            corrupt: 0,
            complaint: None,
        }
    }

    pub fn works(&self) -> bool {
        self.store.is_some()
    }

    /// Whether the disk is away and should be tried again.
    pub fn is_due(&self) -> bool {
        self.store.is_none() && self.retry_at.is_none_or(|at| Instant::now() >= at)
    }

    pub fn open(&mut self) -> Opened {
        self.retry_at = Some(Instant::now() + RETRY);
        let error = match Store::open(&self.path, &self.opener) {
            Ok((store, contents)) => {
                self.store = Some(store);
                return Opened::Read(contents);
            }
            Err(StoreError::Refused(error)) => {
                self.complain(&error);
                return Opened::No;
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
                self.store = Some(store);
                Opened::Anew
            }
            Err(StoreError::Refused(error) | StoreError::Corrupt(error)) => {
                self.complain(&error);
                Opened::No
            }
        }
    }

    /// True when `change` is on disk. After a failure the disk is away until [`Disk::open`].
    pub fn commit(&mut self, change: &Change) -> bool {
        let Some(store) = &self.store else {
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
        match self.store.as_ref()?.read(sequence) {
            Ok(found) => Some(found),
            Err(error) => {
                self.lose(&error.to_string());
                None
            }
        }
    }

    fn lose(&mut self, error: &str) {
        self.store = None;
        self.retry_at = Some(Instant::now() + RETRY);
        self.complain(error);
    }

    /// One line per change, not per attempt.
    fn complain(&mut self, error: &str) {
        if self.complaint.as_deref() != Some(error) {
            log::error!(
                "the outbox {} cannot be used: {error}; events live in memory until it can",
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
