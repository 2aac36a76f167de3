//! Public checkpoints, read tensor by tensor. A checkpoint is hostile input: headers are capped,
//! every offset is checked before it is read, nothing is executed and nothing panics.
//!
//! Each format is only an index: a name, an element type, and where in which file the elements lie.
//! Elements are read when a tensor is asked for, so that a checkpoint is never in memory as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

mod flax;
mod pickle;
mod pickled;
mod safetensors;
mod shards;
mod stored;
mod torch;

pub use stored::{Kind, Stored};

/// Longest JSON file beside the weights, bytes; a multilingual tokenizer has 34 MB.
pub const MAX_JSON_BYTES: u64 = 64 << 20;

/// Most tensors of a checkpoint. The largest known text tower has 400.
const MAX_TENSORS: usize = 100_000;

/// Longest name of a tensor, bytes.
const MAX_NAME_BYTES: usize = 512;

/// Weight files that are looked for in a folder, the safest format first.
pub const WEIGHT_FILES: [&str; 8] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.safetensors",
    "flax_model.msgpack",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Safetensors,
    Shards,
    Flax,
    Torch,
}

/// A file of a checkpoint.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "{} is not a file", path.display());
        Ok(Self {
            path: path.to_owned(),
            bytes: metadata.len(),
            file,
        })
    }

    /// Fills `buffer` from `offset`.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .with_context(|| format!("cannot read {} at byte {offset}", self.path.display()))
    }
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    sources: Vec<Source>,
    tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    /// Opens `path`: a weight file, or a folder that holds one.
    ///
    /// # Errors
    /// No known weight file, or one that is damaged; the message says where.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return Self::open_file(path, format_of(&name)?);
        }
        for name in WEIGHT_FILES {
            let candidate = path.join(name);
            if candidate.exists() {
                return Self::open_file(&candidate, format_of(name)?);
            }
        }
        bail!("{} has none of {}", path.display(), WEIGHT_FILES.join(", "))
    }

    fn open_file(path: &Path, format: Format) -> Result<Self> {
        let mut checkpoint = Self {
            sources: Vec::new(),
            tensors: BTreeMap::new(),
        };
        match format {
            Format::Safetensors => checkpoint.add(path, safetensors::index),
            Format::Flax => checkpoint.add(path, flax::index),
            Format::Torch => checkpoint.add(path, torch::index),
            Format::Shards => shards::open(&mut checkpoint, path),
        }
        .with_context(|| path.display().to_string())?;
        Ok(checkpoint)
    }

    /// Adds one file's tensors.
    fn add(
        &mut self,
        path: &Path,
        index: impl FnOnce(&Source) -> Result<Vec<(String, Stored)>>,
    ) -> Result<()> {
        let source = Source::open(path)?;
        let tensors = index(&source)?;
        ensure!(
            self.tensors.len() + tensors.len() <= MAX_TENSORS,
            "more than {MAX_TENSORS} tensors"
        );
        for (name, mut stored) in tensors {
            ensure!(
                name.len() <= MAX_NAME_BYTES,
                "a tensor's name has more than {MAX_NAME_BYTES} bytes"
            );
            stored.source = self.sources.len();
            stored
                .check(source.bytes)
                .with_context(|| format!("tensor {name}"))?;
            if self.tensors.contains_key(&name) {
                bail!("tensor {name} is there twice");
            }
            self.tensors.insert(name, stored);
        }
        self.sources.push(source);
        Ok(())
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, Stored> {
        &self.tensors
    }

    /// The weight files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(|source| source.path.as_path())
    }

    /// Elements of `stored`, row-major in its shape.
    ///
    /// # Errors
    /// Elements that are not floating-point, or a file that cannot be read any more.
    pub fn read(&self, stored: &Stored) -> Result<Vec<f32>> {
        let source = self
            .sources
            .get(stored.source)
            .context("a tensor of another checkpoint")?;
        stored.check(source.bytes)?;
        let mut bytes = vec![0; stored.extent_bytes()?];
        source.read(stored.offset, &mut bytes)?;
        stored.decode(&bytes)
    }
}

fn format_of(name: &str) -> Result<Format> {
    Ok(match name.rsplit('.').next() {
        Some("safetensors") => Format::Safetensors,
        Some("msgpack") => Format::Flax,
        Some("bin" | "pt" | "pth") => Format::Torch,
        Some("json") => Format::Shards,
        _ => bail!(
            "{name} is no weight file; give a folder, or a .safetensors, .msgpack or .bin file"
        ),
    })
}

/// Whether `name` can only be a file beside the one that names it.
pub fn plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// Reads a text file of at most `max_bytes`.
///
/// # Errors
/// A file that is missing, too long or not UTF-8.
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String> {
    let context = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    fs::File::open(path)
        .with_context(context)?
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .with_context(context)?;
    ensure!(
        bytes.len() as u64 <= max_bytes,
        "{} is longer than {max_bytes} bytes",
        path.display()
    );
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests;
