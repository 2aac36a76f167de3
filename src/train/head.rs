//! From pooled features to the shared space.
//!
//! ```text
//! features [1280] ─┬─ linear 1024 ─ ReLU ─ linear D ──────────────┐
//!                  └─ ImageNet classifier ─ softmax ─ names [D] ──┴─ + ─► embedding [D]
//! ```
//!
//! The second branch places an image among the names of the 1000 things the tower was taught first
//! (convex combination of class embeddings: ConSE, Norouzi et al., ICLR 2014), so that everyday
//! things need no photo here. The first branch is trained on photos and on anchors of those things.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::{log_softmax, softmax};

use super::efficientnet::FEATURES;
use super::onnx::{self, Graph, Pretrained};
use super::targets::{Bank, EVERYDAY, unit_rows};

/// Width of the hidden layer.
pub const HIDDEN: usize = 1024;

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
        let everyday = softmax(&self.logits(features)?, D::Minus1)?.matmul(names)?;
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
        let y = graph.node(
            "Softmax",
            &[&y],
            "classifier.softmax",
            vec![onnx::int("axis", -1)],
        );
        let y = graph.node("MatMul", &[&y, &names], "everyday", Vec::new());
        Ok(graph.node("Add", &[&x, &y], "embedding", Vec::new()))
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

/// Mean embedding of every ImageNet class's texts, unit rows `[1000, D]`.
///
/// # Errors
/// candle's.
pub fn everyday_names(bank: &Bank, texts: &Tensor) -> Result<Tensor> {
    let mut rows = Vec::with_capacity(EVERYDAY);
    for id in 0..EVERYDAY {
        rows.push(super::targets::select(texts, bank.everyday_rows(id))?.mean(0)?);
    }
    Ok(unit_rows(&Tensor::stack(&rows, 0)?)?)
}
