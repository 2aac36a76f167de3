//! Prompts become label embeddings, once: what was embedded before is read from disk, and the text
//! encoder is only loaded while something is missing.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::bundle::Bundle;
use crate::bundle::store::RealDisk;
use crate::encoder::{self, Embedding, EncodeError, TextEncoder};
use crate::matcher::LabelBank;

/// First bytes of a cache file; the last one is the version of its layout.
const MAGIC: &[u8; 8] = b"vdprmpt\x01";

/// Longest cache file that is read, bytes: 4096 prompts of 2048 dimensions.
const MAX_CACHE_BYTES: u64 = 40 << 20;

/// Prompts kept in the cache at most; those in use come first.
const MAX_CACHED_PROMPTS: usize = 4096;

/// Prompts embedded between two progress marks.
const CHUNK: usize = 16;

/// Identifies a prompt: SHA-256 of its text.
type Key = [u8; 32];

/// Start of the name of a bundle's cache, before the first digits of its SHA-256.
pub const CACHE_PREFIX: &str = "prompts-";

/// Why a label bank could not be built.
#[derive(Debug, Error)]
pub enum LabelBankError {
    /// The text encoder could not be loaded or failed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A label or negative without prompts.
    #[error("entry {0} has no prompt; give at least one")]
    NoPrompts(usize),
    /// The prompts' embeddings average to nothing.
    #[error("the prompts of entry {0} cancel each other out; use fewer or more similar ones")]
    Cancelled(usize),
}

/// Builds the bank for `labels` and `negatives`, each a list of prompts, through the cache in
/// `cache_dir` (`None`: no cache). `groups` holds one entry per label. `progress` is told how many
/// of how many missing prompts are embedded.
///
/// # Errors
/// See [`LabelBankError`]. A cache that cannot be read or written is logged, not an error.
///
/// # Panics
/// When `groups` has not one entry per label.
pub fn build(
    bundle: &Bundle,
    cache_dir: Option<&Path>,
    labels: &[Vec<String>],
    groups: Vec<Option<usize>>,
    negatives: &[Vec<String>],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<LabelBank, LabelBankError> {
    assert_eq!(labels.len(), groups.len(), "one group entry per label");
    let cache = PromptCache::new(cache_dir, bundle.sha256(), bundle.manifest().embedding_dim);
    let load = || encoder::load_text(bundle);
    let sets: Vec<&[String]> = labels.iter().chain(negatives).map(Vec::as_slice).collect();
    let mut embeddings = cache.embed(&sets, load, progress)?;
    let negatives = embeddings.split_off(labels.len());
    Ok(LabelBank {
        labels: embeddings,
        groups,
        negatives: negatives.into(),
        shots: None,
    })
}

/// Embeddings of single prompts on disk, for one bundle.
#[derive(Clone, Debug)]
pub struct PromptCache {
    file: Option<PathBuf>,
    /// Written into the file, so that a renamed file is not believed.
    bundle: Key,
    dim: usize,
}

impl PromptCache {
    /// The cache of the bundle with manifest hash `bundle_sha256` and embeddings of `dim` values,
    /// in the folder `dir`, made when needed.
    pub fn new(dir: Option<&Path>, bundle_sha256: &str, dim: usize) -> Self {
        let short = bundle_sha256.get(..16).unwrap_or(bundle_sha256);
        Self {
            file: dir.map(|dir| dir.join(format!("{CACHE_PREFIX}{short}.bin"))),
            bundle: Sha256::digest(bundle_sha256).into(),
            dim,
        }
    }

    /// One embedding per set of prompts: the mean of the prompts' unit vectors, normalised again.
    /// `load` is called only when a prompt is not cached; what it returns is dropped before this
    /// returns.
    ///
    /// # Errors
    /// See [`LabelBankError`].
    pub fn embed(
        &self,
        sets: &[&[String]],
        load: impl FnOnce() -> Result<Box<dyn TextEncoder>, EncodeError>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Embedding>, LabelBankError> {
        let mut known = self.read();
        let mut seen = HashSet::new();
        let missing: Vec<&str> = sets
            .iter()
            .copied()
            .flatten()
            .map(String::as_str)
            .filter(|prompt| !known.contains_key(&key(prompt)) && seen.insert(*prompt))
            .collect();
        if !missing.is_empty() {
            let mut encoder = load()?;
            let mut done = 0;
            for chunk in missing.chunks(CHUNK) {
                let embeddings = encoder.encode_texts(chunk)?;
                known.extend(chunk.iter().map(|prompt| key(prompt)).zip(embeddings));
                done += chunk.len();
                progress(done, missing.len());
            }
            drop(encoder);
            crate::memory::give_back();
            self.write(sets, &known);
        }
        sets.iter()
            .enumerate()
            .map(|(index, set)| {
                let mut prompts = set.iter().map(|prompt| known[&key(prompt)].as_slice());
                let first = prompts.next().ok_or(LabelBankError::NoPrompts(index))?;
                let mut sum = first.to_vec();
                for prompt in prompts {
                    for (sum, value) in sum.iter_mut().zip(prompt) {
                        *sum += value;
                    }
                }
                Embedding::normalized(sum).ok_or(LabelBankError::Cancelled(index))
            })
            .collect()
    }

    fn read(&self) -> HashMap<Key, Embedding> {
        let Some(path) = &self.file else {
            return HashMap::new();
        };
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(path)?
                .take(MAX_CACHE_BYTES)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => self.parse(&bytes).unwrap_or_else(|| {
                let path = path.display();
                log::warn!(
                    "the prompt cache {path} is damaged or of another version; making it again"
                );
                HashMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    log::warn!(
                        "the prompt cache {} cannot be read: {error}",
                        path.display()
                    );
                }
                HashMap::new()
            }
        }
    }

    /// Layout: [`MAGIC`], bundle key, dimension (u32), then per prompt its key and `D` f32, then the
    /// SHA-256 of all of it; little endian.
    fn parse(&self, bytes: &[u8]) -> Option<HashMap<Key, Embedding>> {
        let (body, hash) = bytes.split_last_chunk::<32>()?;
        if Sha256::digest(body)[..] != hash[..] {
            return None;
        }
        let body = body.strip_prefix(MAGIC)?.strip_prefix(&self.bundle[..])?;
        let (dim, body) = body.split_first_chunk::<4>()?;
        if usize::try_from(u32::from_le_bytes(*dim)) != Ok(self.dim) {
            return None;
        }
        let entries = body.chunks_exact(32 + 4 * self.dim);
        if !entries.remainder().is_empty() {
            return None;
        }
        entries
            .map(|entry| {
                let (key, values) = entry.split_first_chunk::<32>()?;
                let values = values
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|v| f32::from_le_bytes(*v));
                Some((*key, Embedding::from_unit(values.collect())?))
            })
            .collect()
    }

    fn write(&self, sets: &[&[String]], known: &HashMap<Key, Embedding>) {
        let Some(path) = &self.file else { return };
        let mut kept = HashSet::new();
        let used = sets.iter().copied().flatten().map(|prompt| key(prompt));
        let mut body = MAGIC.to_vec();
        body.extend(self.bundle);
        body.extend(u32::try_from(self.dim).unwrap_or(u32::MAX).to_le_bytes());
        for key in used.chain(known.keys().copied()) {
            if kept.len() < MAX_CACHED_PROMPTS && kept.insert(key) {
                body.extend(key);
                body.extend(known[&key].as_slice().iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        let hash = Sha256::digest(&body);
        body.extend(hash);
        if let Err(error) = replace(path, &body) {
            let path = path.display();
            log::warn!(
                "the prompt cache {path} cannot be written: {error}; prompts are embedded again next time"
            );
        }
    }
}

/// Writes `path` so that a power cut leaves either the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    // `vedetta bundle install` as root writes the cache of the daemon, whose user has to read it.
    let disk = RealDisk::new(path.parent().unwrap_or(Path::new(".")));
    let mut file = disk.open(&partial, true)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

fn key(prompt: &str) -> Key {
    Sha256::digest(prompt).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Embeds a text as its letter counts, and counts the texts.
    struct Spelling(Arc<AtomicUsize>);

    impl TextEncoder for Spelling {
        fn encode_texts(&mut self, texts: &[&str]) -> Result<Vec<Embedding>, EncodeError> {
            self.0.fetch_add(texts.len(), Ordering::Relaxed);
            let spell = |text: &&str| {
                let mut counts = vec![0.0; 26];
                for letter in text.bytes().filter(u8::is_ascii_lowercase) {
                    counts[usize::from(letter - b'a')] += 1.0;
                }
                Embedding::normalized(counts).ok_or_else(|| EncodeError::Input("no letter".into()))
            };
            texts.iter().map(spell).collect()
        }
    }

    fn set(prompts: &[&str]) -> Vec<String> {
        prompts.iter().map(|p| (*p).to_owned()).collect()
    }

    /// Embeds `sets`; returns the embeddings and how many prompts went through an encoder, `None`
    /// when none was loaded.
    fn embed(cache: &PromptCache, sets: &[Vec<String>]) -> (Vec<Embedding>, Option<usize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let mut loaded = false;
        let slices: Vec<&[String]> = sets.iter().map(Vec::as_slice).collect();
        let load = || {
            loaded = true;
            Ok(Box::new(Spelling(Arc::clone(&count))) as Box<dyn TextEncoder>)
        };
        let embeddings = cache.embed(&slices, load, &mut |_, _| {}).unwrap();
        (embeddings, loaded.then(|| count.load(Ordering::Relaxed)))
    }

    fn cache_in(folder: &Path) -> PromptCache {
        PromptCache::new(Some(&folder.join("state")), &"ab".repeat(32), 26)
    }

    #[test]
    fn the_encoder_is_not_loaded_when_every_prompt_is_cached() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(folder.path());
        let sets = [set(&["una mela", "foto di una mela"]), set(&["una pera"])];
        let (first, embedded) = embed(&cache, &sets);
        assert_eq!(embedded, Some(3));
        assert_eq!(embed(&cache, &sets), (first, None));
    }

    #[test]
    fn a_new_prompt_embeds_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(folder.path());
        embed(&cache, &[set(&["una mela", "una pera"])]);
        let (_, embedded) = embed(&cache, &[set(&["una pera", "un kiwi", "un kiwi"])]);
        assert_eq!(embedded, Some(1));
        assert_eq!(embed(&cache, &[set(&["una mela"])]).1, None, "still cached");
    }

    #[test]
    fn prompts_are_averaged_as_unit_vectors() {
        let cache = PromptCache::new(None, "", 26);
        let (embeddings, _) = embed(&cache, &[set(&["a", "bbb"])]);
        let values = embeddings[0].as_slice();
        assert!((values[0] - values[1]).abs() < 1e-6);
        assert!((values[0] - 0.5f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn a_damaged_cache_is_ignored_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(folder.path());
        let sets = [set(&["una mela"])];
        let (expected, _) = embed(&cache, &sets);
        let path = cache.file.clone().unwrap();
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[60] ^= 1;
        for damaged in [&flipped[..], &good[..good.len() - 1], b"", b"hello"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(embed(&cache, &sets), (expected.clone(), Some(1)));
            assert_eq!(fs::read(&path).unwrap(), good);
        }
    }

    #[test]
    fn the_cache_of_another_bundle_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(folder.path());
        let sets = [set(&["una mela"])];
        embed(&cache, &sets);
        let other = PromptCache::new(Some(&folder.path().join("state")), &"cd".repeat(32), 26);
        fs::rename(cache.file.unwrap(), other.file.as_ref().unwrap()).unwrap();
        assert_eq!(embed(&other, &sets).1, Some(1));
    }

    #[test]
    fn a_folder_that_cannot_be_written_does_not_stop_anything() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        fs::write(&file, "a file where a folder should be").unwrap();
        let (embeddings, _) = embed(&cache_in(folder.path()), &[set(&["una mela"])]);
        assert_eq!(embeddings.len(), 1);
    }

    #[test]
    fn an_entry_without_prompts_is_an_error() {
        let cache = PromptCache::new(None, "", 26);
        let load = || Ok(Box::new(Spelling(Arc::default())) as Box<dyn TextEncoder>);
        let error = cache.embed(&[&set(&["a"]), &[]], load, &mut |_, _| {});
        assert!(matches!(error, Err(LabelBankError::NoPrompts(1))));
    }
}
