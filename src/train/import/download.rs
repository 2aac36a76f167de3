//! Files of a checkpoint from the hub into its cache: whole, and what the hub says they are.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hf_hub::api::sync::{Api, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::bundle::hex;

/// Attempts after the first before a download gives up; what has come is kept and continued.
const RETRIES: u32 = 3;

/// Wait before the first of them, milliseconds; it doubles.
const FIRST_WAIT_MS: u64 = 500;

/// What the hub says of a file.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Expected {
    /// Bytes.
    size: Option<u64>,
    /// Of what is stored apart from the repository: weights.
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    /// Lower-case hex.
    sha256: String,
}

impl Expected {
    /// # Errors
    /// The file at `path` is another one.
    fn check(&self, path: &Path) -> Result<()> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        if let Some(size) = self.size {
            ensure!(bytes == size, "it has {bytes} bytes, the hub says {size}");
        }
        if let Some(Lfs { sha256 }) = &self.lfs {
            let mut hash = Sha256::new();
            io::copy(&mut file, &mut hash)?;
            let found = hex(&hash.finalize());
            ensure!(
                found == *sha256,
                "its SHA-256 is {found}, the hub says {sha256}"
            );
        }
        Ok(())
    }
}

/// One revision of a model.
pub struct Files {
    api: Api,
    remote: ApiRepo,
    cached: CacheRepo,
}

impl Files {
    /// `api` must not retry by itself: hf-hub 0.5 then appends a whole file to the part that an earlier
    /// run left.
    pub fn new(api: &Api, cache: &Cache, repo: Repo) -> Self {
        Self {
            api: api.clone(),
            remote: api.repo(repo.clone()),
            cached: cache.repo(repo),
        }
    }

    /// The file in the cache, where it is downloaded to unless it is there.
    ///
    /// # Errors
    /// The hub does not give it, or not as it says.
    pub fn get(&self, name: &str, expected: &Expected) -> Result<PathBuf> {
        let mut attempt = 0;
        loop {
            let error = match self.attempt(name, expected) {
                Ok(path) => return Ok(path),
                Err(error) => error.context(name.to_owned()),
            };
            if attempt == RETRIES || is_refusal(&error) {
                return Err(error);
            }
            let wait = Duration::from_millis(FIRST_WAIT_MS << attempt);
            log::warn!("{error:#}; trying again");
            std::thread::sleep(wait);
            attempt += 1;
        }
    }

    fn attempt(&self, name: &str, expected: &Expected) -> Result<PathBuf> {
        let path = match self.remote.get(name) {
            Ok(path) => path,
            Err(error) => {
                if cannot_continue(&error) {
                    self.remove_part(name)?;
                }
                return Err(error.into());
            }
        };
        if let Err(error) = expected.check(&path) {
            let context = || format!("cannot remove the damaged {}", path.display());
            fs::remove_file(fs::canonicalize(&path).with_context(context)?)
                .with_context(context)?;
            // A link, where there are links.
            if fs::symlink_metadata(&path).is_ok() {
                fs::remove_file(&path).with_context(context)?;
            }
            return Err(error.context("it was damaged in the cache and was removed"));
        }
        Ok(path)
    }

    /// Removes what an earlier run left of a file, where that is as long as the whole.
    fn remove_part(&self, name: &str) -> Result<()> {
        let whole = self.api.metadata(&self.remote.url(name))?;
        let mut part = self.cached.blob_path(whole.etag());
        part.set_extension("part");
        match fs::metadata(&part) {
            Ok(left) if usize::try_from(left.len()).is_ok_and(|left| left >= whole.size()) => {
                fs::remove_file(&part).with_context(|| format!("cannot remove {}", part.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether nothing is left to ask for behind the part that is there.
fn cannot_continue(error: &ApiError) -> bool {
    matches!(error, ApiError::InvalidResume) || status(error) == Some(416)
}

/// Whether another attempt would be refused too: no such file, or no right to it.
fn is_refusal(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref().and_then(status);
    status.is_some_and(|status| (400..500).contains(&status) && ![408, 416, 429].contains(&status))
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}
