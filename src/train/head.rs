//! From pooled features to the shared space.
//!
//! ```text
//! features [1280] ─┬─ linear 1024 ─ ReLU ─ linear D ───────────────────┐
//!                  └─ ImageNet classifier ─ ×2 ─ softmax ─ names [D] ──┴─ + ─► embedding [D]
//! ```
//!
//! The second branch places an image among the names of the 1000 things the tower was taught first
//! (convex combination of class embeddings: ConSE, Norouzi et al., ICLR 2014), so that everyday
//! things need no photo here. The first branch is trained on photos and on anchors of those things.
//!
//! A mixture of many names is near whatever name lies in the middle of all: half of the names' mean
//! is taken off each, and the classifier's opinion is sharpened to its square.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::{log_softmax, softmax};

use super::efficientnet::FEATURES;
use super::onnx::{self, Graph, Pretrained};
use super::targets::{Bank, EVERYDAY, select, unit_rows};

/// Width of the hidden layer.
pub const HIDDEN: usize = 1024;

/// What the classifier's logits are multiplied by before the names are mixed; 1 for [`super::gate`].
const SHARPNESS: f64 = 2.0;

/// Share of the names' mean that is taken off every name.
const CENTRED: f64 = 0.5;

/// The trained half of the head.
pub struct Head {
    /// `[1280, 1024]`, `[1024]`, `[1024, D]`, `[D]` and the natural logarithm of the logit scale.
    vars: Vec<(&'static str, Var)>,
    classifier: Tensor,
    classifier_bias: Tensor,
}

/// Probability that a feature or a hidden unit is dropped while training.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Of the features.
    pub features: f32,
    /// Of the hidden layer.
    pub hidden: f32,
}

impl Head {
    /// A fresh head into `dim` dimensions.
    ///
    /// # Errors
    /// candle's.
    #[expect(clippy::cast_precision_loss, reason = "layer widths")]
    pub fn new(pretrained: &Pretrained, dim: usize) -> Result<Self> {
        let device = Device::Cpu;
        let random = |rows: usize, columns: usize| -> candle_core::Result<Var> {
            Var::randn(0f32, (2.0 / rows as f32).sqrt(), (rows, columns), &device)
        };
        let vars = vec![
            ("hidden.weight", random(FEATURES, HIDDEN)?),
            ("hidden.bias", Var::zeros(HIDDEN, DType::F32, &device)?),
            ("output.weight", random(HIDDEN, dim)?),
            ("output.bias", Var::zeros(dim, DType::F32, &device)?),
            ("log_scale", Var::new(&[20f32.ln()], &device)?),
        ];
        Ok(Self {
            vars,
            classifier: Tensor::from_slice(&pretrained.classifier, (FEATURES, EVERYDAY), &device)?,
            classifier_bias: Tensor::from_slice(&pretrained.classifier_bias, EVERYDAY, &device)?,
        })
    }

    fn var(&self, name: &str) -> &Tensor {
        let found = self.vars.iter().find(|(n, _)| *n == name);
        found.map_or_else(|| unreachable!("a head has {name}"), |(_, v)| v.as_tensor())
    }

    /// What is trained.
    pub fn variables(&self) -> Vec<Var> {
        self.vars.iter().map(|(_, v)| v.clone()).collect()
    }

    /// ImageNet logits of `features [n, 1280]`.
    ///
    /// # Errors
    /// candle's.
    pub fn logits(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        features
            .matmul(&self.classifier)?
            .broadcast_add(&self.classifier_bias)
    }

    /// Unit embeddings `[n, D]` of `features [n, 1280]`; `names [1000, D]` are the embeddings of
    /// the ImageNet names.
    ///
    /// # Errors
    /// candle's.
    pub fn forward(
        &self,
        features: &Tensor,
        names: &Tensor,
        dropout: Option<Dropout>,
    ) -> candle_core::Result<Tensor> {
        let drop = |x: &Tensor, p: Option<f32>| match p {
            Some(p) if p > 0.0 => candle_nn::ops::dropout(x, p),
            _ => Ok(x.clone()),
        };
        let x = drop(features, dropout.map(|d| d.features))?;
        let x = x
            .matmul(self.var("hidden.weight"))?
            .broadcast_add(self.var("hidden.bias"))?
            .relu()?;
        let x = drop(&x, dropout.map(|d| d.hidden))?;
        let x = x
            .matmul(self.var("output.weight"))?
            .broadcast_add(self.var("output.bias"))?;
        let sharp = (self.logits(features)? * SHARPNESS)?;
        let everyday = softmax(&sharp, D::Minus1)?.matmul(names)?;
        unit_rows(&(x + everyday)?)
    }

    /// Factor from cosines to logits, at most 100.
    ///
    /// # Errors
    /// candle's.
    pub fn scale(&self) -> candle_core::Result<Tensor> {
        self.var("log_scale").exp()?.clamp(1f32, 100f32)
    }

    /// Copies the values of the variables.
    ///
    /// # Errors
    /// candle's.
    pub fn snapshot(&self) -> Result<HashMap<String, Tensor>> {
        self.vars
            .iter()
            .map(|(n, v)| Ok(((*n).to_owned(), v.as_tensor().detach().copy()?)))
            .collect()
    }

    /// Sets the variables.
    ///
    /// # Errors
    /// A tensor missing or of another shape.
    pub fn restore(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (name, var) in &self.vars {
            let value = tensors
                .get(*name)
                .with_context(|| format!("no tensor {name} in the head"))?;
            var.set(value)?;
        }
        Ok(())
    }

    /// Reads what [`Self::snapshot`] gave, from safetensors.
    ///
    /// # Errors
    /// A file that does not hold a head.
    pub fn load(&self, path: &Path) -> Result<()> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)
            .with_context(|| path.display().to_string())?;
        self.restore(&tensors)
    }

    /// Adds the head to an ONNX graph; returns the name of the embedding, `[n, D]`.
    ///
    /// # Errors
    /// candle's.
    pub fn write(&self, graph: &mut Graph, features: &str, names: &Tensor) -> Result<String> {
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let dim = names.dim(1)?;
        let w1 = graph.half(
            "hidden.weight",
            &[FEATURES, HIDDEN],
            &flat(self.var("hidden.weight"))?,
        );
        let b1 = graph.float("hidden.bias", &[1, HIDDEN], &flat(self.var("hidden.bias"))?);
        let w2 = graph.half(
            "output.weight",
            &[HIDDEN, dim],
            &flat(self.var("output.weight"))?,
        );
        let b2 = graph.float("output.bias", &[1, dim], &flat(self.var("output.bias"))?);
        let wc = graph.half(
            "classifier.weight",
            &[FEATURES, EVERYDAY],
            &flat(&self.classifier)?,
        );
        let bc = graph.float(
            "classifier.bias",
            &[1, EVERYDAY],
            &flat(&self.classifier_bias)?,
        );
        let names = graph.half("names", &[EVERYDAY, dim], &flat(names)?);
        let x = graph.node("MatMul", &[features, &w1], "hidden.product", Vec::new());
        let x = graph.node("Add", &[&x, &b1], "hidden.sum", Vec::new());
        let x = graph.node("Relu", &[&x], "hidden.relu", Vec::new());
        let x = graph.node("MatMul", &[&x, &w2], "output.product", Vec::new());
        let x = graph.node("Add", &[&x, &b2], "output.sum", Vec::new());
        let y = graph.node("MatMul", &[features, &wc], "classifier.product", Vec::new());
        let y = graph.node("Add", &[&y, &bc], "classifier.sum", Vec::new());
        let softmax = |graph: &mut Graph, logits: &str, name: &str| {
            graph.node("Softmax", &[logits], name, vec![onnx::int("axis", -1)])
        };
        // What the gate reads.
        softmax(graph, &y, "classifier.softmax");
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        let sharpness = graph.float("everyday.sharpness", &[1], &[SHARPNESS as f32]);
        let z = graph.node("Mul", &[&y, &sharpness], "everyday.logits", Vec::new());
        let z = softmax(graph, &z, "everyday.softmax");
        let z = graph.node("MatMul", &[&z, &names], "everyday", Vec::new());
        Ok(graph.node("Add", &[&x, &z], "embedding", Vec::new()))
    }
}

/// Cross-entropy of rows against soft targets: `−mean Σ target · log softmax(logits + mask)`.
/// `mask` is 0 or a large negative number, so that what is neither right nor wrong stays out.
///
/// # Errors
/// candle's.
pub fn cross_entropy(
    logits: &Tensor,
    target: &Tensor,
    mask: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let logits = match mask {
        Some(mask) => (logits + mask)?,
        None => logits.clone(),
    };
    (log_softmax(&logits, D::Minus1)? * target)?
        .sum(D::Minus1)?
        .neg()?
        .mean(0)
}

/// What stands for each ImageNet class in the second branch, `[1000, D]`: the mean of its own names and,
/// with the same weight, of the short ones it shares with others (a dingo is *un dingo* and *un cane*),
/// as unit vectors, less a share of the mean of all.
///
/// # Errors
/// candle's.
pub fn everyday_names(bank: &Bank, texts: &Tensor) -> Result<Tensor> {
    let mut rows = Vec::with_capacity(EVERYDAY);
    for id in 0..EVERYDAY {
        let own = select(texts, bank.everyday_rows(id))?.mean_keepdim(0)?;
        let mut row = unit_rows(&own)?;
        if !bank.basic_rows(id).is_empty() {
            row = (row + select(texts, bank.basic_rows(id))?.mean_keepdim(0)?)?;
        }
        rows.push(row);
    }
    let names = unit_rows(&Tensor::cat(&rows, 0)?)?;
    let centre = (names.mean_keepdim(0)? * CENTRED)?;
    Ok(names.broadcast_sub(&centre)?)
}
