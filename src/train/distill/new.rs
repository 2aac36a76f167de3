//! Towers that are made from nothing: CLIP's vision transformer, and BERT.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use prost::Message;
use tract_onnx::pb::ModelProto;

use super::inherit::{Inherited, inherit};
use crate::bundle::Bundle;
use crate::encoder::TextInput;
use crate::train::import::config::{Text, Transformer, Vision};
use crate::train::import::drawn::Drawn;
use crate::train::import::towers::{bert, vit};
use crate::train::import::weights::Weights;
use crate::train::onnx::layers::{Activation, Heads};
use crate::train::onnx::{self, Model, Store};

/// Edge of a patch where none is given, pixels.
const PATCH_PX: usize = 32;

/// Widest layer.
const MAX_WIDTH: usize = 4096;

/// Most layers.
const MAX_LAYERS: usize = 48;

/// Sizes of a new tower: `WIDTHxLAYERSxHEADS`, and `/PATCH` for images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Width of the residual stream.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Edge of a patch, pixels.
    pub patch_px: Option<usize>,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let legal = || {
            format!(
                "{text:?} is no size; write WIDTHxLAYERSxHEADS, for images also \
                 WIDTHxLAYERSxHEADS/PATCH, as 256x4x4/16"
            )
        };
        let (sizes, patch) = match text.split_once('/') {
            Some((sizes, patch)) => (sizes, Some(patch.parse().map_err(|_| legal())?)),
            None => (text, None),
        };
        let numbers: Result<Vec<usize>, _> = sizes.split('x').map(str::parse).collect();
        let [width, layers, heads] = numbers.map_err(|_| legal())?[..] else {
            return Err(legal());
        };
        let size = Self {
            width,
            layers,
            heads,
            patch_px: patch,
        };
        size.check().map_err(|error| format!("{text}: {error}"))?;
        Ok(size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.width, self.layers, self.heads)?;
        match self.patch_px {
            Some(patch) => write!(f, "/{patch}"),
            None => Ok(()),
        }
    }
}

impl Size {
    fn check(&self) -> Result<()> {
        ensure!(
            (8..=MAX_WIDTH).contains(&self.width),
            "a width of {}; legal: 8 to {MAX_WIDTH}",
            self.width
        );
        ensure!(
            (1..=MAX_LAYERS).contains(&self.layers),
            "{} layers; legal: 1 to {MAX_LAYERS}",
            self.layers
        );
        ensure!(
            self.heads > 0 && self.width.is_multiple_of(self.heads),
            "{} heads do not divide a width of {}",
            self.heads,
            self.width
        );
        ensure!(self.patch_px != Some(0), "a patch of nothing");
        Ok(())
    }

    /// The layers. Activation, ε and the width of the feed-forward parts are the teacher's, where that
    /// has one of this family.
    fn transformer(&self, teacher: &Teacher, usual: Usual) -> Transformer {
        let hidden = |name: &str| teacher.weights.as_ref()?.get(name).ok();
        let hidden = hidden(usual.first).and_then(|(dims, _)| match dims {
            [width, hidden] if *width == self.width => Some(*hidden),
            _ => None,
        });
        Transformer {
            width: self.width,
            hidden: hidden.unwrap_or(4 * self.width),
            layers: self.layers,
            heads: Heads {
                count: self.heads,
                width: self.width / self.heads,
            },
            activation: teacher.activation.unwrap_or(usual.activation),
            epsilon: teacher.epsilon.unwrap_or(usual.epsilon),
        }
    }
}

/// What a family has where the teacher is of another.
struct Usual {
    /// A weight `[width, hidden]` of the first layer, by which the family is known.
    first: &'static str,
    activation: Activation,
    epsilon: f32,
}

/// What a teacher's graph can say.
struct Teacher {
    weights: Option<onnx::Weights>,
    activation: Option<Activation>,
    epsilon: Option<f32>,
}

impl Teacher {
    /// Reads the graph `name`; a tower that is packed says nothing.
    fn read(bundle: &Bundle, name: &str, first: &str) -> Result<Self> {
        let mut teacher = Self {
            weights: None,
            activation: None,
            epsilon: None,
        };
        let Some(listed) = bundle.manifest().files.get(name) else {
            return Ok(teacher);
        };
        let bytes = bundle.read(name, listed.bytes)?;
        let weights = onnx::Weights::read(&bytes).with_context(|| name.to_owned())?;
        if weights.get(first).is_err() {
            return Ok(teacher);
        }
        teacher.weights = Some(weights);
        let model = ModelProto::decode(&bytes[..]).context("no ONNX file")?;
        let nodes = model.graph.map(|graph| graph.node).unwrap_or_default();
        let has = |op: &str| nodes.iter().any(|node| node.op_type == op);
        teacher.activation = Some(match () {
            () if has("Erf") => Activation::Gelu,
            () if has("Sigmoid") => Activation::QuickGelu,
            () if has("Pow") => Activation::GeluTanh,
            () => Activation::Relu,
        });
        let norm = nodes.iter().find(|n| n.op_type == "LayerNormalization");
        let epsilon = norm.and_then(|n| n.attribute.iter().find(|a| a.name == "epsilon"));
        teacher.epsilon = epsilon.map(|a| a.f);
        Ok(teacher)
    }

    fn teach(&self, model: Model) -> Result<(Model, Option<Inherited>)> {
        match &self.weights {
            Some(weights) => {
                let (model, inherited) = inherit(model, weights)?;
                Ok((model, Some(inherited)))
            }
            None => Ok((model, None)),
        }
    }
}

/// A new image tower into the teacher's space, for pictures prepared as the teacher's.
///
/// # Errors
/// Sizes that do not go together, or a teacher that cannot be read.
pub fn image(
    size: &Size,
    teacher: &Bundle,
    store: Store,
    seed: u64,
) -> Result<(Model, Option<Inherited>)> {
    size.check()?;
    let usual = Usual {
        first: "vision.encoder.layers.0.mlp.fc1.weight",
        activation: Activation::QuickGelu,
        epsilon: 1e-5,
    };
    let manifest = teacher.manifest();
    let (size_px, patch_px) = (manifest.image.size_px, size.patch_px.unwrap_or(PATCH_PX));
    ensure!(
        (1..=size_px).contains(&patch_px),
        "patches of {patch_px} pixels in a picture of {size_px}"
    );
    let graph = Teacher::read(teacher, "image.onnx", usual.first)?;
    let vision = Vision {
        transformer: size.transformer(&graph, usual),
        size_px,
        patch_px,
    };
    let mut weights = Weights::drawn(Drawn::new(seed, BTreeMap::new()));
    graph.teach(vit::clip(
        &mut weights,
        &vision,
        manifest.embedding_dim,
        store,
    )?)
}

/// A new text tower into the teacher's space, for tokens of the teacher's tokenizer. It ends as the
/// teacher does where that is a BERT with a pooler, otherwise in the mean of the tokens.
///
/// # Errors
/// As [`image()`].
pub fn text(
    size: &Size,
    teacher: &Bundle,
    store: Store,
    seed: u64,
) -> Result<(Model, Option<Inherited>)> {
    size.check()?;
    ensure!(
        size.patch_px.is_none(),
        "a text tower has no patches; write {}x{}x{}",
        size.width,
        size.layers,
        size.heads
    );
    let usual = Usual {
        first: "text.encoder.layer.0.intermediate.dense.weight",
        activation: Activation::Gelu,
        epsilon: 1e-12,
    };
    let manifest = teacher.manifest();
    let graph = Teacher::read(teacher, "text.onnx", usual.first)?;
    let vocabulary = TextInput::load(teacher)?.vocabulary();
    let words = |name: &str| graph.weights.as_ref()?.get(name).ok();
    let rows = words("text.words").map_or(0, |(dims, _)| dims[0]);
    let shapes = BTreeMap::from([
        (
            "text.embeddings.word_embeddings.weight",
            vec![rows.max(vocabulary), size.width],
        ),
        (
            "text.embeddings.token_type_embeddings.weight",
            vec![1, size.width],
        ),
    ]);
    let mut weights = Weights::drawn(Drawn::new(seed, shapes));
    let pooled = words("text.pooler.dense.weight").is_some();
    let first = if pooled {
        0
    } else {
        bert::ROBERTA_FIRST_POSITION
    };
    let sizes = Text {
        transformer: size.transformer(&graph, usual),
        positions: manifest.text.max_tokens + first,
        eos_id: None,
        pad_id: Some(manifest.text.pad_id),
    };
    let dim = manifest.embedding_dim;
    let model = if pooled {
        bert::pooled(&mut weights, &sizes, dim, store)?
    } else {
        let biased = bert::Projection::Biased;
        bert::mean(&mut weights, &sizes, dim, biased, store)?
    };
    graph.teach(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_checked() {
        let size: Size = "256x4x8/16".parse().unwrap();
        assert_eq!(size.to_string(), "256x4x8/16");
        assert_eq!((size.width, size.layers, size.heads), (256, 4, 8));
        for wrong in [
            "256",
            "256x4",
            "256x4x3",
            "0x4x1",
            "256x0x8",
            "256x4x8/",
            "256x4x8/0",
            "256x4x0",
            "256x1000x8",
            "x4x8",
            "99999999999999999999x1x1",
        ] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
