//! Random weights, for towers that are made from nothing.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::train::onnx::layers::Linear;

/// Standard deviation of tables of embeddings, as BERT and CLIP begin with.
const TABLE: f32 = 0.02;

/// Draws weights in the order in which they are asked for.
pub struct Drawn {
    rng: StdRng,
    shapes: BTreeMap<&'static str, Vec<usize>>,
}

impl Drawn {
    /// `shapes` are those that are asked for before the weights are: sizes of tables.
    pub fn new(seed: u64, shapes: BTreeMap<&'static str, Vec<usize>>) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            shapes,
        }
    }

    /// The shape of a table.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// A table of embeddings, or the kernel `[outputs, 3, edge, edge]` of patches.
    pub fn table(&mut self, dims: &[usize]) -> Vec<f32> {
        let deviation = match dims {
            [_, inputs @ ..] if dims.len() == 4 => of_inputs(inputs.iter().product()),
            _ => TABLE,
        };
        self.values(dims.iter().product(), deviation)
    }

    /// A product whose results vary as its inputs do (LeCun et al., 1998), and a bias of 0.
    pub fn linear(&mut self, inputs: usize, outputs: usize, biased: bool) -> Linear {
        Linear {
            weight: self.values(inputs * outputs, of_inputs(inputs)),
            inputs,
            outputs,
            bias: biased.then(|| vec![0.0; outputs]),
        }
    }

    /// Uniform, with this standard deviation.
    fn values(&mut self, count: usize, deviation: f32) -> Vec<f32> {
        let bound = 3f32.sqrt() * deviation;
        (0..count)
            .map(|_| self.rng.random_range(-bound..bound))
            .collect()
    }
}

/// `1/√inputs`.
#[expect(clippy::cast_precision_loss, reason = "a width")]
fn of_inputs(inputs: usize) -> f32 {
    1.0 / (inputs.max(1) as f32).sqrt()
}
