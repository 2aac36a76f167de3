//! A bundle as one file, to be handed out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::sign::SigningKey;
use crate::bundle::signature::beside;
use crate::bundle::{Bundle, Limits};

/// What [`pack`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// `name@sha256:…`.
    pub id: String,
    /// The files of the bundle together, bytes.
    pub unpacked_bytes: u64,
    /// The packed file, bytes.
    pub bytes: u64,
    /// The signature, when there is a key.
    pub signature: Option<PathBuf>,
}

/// Packs the bundle in `folder` as `out` and signs it.
///
/// # Errors
/// A bundle that does not verify, an `out` that is there already (without `force`) or cannot be
/// written.
pub fn pack(folder: &Path, out: &Path, key: Option<&SigningKey>, force: bool) -> Result<Packed> {
    if !out.to_string_lossy().ends_with(".tar.zst") {
        bail!("{} must end in .tar.zst", out.display());
    }
    if out.exists() && !force {
        bail!(
            "{} is there already; name another, or give --force",
            out.display()
        );
    }
    let bundle = Bundle::open(folder, &Limits::default())?;
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = || {
        let file = File::create(&partial)?;
        crate::bundle::pack(&bundle, &file)?;
        file.sync_all()?;
        file.metadata().map(|data| data.len())
    };
    let bytes = match write() {
        Ok(bytes) => bytes,
        Err(error) => {
            // The failure that counts is the one before.
            let _ = fs::remove_file(&partial);
            return Err(error).with_context(|| format!("cannot write {}", out.display()));
        }
    };
    // The signature of an older file must never lie beside a newer one.
    let old = beside(out);
    if old.symlink_metadata().is_ok() {
        fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    fs::rename(&partial, out).with_context(|| format!("cannot write {}", out.display()))?;
    let manifest = bundle.manifest();
    let comment = format!(
        "bundle:{} version:{} manifest-sha256:{}",
        manifest.name,
        manifest.version,
        bundle.sha256()
    );
    Ok(Packed {
        id: bundle.id(),
        unpacked_bytes: manifest.files.values().map(|file| file.bytes).sum(),
        bytes,
        signature: key.map(|key| key.sign(out, &comment)).transpose()?,
    })
}
