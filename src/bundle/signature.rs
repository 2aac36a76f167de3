//! Who made a packed bundle: a minisign signature (Ed25519 over the file's BLAKE2b-512) beside it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use minisign_verify as minisign;
use thiserror::Error;

/// What is added to the name of a file for the name of its signature.
pub const SUFFIX: &str = ".minisig";

/// Longest signature file, bytes. `minisign` itself writes at most 8 KiB of trusted comment.
pub const MAX_BYTES: u64 = 16 * 1024;

/// Bytes hashed at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a file is not taken for what its maker signed.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// There is no signature, or the file itself cannot be read.
    #[error("{path}: {source}{hint}")]
    Read {
        /// Which of the two.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// Not what minisign writes.
    #[error("{0} is no minisign signature; sign the bundle with `vedetta-train pack --key`")]
    Unreadable(PathBuf),
    /// Signed by somebody else.
    #[error("{path} was made with another key than {key}; is this bundle from who you think?")]
    OtherKey {
        /// The signature.
        path: PathBuf,
        /// The key that is trusted.
        key: PublicKey,
    },
    /// The old scheme, which needs the whole file in memory.
    #[error("{0} is of the legacy kind; sign with a current minisign or `vedetta-train pack`")]
    Legacy(PathBuf),
    /// The file or the signature was changed.
    #[error("{path} does not fit its signature: it was changed or damaged after it was signed")]
    Wrong {
        /// The signed file.
        path: PathBuf,
    },
    /// A public key that is none.
    #[error("{0} is no minisign public key: give its line that starts with RW, or the .pub file")]
    Key(String),
}

/// A public key that bundles have to be signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    base64: String,
    key: minisign::PublicKey,
}

impl FromStr for PublicKey {
    type Err = SignatureError;

    /// Reads the base64 line of a key, or the text of a whole `.pub` file.
    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let base64 = lines.next_back().unwrap_or_default();
        let key = minisign::PublicKey::from_base64(base64).map_err(|_| {
            let shown: String = base64.chars().take(80).collect();
            SignatureError::Key(format!("{shown:?}"))
        })?;
        Ok(Self {
            base64: base64.to_owned(),
            key,
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base64)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl PublicKey {
    /// A key as people give it: its base64 line, or the path of a `.pub` file, which starts at
    /// `folder`.
    ///
    /// # Errors
    /// Neither.
    pub fn given(text: &str, folder: &Path) -> Result<Self, SignatureError> {
        if let Ok(key) = text.parse() {
            return Ok(key);
        }
        Self::read(&folder.join(text)).map_err(|error| match error {
            SignatureError::Read { source, .. } => {
                let shown: String = text.chars().take(80).collect();
                SignatureError::Key(format!("{shown:?} ({source})"))
            }
            other => other,
        })
    }

    /// Reads a `.pub` file.
    ///
    /// # Errors
    /// A file that cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<Self, SignatureError> {
        let name = || SignatureError::Key(path.display().to_string());
        read_text(path, "")?.parse().map_err(|_| name())
    }

    /// Checks that `file` is what was signed with this key; the signature lies beside it
    /// ([`beside`]). Returns the signed comment.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, file: &Path) -> Result<String, SignatureError> {
        let path = beside(file);
        let hint = "; a bundle comes with its signature beside it";
        let text = read_text(&path, hint)?;
        let Ok(signature) = minisign::Signature::decode(&text) else {
            return Err(SignatureError::Unreadable(path));
        };
        let mut verifier = match self.key.verify_stream(&signature) {
            Ok(verifier) => verifier,
            Err(minisign::Error::UnexpectedKeyId) => {
                let key = self.clone();
                return Err(SignatureError::OtherKey { path, key });
            }
            Err(_) => return Err(SignatureError::Legacy(path)),
        };
        let failed = |source| SignatureError::Read {
            path: file.to_owned(),
            source,
            hint: "",
        };
        let mut reader = File::open(file).map_err(failed)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => verifier.update(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        verifier.finalize().map_err(|_| SignatureError::Wrong {
            path: file.to_owned(),
        })?;
        Ok(signature.trusted_comment().to_owned())
    }
}

/// Where the signature of `file` lies.
pub fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(SUFFIX);
    PathBuf::from(name)
}

fn read_text(path: &Path, hint: &'static str) -> Result<String, SignatureError> {
    let failed = |source| SignatureError::Read {
        path: path.to_owned(),
        source,
        hint,
    };
    let file = File::open(path).map_err(failed)?;
    let bytes = super::capped(file, MAX_BYTES).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| failed(io::Error::other(error.utf8_error())))
}
