//! Getting another bundle: fetched, signature checked, put into the store, tried, made the current
//! one. Blocks for as long as that takes; the daemon does it on a thread of its own.

mod fetch;
mod memory;
mod remote;
mod tryout;

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

pub use fetch::{FetchError, content_range};
pub use remote::Remote;
pub use tryout::{TryOut, try_out};

use crate::bundle::signature::{PublicKey, SignatureError, beside};
use crate::bundle::store::{Store, StoreError};
use crate::bundle::{Bundle, BundleError, Limits};
use crate::config::Update;

/// A packed file is hardly longer than its content; this is for small ones.
const PACKING_BYTES: u64 = 1 << 20;

/// Where a bundle comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A `.tar.zst` with its signature beside it, or, where signatures are not required, a folder.
    File(PathBuf),
    /// A server.
    Remote(Remote),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bytes that are there, and of how many, where the server says it.
    Downloading(u64, Option<u64>),
    /// The signature is checked and the files are unpacked.
    Unpacking,
    /// It is tried.
    Trying,
}

/// What [`install`] did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is the current one from now on, on trial.
    Installed {
        /// `name@sha256:…`.
        id: String,
        /// Who signed it says so; `None` where nobody was asked.
        signed: Option<String>,
        /// One frame of every camera took so long.
        round: Duration,
    },
    /// It was the current one already.
    Already(String),
}

/// Why a bundle was not installed. Whatever was in use still is.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// No key to check with.
    #[error(
        "bundles must be signed, and there is no key to check it with: set update.public_key, or \
         update.require_signature = false"
    )]
    NoKey,
    /// Signed wrongly or not at all.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A folder, where a signature is required.
    #[error(
        "a folder is not signed; install the .tar.zst, or set update.require_signature = false"
    )]
    Folder,
    /// The download.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store, or the bundle.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was tried.
    #[error("the bundle was tried and refused: {0}")]
    TryOut(String),
}

impl UpdateError {
    /// For programs, as `code` in a reply.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "no-key",
            Self::Signature(_) | Self::Folder => "bad-signature",
            Self::Fetch(FetchError::WrongHash { .. }) => "wrong-hash",
            Self::Fetch(FetchError::TooLarge(_)) => "too-large",
            Self::Fetch(FetchError::NoRoom(_)) | Self::Store(StoreError::Full { .. }) => "no-room",
            Self::Fetch(FetchError::Url | FetchError::Sha256) => "bad-request",
            Self::Fetch(FetchError::Disk(_)) | Self::Store(StoreError::Disk { .. }) => "disk",
            Self::Fetch(_) => "download-failed",
            Self::Store(StoreError::Busy(_)) => "busy",
            Self::Store(StoreError::Bundle(BundleError::TooNew { .. })) => "too-new",
            Self::Store(StoreError::Bundle(_)) => "bad-bundle",
            Self::Store(StoreError::NoOther) => "no-other",
            Self::TryOut(_) => "refused",
        }
    }
}

/// What an installation asks for on its way.
pub struct Steps<'a> {
    /// Tries the bundle; the error says why it should not be used.
    pub try_out: &'a mut dyn FnMut(&Bundle) -> Result<TryOut, String>,
    /// Told how far it is.
    pub progress: &'a mut dyn FnMut(Stage),
}

/// Installs the bundle from `origin` into `store`, as `rules` allow.
///
/// # Errors
/// [`UpdateError`]; the store is as it was. A download that broke off is continued the next time.
pub fn install(
    store: &Store,
    rules: &Update,
    origin: &Origin,
    steps: &mut Steps<'_>,
) -> Result<Outcome, UpdateError> {
    let key = match (&rules.public_key, rules.require_signature) {
        (_, false) => None,
        (None, true) => return Err(UpdateError::NoKey),
        (Some(key), true) => Some(key),
    };
    let lock = store.lock()?;
    let (file, part) = match origin {
        Origin::File(path) if path.is_dir() && key.is_some() => return Err(UpdateError::Folder),
        Origin::File(path) => (path.clone(), None),
        Origin::Remote(remote) => {
            let part = download(store, rules, remote, steps)?;
            (part.clone(), Some(part))
        }
    };
    (steps.progress)(Stage::Unpacking);
    let verified = key.map(|key| verify(key, &file)).transpose();
    let staged = verified.and_then(|signed| {
        let staged = store.stage(&lock, &file, &Limits::default())?;
        Ok((signed, staged))
    });
    // Good or bad, there is nothing to continue any more; only a full disk may be made room on.
    let keep = matches!(&staged, Err(UpdateError::Store(StoreError::Full { .. })));
    if let Some(part) = part.filter(|_| !keep) {
        for path in [beside(&part), part] {
            remove_or_log(&path);
        }
    }
    let (signed, staged) = staged?;
    let id = staged.bundle().id();
    let current = store.current();
    let in_use = current.and_then(|path| Bundle::open(&path, &Limits::default()).ok());
    if in_use.is_some_and(|bundle| bundle.sha256() == staged.bundle().sha256()) {
        store.discard(&lock, &staged);
        return Ok(Outcome::Already(id));
    }
    (steps.progress)(Stage::Trying);
    match (steps.try_out)(staged.bundle()) {
        Ok(tried) => {
            store.switch(&lock, staged)?;
            let round = tried.round;
            Ok(Outcome::Installed { id, signed, round })
        }
        Err(reason) => {
            store.discard(&lock, &staged);
            Err(UpdateError::TryOut(reason))
        }
    }
}

fn verify(key: &PublicKey, file: &Path) -> Result<String, UpdateError> {
    Ok(key.verify(file)?)
}

fn download(
    store: &Store,
    rules: &Update,
    remote: &Remote,
    steps: &mut Steps<'_>,
) -> Result<PathBuf, UpdateError> {
    let agent = fetch::agent(&rules.ca_file)?;
    let name = remote.part_name();
    fetch::tidy(store.root(), Some(&name));
    let part = store.root().join(name);
    if rules.require_signature {
        // First: it is short, and without it the rest is not needed.
        fetch::signature(&agent, remote, &part)?;
    }
    let room = |bytes| store.reserve(bytes).map_err(|error| error.to_string());
    let progress = &mut |have, of| (steps.progress)(Stage::Downloading(have, of));
    let download = fetch::Download {
        remote,
        cap: Limits::default().max_total_bytes + PACKING_BYTES,
        room: &room,
        progress,
    };
    let outcome = download.run(&agent, &part);
    if outcome.is_err() && !part.exists() {
        // There is nothing to continue.
        remove_or_log(&beside(&part));
    }
    outcome?;
    Ok(part)
}

fn remove_or_log(path: &Path) {
    if let Err(error) = fetch::remove(path) {
        log::warn!("{} is left over: {error}", path.display());
    }
}

/// What the start of a daemon removes besides what [`Store::clean`] does.
pub fn forget_old_downloads(store: &Store) {
    fetch::tidy(store.root(), None);
}
