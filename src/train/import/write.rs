//! The bundle's files, hashed while they are written, in a folder that becomes the bundle at once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use super::card::Hash;
use super::checkpoint::Checkpoint;
use crate::bundle::{Limits, MANIFEST, hex, manifest};
use crate::train::onnx::Model;

/// Bytes read and written at once.
const CHUNK_BYTES: usize = 1 << 20;

type Files = BTreeMap<String, manifest::File>;

/// SHA-256 of every weight file.
pub fn hash_sources(checkpoint: &Checkpoint, bar: &ProgressBar) -> Result<Vec<Hash>> {
    let mut hashes = Vec::new();
    for path in checkpoint.files() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let context = || format!("cannot read {}", path.display());
        let mut file = File::open(path).with_context(context)?;
        bar.inc_length(file.metadata().with_context(context)?.len());
        bar.set_message(format!("hashing {name}"));
        let mut sha256 = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut chunk).with_context(context)?;
            if read == 0 {
                break;
            }
            sha256.update(&chunk[..read]);
            bar.inc(read as u64);
        }
        hashes.push((name.into_owned(), hex(&sha256.finalize())));
    }
    Ok(hashes)
}

/// A folder beside the bundle's, renamed when it is complete and removed when it is not.
pub struct Staging {
    folder: PathBuf,
    out: PathBuf,
}

impl Staging {
    /// Refuses a folder that is there, unless it is a bundle and `force` is given.
    pub fn new(out: &Path, force: bool) -> Result<Self> {
        let taken =
            out.exists() && fs::read_dir(out).map_or(true, |mut files| files.next().is_some());
        ensure!(
            !taken || (force && out.join(MANIFEST).is_file()),
            "{} is there already; name another folder, or give --force to replace a bundle",
            out.display()
        );
        let mut name = out
            .file_name()
            .with_context(|| format!("{} is no name for a folder", out.display()))?
            .to_os_string();
        name.push(".partial");
        let folder = out.with_file_name(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            folder,
            out: out.to_owned(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a tower; returns its entry in the manifest.
    pub fn model(&self, name: &str, model: Model, bar: &ProgressBar) -> Result<Files> {
        model.check().with_context(|| name.to_owned())?;
        let bytes = model.graph_bytes() as u64;
        let most = Limits::default().max_file_bytes;
        ensure!(
            bytes < most,
            "{name} would have {bytes} bytes, a bundle's files have at most {most}; \
             --precision f16 halves it"
        );
        bar.inc_length(bytes);
        bar.set_message(format!("writing {name}"));
        self.write(name, bar, |mut out| model.write(&mut out))
    }

    /// Writes a small file; returns its entry in the manifest.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<Files> {
        self.write(name, &ProgressBar::hidden(), |out| out.write_all(bytes))
    }

    /// Writes a file as `write` does; returns its entry in the manifest.
    pub fn write(
        &self,
        name: &str,
        bar: &ProgressBar,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Files> {
        let path = self.folder.join(name);
        let context = || format!("cannot write {}", path.display());
        let hashing = Hashing {
            file: File::create(&path).with_context(context)?,
            sha256: Sha256::new(),
            bytes: 0,
            bar: bar.clone(),
        };
        let mut out = BufWriter::with_capacity(CHUNK_BYTES, hashing);
        write(&mut out).with_context(context)?;
        let hashing = out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .with_context(context)?;
        hashing.file.sync_all().with_context(context)?;
        let entry = manifest::File {
            bytes: hashing.bytes,
            sha256: hex(&hashing.sha256.finalize()),
        };
        Ok(BTreeMap::from([(name.to_owned(), entry)]))
    }

    /// Writes `bundle.toml`.
    pub fn manifest(&self, manifest: &manifest::Manifest) -> Result<()> {
        let text = toml::to_string_pretty(manifest)?;
        self.file(MANIFEST, text.as_bytes())?;
        Ok(())
    }

    /// Puts the folder into its place.
    pub fn commit(self) -> Result<()> {
        if self.out.exists() {
            fs::remove_dir_all(&self.out)
                .with_context(|| format!("cannot replace {}", self.out.display()))?;
        }
        fs::rename(&self.folder, &self.out)
            .with_context(|| format!("cannot make {}", self.out.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.folder.exists()
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            log::warn!("{} is left over: {error}", self.folder.display());
        }
    }
}

/// Counts and hashes what passes.
struct Hashing {
    file: File,
    sha256: Sha256,
    bytes: u64,
    bar: ProgressBar,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        self.bytes += written as u64;
        self.bar.inc(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
