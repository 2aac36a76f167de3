//! Weights by the names the towers ask for, whatever they are called in the file, and a record of
//! what has been taken: a tensor nobody asks for means that the model is another one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::checkpoint::{Checkpoint, Stored};
use super::drawn::Drawn;
use crate::train::onnx::layers::{Linear, Norm};

/// Names listed in one message at most.
const LISTED: usize = 8;

/// A tensor under a new name.
pub struct Renamed {
    /// What the towers call it.
    pub name: String,
    /// Where it lies.
    pub stored: Stored,
}

/// What becomes of a tensor of the file.
pub enum Fate {
    /// It is a buffer that can be computed.
    Ignored,
    /// It is asked for under these names.
    Renamed(Vec<Renamed>),
}

/// Weights that have not been taken yet.
pub struct Weights<'a> {
    origin: Origin<'a>,
    /// By the towers' names: the name in the file, and where it lies.
    left: BTreeMap<String, (String, Stored)>,
}

/// Where weights come from.
enum Origin<'a> {
    Checkpoint(&'a Checkpoint),
    Drawn(Box<Drawn>),
}

impl<'a> Weights<'a> {
    /// All tensors of `checkpoint`, renamed.
    ///
    /// # Errors
    /// A tensor that cannot be renamed, or two that get one name.
    pub fn new(
        checkpoint: &'a Checkpoint,
        rename: impl Fn(&str, &Stored) -> Result<Fate>,
    ) -> Result<Self> {
        let mut left = BTreeMap::new();
        for (source, stored) in checkpoint.tensors() {
            let fate = rename(source, stored).with_context(|| format!("tensor {source}"))?;
            let Fate::Renamed(all) = fate else { continue };
            for Renamed { name, stored } in all {
                if let Some((other, _)) = left.get(&name) {
                    bail!("tensors {other} and {source} both stand for {name}");
                }
                left.insert(name, (source.clone(), stored));
            }
        }
        Ok(Self {
            origin: Origin::Checkpoint(checkpoint),
            left,
        })
    }

    /// Random ones, of whatever shape is asked for.
    pub fn drawn(drawn: Drawn) -> Self {
        Self {
            origin: Origin::Drawn(Box::new(drawn)),
            left: BTreeMap::new(),
        }
    }

    /// Whether `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// Shape of `name`.
    ///
    /// # Errors
    /// It is missing.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        if let Origin::Drawn(drawn) = &self.origin {
            return drawn.shape(name).with_context(|| missing(name));
        }
        let (_, stored) = self.left.get(name).with_context(|| missing(name))?;
        Ok(&stored.shape)
    }

    /// Takes the elements of `name`, row-major.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or holds something that is not finite.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if let Origin::Drawn(drawn) = &mut self.origin {
            return Ok(drawn.table(shape));
        }
        let (source, stored) = self.left.remove(name).with_context(|| missing(name))?;
        self.read(&source, &stored, shape)
    }

    fn read(&self, source: &str, stored: &Stored, shape: &[usize]) -> Result<Vec<f32>> {
        ensure!(
            stored.shape == shape,
            "tensor {source} has shape {:?} where config.json asks for {shape:?}",
            stored.shape
        );
        let context = || format!("tensor {source}");
        let Origin::Checkpoint(checkpoint) = self.origin else {
            bail!("tensor {source} was not drawn")
        };
        let values = checkpoint.read(stored).with_context(context)?;
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            bail!(
                "tensor {source} holds {} at element {index}; the checkpoint is damaged",
                values[index]
            );
        }
        Ok(values)
    }

    /// Takes a scalar, of any shape with one element; `None` when it is not there.
    ///
    /// # Errors
    /// A tensor of several elements, or one that is not finite.
    pub fn scalar(&mut self, name: &str) -> Result<Option<f32>> {
        let Some((source, stored)) = self.left.remove(name) else {
            return Ok(None);
        };
        ensure!(
            stored.shape.iter().all(|n| *n == 1) && stored.shape.len() <= 1,
            "tensor {source} has shape {:?} where one number is expected",
            stored.shape
        );
        let shape = stored.shape.clone();
        Ok(self.read(&source, &stored, &shape)?.first().copied())
    }

    /// Takes `name.weight [outputs, inputs]`, as PyTorch has it, and `name.bias` when `biased`.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn linear(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        biased: bool,
    ) -> Result<Linear> {
        if let Origin::Drawn(drawn) = &mut self.origin {
            return Ok(drawn.linear(inputs, outputs, biased));
        }
        let weight = format!("{name}.weight");
        let (source, stored) = self
            .left
            .remove(&weight)
            .with_context(|| missing(&weight))?;
        ensure!(
            stored.shape == [outputs, inputs],
            "tensor {source} has shape {:?} where config.json asks for [{outputs}, {inputs}]",
            stored.shape
        );
        let transposed = stored.transposed();
        Ok(Linear {
            weight: self.read(&source, &transposed, &[inputs, outputs])?,
            inputs,
            outputs,
            bias: biased
                .then(|| self.take(&format!("{name}.bias"), &[outputs]))
                .transpose()?,
        })
    }

    /// Takes `name.weight [width]` and `name.bias [width]`.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn norm(&mut self, name: &str, width: usize, epsilon: f32) -> Result<Norm> {
        if let Origin::Drawn(_) = self.origin {
            return Ok(Norm {
                weight: vec![1.0; width],
                bias: vec![0.0; width],
                epsilon,
            });
        }
        Ok(Norm {
            weight: self.take(&format!("{name}.weight"), &[width])?,
            bias: self.take(&format!("{name}.bias"), &[width])?,
            epsilon,
        })
    }

    /// Everything has been taken.
    ///
    /// # Errors
    /// What nobody asked for.
    pub fn finish(self) -> Result<()> {
        if self.left.is_empty() {
            return Ok(());
        }
        let count = self.left.len();
        let mut names: Vec<&str> = self
            .left
            .values()
            .take(LISTED)
            .map(|(source, _)| source.as_str())
            .collect();
        if count > LISTED {
            names.push("…");
        }
        bail!(
            "{count} tensors that the model in config.json does not have: {}; \
             the checkpoint is another model's",
            names.join(", ")
        )
    }
}

fn missing(name: &str) -> String {
    format!("tensor {name} is missing; the checkpoint is incomplete, or another model's")
}
