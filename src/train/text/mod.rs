//! The text tower of the demo bundle: a small transformer that repeats, for any Italian phrase,
//! what a large multilingual sentence encoder (the teacher) says about it, in the shared space.
//!
//! ```text
//! texts.tsv ─► vocabulary ─► tokenizer.json ─┐
//! texts.tsv, teacher.npy ─► corpus ─ targets ─► distil ─► tower.safetensors ─► export ─► text.onnx
//!                 space.safetensors ┘                             └─► student_texts.safetensors
//! ```
//!
//! `models/text_corpus.py` writes `texts.tsv` and `models/teacher.py` embeds it; the rest is here.
//! Every step reads and writes one work folder, so each can be run again alone.

pub mod corpus;
pub mod distil;
pub mod export;
pub mod measure;
pub mod optimizer;
pub mod refresh;
pub mod restore;
pub mod tower;
pub mod vocabulary;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use distil::{Settings, distil};
pub use export::export;
pub use vocabulary::train_tokenizer;

/// Most tokens of a text, `[CLS]` and `[SEP]` included. The longest caption needs 24.
pub const MAX_TOKENS: usize = 32;

/// `D`, the width of the shared space.
pub const EMBEDDING_DIM: usize = 256;

/// Files of the work folder.
pub struct Work(pub PathBuf);

impl Work {
    /// The texts, as `models/text_corpus.py` wrote them.
    pub fn texts(&self) -> PathBuf {
        self.0.join("texts.tsv")
    }

    /// Their teacher embeddings, `[N, 512] f32`.
    pub fn teacher(&self) -> PathBuf {
        self.0.join("teacher.npy")
    }

    /// The map from the teacher's space to the shared one.
    pub fn space(&self) -> PathBuf {
        self.0.join("space.safetensors")
    }

    /// The tokenizer that ships.
    pub fn tokenizer(&self) -> PathBuf {
        self.0.join("text/tokenizer.json")
    }

    /// The trained tower, f32.
    pub fn tower(&self) -> PathBuf {
        self.0.join("text/tower.safetensors")
    }

    /// The tower that ships.
    pub fn onnx(&self) -> PathBuf {
        self.0.join("text/text.onnx")
    }

    /// The manifest's `[text]` table.
    pub fn manifest_part(&self) -> PathBuf {
        self.0.join("text/text.toml")
    }

    /// The tower's embeddings of all texts, for the image tower to learn from.
    pub fn student_texts(&self) -> PathBuf {
        self.0.join("student_texts.safetensors")
    }
}

/// Writes `path` so that a reader sees the old content or the new, never half of it.
///
/// # Errors
/// The folder cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path
        .file_name()
        .context("a file without a name")?
        .to_string_lossy()
        .into_owned();
    let temporary = path.with_file_name(format!("{name}.tmp"));
    std::fs::write(&temporary, bytes)
        .with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}
