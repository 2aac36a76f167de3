//! Embeddings on disk, one file per bundle: what was encoded once is never encoded again.
//!
//! The file only grows. Every record carries a check of its own, so that after a power cut all
//! records before the torn one are used and the rest is cut off.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
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
    /// None: in memory only.
    file: Option<(File, PathBuf)>,
    dim: usize,
    known: HashMap<Key, Embedding>,
}

impl Cache {
    /// A cache of embeddings of `dim` values that is forgotten.
    pub fn in_memory(dim: usize) -> Self {
        Self {
            file: None,
            dim,
            known: HashMap::new(),
        }
    }

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
            file: Some((file, path)),
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
        let mut records = Vec::new();
        for (key, embedding) in fresh {
            let start = records.len();
            debug_assert_eq!(embedding.as_slice().len(), self.dim);
            records.extend(key);
            records.extend(embedding.as_slice().iter().flat_map(|v| v.to_le_bytes()));
            let check = Sha256::digest(&records[start..]);
            records.extend(&check[..CHECK]);
            self.known.insert(key, embedding);
        }
        let Some((file, path)) = &mut self.file else {
            return Ok(());
        };
        file.write_all(&records)
            .and_then(|()| file.sync_data())
            .with_context(|| format!("cannot write the cache {}", path.display()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Limits;

    fn demo() -> Bundle {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        Bundle::open(&path, &Limits::default()).unwrap()
    }

    fn embedding(i: u8) -> Embedding {
        Embedding::normalized((0..=255).map(|v: u8| f32::from(v ^ i)).collect()).unwrap()
    }

    fn found(folder: &Path) -> Vec<u8> {
        let cache = Cache::open(folder, &demo()).unwrap();
        let known = |i: &u8| cache.get(&key(&[&[*i]])) == Some(&embedding(*i));
        (0..6).filter(known).collect()
    }

    #[test]
    fn what_was_added_is_there_up_to_the_first_damage() {
        let folder = tempfile::tempdir().unwrap();
        let add = |range: std::ops::Range<u8>| {
            let mut cache = Cache::open(folder.path(), &demo()).unwrap();
            cache
                .add(range.map(|i| (key(&[&[i]]), embedding(i))))
                .unwrap();
        };
        add(0..2);
        add(2..4);
        assert_eq!(found(folder.path()), [0, 1, 2, 3]);
        let file = fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
        assert_eq!(found(folder.path()), [0, 1, 2], "torn");
        add(4..5);
        assert_eq!(
            found(folder.path()),
            [0, 1, 2, 4],
            "what is torn is cut off"
        );
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(found(folder.path()).len() < 3, "flipped");
        fs::write(&file, "of another program").unwrap();
        assert!(found(folder.path()).is_empty());
    }

    #[test]
    fn keys_do_not_run_into_each_other() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
