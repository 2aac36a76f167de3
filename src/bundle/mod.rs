//! A bundle is a model: a directory (or the same packed as `.tar.zst`) with a manifest and its files.
//!
//! A bundle is hostile input. Opening one checks the manifest field by field and the length and
//! SHA-256 of every file; reading a file later checks them again, so that what is parsed is what
//! was verified.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use sha2::{Digest, Sha256};
use thiserror::Error;

mod archive;
mod check;
pub mod manifest;
mod map;
mod packing;
mod reader;
pub mod signature;
pub mod store;

pub use check::check;
pub use manifest::Manifest;
pub use map::{Shared, Stored};
pub use packing::pack;
pub use reader::VerifiedReader;

/// Longest manifest, bytes.
pub const MAX_MANIFEST_BYTES: u64 = 64 * 1024;

/// The manifest's file name.
pub const MANIFEST: &str = "bundle.toml";

/// How much a bundle may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest single file, bytes.
    pub max_file_bytes: u64,
    /// All files together, bytes.
    pub max_total_bytes: u64,
}

impl Default for Limits {
    /// Room for a multilingual CLIP in f32 (1.1 GB for its text tower, XLM-RoBERTa base).
    fn default() -> Self {
        Self {
            max_file_bytes: 3 << 29,
            max_total_bytes: 2 << 30,
        }
    }
}

/// Why a bundle was refused. Every message names the file or field and what to do.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Nothing can be read there.
    #[error("bundle {path}: {source}; give a bundle directory or a .tar.zst file")]
    Open {
        /// What was asked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `bundle.toml` is not what [`Manifest`] describes.
    #[error("bundle {path}: bundle.toml is not a manifest of schema {schema}: {message}", schema = manifest::SCHEMA)]
    Manifest {
        /// The bundle.
        path: PathBuf,
        /// Line, key and reason.
        message: String,
    },
    /// A field of the manifest has an illegal value.
    #[error("bundle {path}: bundle.toml: {field} is {found}; legal: {legal}")]
    Field {
        /// The bundle.
        path: PathBuf,
        /// Dotted key.
        field: String,
        /// What stands there.
        found: String,
        /// What may stand there.
        legal: String,
    },
    /// The bundle asks for a newer vedetta.
    #[error(
        "bundle {path} needs vedetta {needs} or newer, this is {have}; update vedetta or use an older bundle"
    )]
    TooNew {
        /// The bundle.
        path: PathBuf,
        /// `minimum_vedetta`.
        needs: String,
        /// This crate's version.
        have: &'static str,
    },
    /// A file is missing, damaged, or not a plain file.
    #[error("bundle {path}: {file}: {problem}; copy or pack the bundle again")]
    File {
        /// The bundle.
        path: PathBuf,
        /// Which file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A `.tar.zst` cannot be unpacked.
    #[error(
        "bundle {path}: {problem}; pack it with bundle.toml first, then the listed files, nothing else"
    )]
    Archive {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Where the verified files are.
#[derive(Clone, Debug)]
enum Files {
    /// The folder, and each file as it was when it was verified.
    Directory(PathBuf, BTreeMap<String, map::Stamp>),
    Memory(BTreeMap<String, Arc<[u8]>>),
}

/// A verified bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    manifest: Manifest,
    /// `bundle.toml` as it was read.
    source: Vec<u8>,
    sha256: String,
    path: PathBuf,
    files: Files,
}

impl Bundle {
    /// Opens and verifies the bundle at `path`: a directory, or a `.tar.zst` file, whose content is
    /// kept in memory.
    ///
    /// # Errors
    /// Whatever does not fit; the message says which file or field.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, BundleError> {
        let open_error = |source| BundleError::Open {
            path: path.to_owned(),
            source,
        };
        if fs::metadata(path).map_err(open_error)?.is_dir() {
            Self::open_directory(path, limits)
        } else {
            archive::open(path, limits)
        }
    }

    fn new(path: &Path, manifest: Manifest, source: Vec<u8>, files: Files) -> Self {
        Self {
            sha256: hex(&Sha256::digest(&source)),
            path: path.to_owned(),
            manifest,
            source,
            files,
        }
    }

    fn open_directory(path: &Path, limits: &Limits) -> Result<Self, BundleError> {
        let file = plain_file(path, MANIFEST)?;
        let bytes = capped(file, MAX_MANIFEST_BYTES)
            .map_err(|error| file_error(path, MANIFEST, error.to_string()))?;
        let manifest = parse(path, &bytes, limits)?;
        let files = Files::Directory(path.to_owned(), verify_all(path, &manifest)?);
        Ok(Self::new(path, manifest, bytes, files))
    }

    /// The checked manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// `name@sha256:` and the first 12 hex digits of the manifest's hash, as `B/info` and events
    /// carry it. The manifest holds the hash of every file, so this names all of them.
    pub fn id(&self) -> String {
        format!("{}@sha256:{}", self.manifest.name, &self.sha256[..12])
    }

    /// Lower-case hex SHA-256 of the manifest.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Lower-case hex SHA-256 of everything that scores depend on: the files, how pictures and texts
    /// are prepared, the logit scale. Unlike [`Self::sha256`] it stays the same when only a name, an
    /// evaluation or the provenance is written anew.
    pub fn model_sha256(&self) -> String {
        let m = &self.manifest;
        let files: BTreeMap<_, _> = m
            .files
            .iter()
            .map(|(name, file)| (name, &file.sha256))
            .collect();
        let parts = serde_json::json!([
            m.embedding_dim,
            m.image,
            m.text,
            m.scoring,
            m.precision,
            files
        ]);
        hex(&Sha256::digest(parts.to_string()))
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A listed file. The reader fails at the end when length or hash do not fit, so a parser that
    /// reads to the end before it looks never sees unverified bytes.
    ///
    /// # Errors
    /// A name that is not listed, or a file that is gone or no longer a plain file.
    pub fn reader(&self, name: &str) -> Result<VerifiedReader<Box<dyn Read + Send>>, BundleError> {
        let Some(listed) = self.manifest.files.get(name) else {
            return Err(file_error(&self.path, name, "is not listed in [files]"));
        };
        let inner: Box<dyn Read + Send> = match &self.files {
            Files::Directory(directory, _) => Box::new(plain_file(directory, name)?),
            Files::Memory(files) => match files.get(name) {
                Some(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
                None => return Err(file_error(&self.path, name, "is missing")),
            },
        };
        Ok(VerifiedReader::new(inner, listed))
    }

    /// Reads a listed file of at most `max_bytes` and verifies it.
    ///
    /// # Errors
    /// As [`Self::reader`], and a file that is too long or damaged.
    pub fn read(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, BundleError> {
        let reader = self.reader(name)?;
        capped(reader, max_bytes).map_err(|error| file_error(&self.path, name, error.to_string()))
    }
}

/// Verifies every listed file, each in a thread of its own: a hash uses one core, and the two towers
/// are nearly all of a bundle. The error is that of the first file in the manifest's order.
fn verify_all(
    path: &Path,
    manifest: &Manifest,
) -> Result<BTreeMap<String, map::Stamp>, BundleError> {
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (name, listed) in &manifest.files {
            let one = thread::Builder::new().name("verify".to_owned());
            let one = one.spawn_scoped(scope, move || verify(path, name, listed));
            running.push((name, listed, one.ok()));
        }
        let stamps = running.into_iter().map(|(name, listed, one)| {
            let stamp = match one {
                Some(one) => one.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // No thread could be started.
                None => verify(path, name, listed),
            };
            Ok((name.clone(), stamp?))
        });
        stamps.collect()
    })
}

/// Reads a listed file to its end. Returns what it was before.
fn verify(path: &Path, name: &str, listed: &manifest::File) -> Result<map::Stamp, BundleError> {
    let file = plain_file(path, name)?;
    let problem = |error: io::Error| file_error(path, name, error.to_string());
    let stamp = map::Stamp::of(&file).map_err(problem)?;
    io::copy(&mut VerifiedReader::new(file, listed), &mut io::sink()).map_err(problem)?;
    Ok(stamp)
}

fn file_error(path: &Path, file: &str, problem: impl Into<String>) -> BundleError {
    BundleError::File {
        path: path.to_owned(),
        file: file.to_owned(),
        problem: problem.into(),
    }
}

/// Opens `directory/name`, which must be a plain file: a link could lead anywhere.
fn plain_file(directory: &Path, name: &str) -> Result<File, BundleError> {
    let path = directory.join(name);
    let error = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => file_error(directory, name, "is missing"),
        _ => file_error(directory, name, error.to_string()),
    };
    if !fs::symlink_metadata(&path).map_err(error)?.is_file() {
        return Err(file_error(directory, name, "is not a plain file"));
    }
    File::open(&path).map_err(error)
}

/// Reads to the end, at most `max_bytes`.
fn capped(reader: impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!(
            "is longer than {max_bytes} bytes"
        )));
    }
    Ok(bytes)
}

/// Parses and checks a manifest.
fn parse(path: &Path, bytes: &[u8], limits: &Limits) -> Result<Manifest, BundleError> {
    let error = |message: String| BundleError::Manifest {
        path: path.to_owned(),
        message,
    };
    let text = std::str::from_utf8(bytes).map_err(|e| error(e.to_string()))?;
    let manifest = toml::from_str(text).map_err(|e| error(e.to_string().trim().to_owned()))?;
    check(path, &manifest, limits)?;
    Ok(manifest)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
