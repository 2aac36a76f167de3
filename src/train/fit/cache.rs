//! Embeddings on disk, one file per bundle: what was encoded once is never encoded again.
//!
//! The file only grows. Every record carries a check of its own, so that after a power cut all
//! records before the torn one are used and the rest is cut off.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::bundle::Bundle;
use crate::encoder::Embedding;

/// First bytes of a cache file; the last one is the version of its layout.
const MAGIC: &[u8; 8] = b"vdtrain\x01";

/// What an embedding was made of.
pub type Key = [u8; 32];

/// Bytes of a record's check.
const CHECK: usize = 8;

/// Hash of parts, each with its length.
pub fn key(parts: &[&[u8]]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Embeddings of one bundle.
pub struct Cache {
    file: File,
    path: PathBuf,
    dim: usize,
    known: HashMap<Key, Embedding>,
}

impl Cache {
    /// Opens the cache of `bundle` in `folder`, made when needed. Of what lies there everything is
    /// kept up to the first damaged record.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(folder: &Path, bundle: &Bundle) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("embeddings-{}.bin", &bundle.sha256()[..16]));
        let context = || format!("cannot use the cache {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(context)?;
        let dim = bundle.manifest().embedding_dim;
        let mut head = MAGIC.to_vec();
        head.extend(bundle.sha256().as_bytes());
        let (known, good) = read(&mut file, &head, dim).with_context(context)?;
        file.set_len(good).with_context(context)?;
        if good == 0 {
            file.rewind().with_context(context)?;
            file.write_all(&head).with_context(context)?;
        }
        file.seek(SeekFrom::End(0)).with_context(context)?;
        Ok(Self {
            file,
            path,
            dim,
            known,
        })
    }

    /// What is stored under `key`.
    pub fn get(&self, key: &Key) -> Option<&Embedding> {
        self.known.get(key)
    }

    /// Stores embeddings and waits until the disk has them.
    ///
    /// # Errors
    /// The file system's.
    pub fn add(&mut self, fresh: impl IntoIterator<Item = (Key, Embedding)>) -> Result<()> {
        let context = || format!("cannot write the cache {}", self.path.display());
        let mut out = BufWriter::new(&self.file);
        for (key, embedding) in fresh {
            let mut record = key.to_vec();
            debug_assert_eq!(embedding.as_slice().len(), self.dim);
            record.extend(embedding.as_slice().iter().flat_map(|v| v.to_le_bytes()));
            let check = Sha256::digest(&record);
            record.extend(&check[..CHECK]);
            out.write_all(&record).with_context(context)?;
            self.known.insert(key, embedding);
        }
        out.flush().with_context(context)?;
        drop(out);
        self.file.sync_data().with_context(context)
    }
}

/// All good records, and the length of the file up to the last of them.
fn read(file: &mut File, head: &[u8], dim: usize) -> io::Result<(HashMap<Key, Embedding>, u64)> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut known = HashMap::new();
    let mut found = vec![0; head.len()];
    if !filled(&mut reader, &mut found)? || found != head {
        return Ok((known, 0));
    }
    let mut good = head.len() as u64;
    let mut record = vec![0; 32 + 4 * dim + CHECK];
    while filled(&mut reader, &mut record)? {
        let (body, check) = record.split_at(32 + 4 * dim);
        if Sha256::digest(body)[..CHECK] != *check {
            break;
        }
        let Some((key, values)) = body.split_first_chunk::<32>() else {
            break;
        };
        let values = values.as_chunks::<4>().0.iter();
        let values = values.map(|v| f32::from_le_bytes(*v)).collect();
        let Some(embedding) = Embedding::from_unit(values) else {
            break;
        };
        known.insert(*key, embedding);
        good += record.len() as u64;
    }
    Ok((known, good))
}

fn filled(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
