//! The texts, their targets in the shared space, and the classes they name.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{D, Device, Tensor};
use tokenizers::Tokenizer;

use super::{EMBEDDING_DIM, MAX_TOKENS, Work};
pub use crate::train::texts::{Text, read_texts};

/// The learned map from the teacher's space to the shared one:
/// `y = A·x + C·relu(B·x + b)`, `M(x) = y / ‖y‖`.
pub struct SpaceMap {
    linear: Tensor,
    hidden: Tensor,
    hidden_bias: Tensor,
    output: Tensor,
}

impl SpaceMap {
    /// Reads `space.safetensors`.
    ///
    /// # Errors
    /// A missing file or tensor.
    pub fn load(path: &Path) -> Result<Self> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)
            .with_context(|| format!("{}: run the step `space` first", path.display()))?;
        let get = |name: &str| {
            tensors
                .get(name)
                .cloned()
                .with_context(|| format!("{}: no tensor {name}", path.display()))
        };
        Ok(Self {
            linear: get("linear.weight")?.t()?.contiguous()?,
            hidden: get("hidden.weight")?.t()?.contiguous()?,
            hidden_bias: get("hidden.bias")?,
            output: get("output.weight")?.t()?.contiguous()?,
        })
    }

    /// `[n, 512]` unit rows to `[n, D]` unit rows.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn apply(&self, teacher: &Tensor) -> Result<Tensor> {
        let hidden = teacher
            .matmul(&self.hidden)?
            .broadcast_add(&self.hidden_bias)?
            .relu()?;
        unit_rows(&(teacher.matmul(&self.linear)? + hidden.matmul(&self.output)?)?)
    }
}

/// Scales every row to unit length; differentiable.
///
/// # Errors
/// Not a matrix.
pub fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    Ok(x.broadcast_div(&norm)?)
}

/// Everything the distillation reads.
pub struct Corpus {
    /// The texts, in file order.
    pub texts: Vec<Text>,
    /// Token ids of each, special ones included.
    pub tokens: Vec<Vec<u32>>,
    /// Targets `[N, D]`, unit rows, row-major.
    pub targets: Vec<f32>,
    /// Tokens the tokenizer knows.
    pub vocabulary: usize,
}

impl Corpus {
    /// Reads texts, teacher embeddings, the space map and the tokenizer of a work folder.
    ///
    /// # Errors
    /// A file is missing or they do not fit together.
    pub fn load(work: &Work) -> Result<Self> {
        let texts = read_texts(&work.texts())?;
        let targets = targets(&work.teacher(), &SpaceMap::load(&work.space())?)?;
        ensure!(
            targets.len() == texts.len() * EMBEDDING_DIM,
            "{} embeddings for {} texts: run the step `teacher` again",
            targets.len() / EMBEDDING_DIM,
            texts.len()
        );
        let tokenizer = load_tokenizer(work)?;
        let tokens = tokenize(
            &tokenizer,
            &texts
                .iter()
                .map(|row| row.text.as_str())
                .collect::<Vec<_>>(),
        )?;
        Ok(Self {
            texts,
            tokens,
            targets,
            vocabulary: tokenizer.get_vocab_size(true),
        })
    }

    /// Target of text `row`, `[D]`.
    pub fn target(&self, row: usize) -> &[f32] {
        &self.targets[row * EMBEDDING_DIM..(row + 1) * EMBEDDING_DIM]
    }

    /// Unit means `[classes, D]` of the targets of what the classes (by `class`) 0, 1, … are called
    /// and asked for by; row-major. A name that is a finer class's too counts where there is no other.
    pub fn centroids(&self, classes: usize, class: impl Fn(&Text) -> &[usize]) -> Vec<f32> {
        let mut sums = vec![0.0; classes * EMBEDDING_DIM];
        let named = |text: &Text| match (text.kind.as_str(), class(text)) {
            ("prompt" | "name", &[id]) if id < classes => Some(id),
            _ => None,
        };
        let own: HashSet<usize> = self
            .texts
            .iter()
            .filter(|text| text.fine.is_empty())
            .filter_map(named)
            .collect();
        for (row, text) in self.texts.iter().enumerate() {
            let Some(id) = named(text) else {
                continue;
            };
            if text.fine.is_empty() || !own.contains(&id) {
                let sum = &mut sums[id * EMBEDDING_DIM..(id + 1) * EMBEDDING_DIM];
                sum.iter_mut()
                    .zip(self.target(row))
                    .for_each(|(a, b)| *a += b);
            }
        }
        for sum in sums.chunks_exact_mut(EMBEDDING_DIM) {
            let norm = sum.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
            sum.iter_mut().for_each(|v| *v /= norm);
        }
        sums
    }
}

/// Teacher embeddings of a `.npy` file mapped into the shared space, `[N, D]` row-major.
///
/// # Errors
/// A file is missing or of another shape.
pub fn targets(teacher: &Path, map: &SpaceMap) -> Result<Vec<f32>> {
    let teacher = Tensor::read_npy(teacher)
        .with_context(|| format!("{}: run the step `teacher` first", teacher.display()))?;
    let rows = teacher.dim(0)?;
    let mut targets = Vec::with_capacity(rows * EMBEDDING_DIM);
    for start in (0..rows).step_by(4096) {
        let mapped = map.apply(&teacher.narrow(0, start, 4096.min(rows - start))?)?;
        ensure!(
            mapped.dim(1)? == EMBEDDING_DIM,
            "the space map gives {} values instead of {EMBEDDING_DIM}",
            mapped.dim(1)?
        );
        targets.extend(mapped.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(targets)
}

/// Reads `text/tokenizer.json`.
///
/// # Errors
/// The step `tokenizer` has not run, or the file is broken.
pub fn load_tokenizer(work: &Work) -> Result<Tokenizer> {
    let path = work.tokenizer();
    Tokenizer::from_file(&path).map_err(|error| {
        anyhow::anyhow!(
            "{}: {error}: run the step `tokenizer` first",
            path.display()
        )
    })
}

/// Token ids of each text, 2 to [`MAX_TOKENS`].
///
/// # Errors
/// The tokenizer fails.
pub fn tokenize(tokenizer: &Tokenizer, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
    let encodings = tokenizer
        .encode_batch(texts.to_vec(), true)
        .map_err(|error| anyhow::anyhow!("tokenizer: {error}"))?;
    let tokens: Vec<Vec<u32>> = encodings
        .iter()
        .map(|encoding| encoding.get_ids().to_vec())
        .collect();
    ensure!(
        tokens.iter().all(|ids| ids.len() <= MAX_TOKENS),
        "the tokenizer does not truncate to {MAX_TOKENS}"
    );
    Ok(tokens)
}
