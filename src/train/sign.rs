//! Signing keys and signatures, as files that `minisign` reads and writes too.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use minisign::{ErrorKind, KeyPair, PublicKey, SecretKey, SecretKeyBox};

use crate::bundle::signature::beside;

/// What protects a secret key on disk.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// Nothing: whoever reads the file can sign.
    None,
    /// This one.
    Given(String),
    /// What is typed on the terminal when it is needed.
    Ask,
}

impl Password {
    fn given(self) -> Option<String> {
        match self {
            Self::Given(text) => Some(text),
            Self::None | Self::Ask => None,
        }
    }
}

/// The files of a key pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// Signs; stays where bundles are made.
    pub secret: PathBuf,
    /// Verifies; goes onto every board.
    pub public: PathBuf,
    /// What the public file holds, one line.
    pub public_line: String,
}

/// Makes a key pair: `<stem>.key`, readable by its owner only and encrypted with the password
/// (scrypt), and `<stem>.pub`.
///
/// # Errors
/// A file that is there already, or cannot be written.
pub fn generate(stem: &Path, password: Password) -> Result<KeyFiles> {
    let named = |ending: &str| {
        let mut name = stem.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let (secret, public) = (named(".key"), named(".pub"));
    for path in [&secret, &public] {
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} is there already: boards trust it; name another with -o",
                path.display()
            );
        }
    }
    let pair = match password {
        Password::None => KeyPair::generate_unencrypted_keypair(),
        password => KeyPair::generate_encrypted_keypair(password.given()),
    }
    .context("the key cannot be made")?;
    write_new(&secret, 0o600, &pair.sk.to_box(None)?.to_bytes())?;
    if let Err(error) = write_new(&public, 0o644, &pair.pk.to_box()?.to_bytes()) {
        // Half a pair is of no use, and would be in the way of the next attempt.
        let _ = fs::remove_file(&secret);
        return Err(error);
    }
    Ok(KeyFiles {
        secret,
        public,
        public_line: pair.pk.to_base64(),
    })
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A secret key, ready to sign.
pub struct SigningKey(SecretKey);

impl SigningKey {
    /// Reads a secret key file; `password` counts only when the key is encrypted.
    ///
    /// # Errors
    /// Not a secret key, or the wrong password.
    pub fn read(path: &Path, password: Password) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let context = || format!("{} cannot be used as a secret key", path.display());
        let boxed = SecretKeyBox::from_string(&text).with_context(context)?;
        match boxed.clone().into_unencrypted_secret_key() {
            Ok(key) => return Ok(Self(key)),
            Err(error) if matches!(error.kind(), ErrorKind::Verify) => {
                return Err(error).with_context(context);
            }
            // Encrypted, or no key at all, which the next step says.
            Err(_) => {}
        }
        let key = boxed.into_secret_key(password.given());
        key.map(Self).with_context(context)
    }

    /// Signs a packed bundle; returns the path of the signature, which lies beside it.
    ///
    /// # Errors
    /// Not a packed bundle, or a disk that fails.
    pub fn sign(&self, file: &Path, comment: &str) -> Result<PathBuf> {
        let public = PublicKey::from_secret_key(&self.0)?;
        let reader = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        let untrusted = "signature of a vedetta bundle";
        let signature = minisign::sign(
            Some(&public),
            &self.0,
            reader,
            Some(comment),
            Some(untrusted),
        )
        .with_context(|| format!("cannot sign {}", file.display()))?;
        let path = beside(file);
        fs::write(&path, signature.to_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
