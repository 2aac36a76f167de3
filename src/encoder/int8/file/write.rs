//! Writing a packed tower.

use std::io::{self, Write};
use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::header::{Body, Header, LAYOUT, Linear, Part, Patches, Sublayer, Table};
use super::{ALIGNMENT, MAGIC, PREFIX, VERSION, graph};
use crate::encoder::int8::patches::PatchEmbedding;
use crate::encoder::int8::sublayer;
use crate::encoder::int8::table::EmbeddingTable;

/// Parts, one after another.
#[derive(Default)]
struct Parts<'a> {
    parts: Vec<Cow<'a, [u8]>>,
    end: usize,
    /// Weights come first and in the order in which they are used, so that the last panel of a matrix
    /// is followed by the first of the next.
    weights: Vec<&'a [u8]>,
    weights_end: usize,
}

impl<'a> Parts<'a> {
    /// Leaves room for the weights.
    fn after(sublayers: &[Arc<sublayer::Sublayer>], patches: &[Arc<PatchEmbedding>]) -> Self {
        let of = |linear: &sublayer::Linear| linear.weights.packed().len();
        let sublayers = sublayers.iter().flat_map(|sublayer| match sublayer.body() {
            sublayer::Body::Attention(attention) => [of(&attention.qkv), of(&attention.out)],
            sublayer::Body::FeedForward(layers) => [of(&layers.up), of(&layers.down)],
        });
        let patches = patches.iter().map(|patches| of(patches.linear()));
        let lengths = sublayers.chain(patches);
        Self {
            end: lengths.map(|len| len.next_multiple_of(ALIGNMENT)).sum(),
            ..Self::default()
        }
    }

    fn bytes(&mut self, bytes: impl Into<Cow<'a, [u8]>>) -> Part {
        let bytes = bytes.into();
        let part = part(self.end, bytes.len());
        self.end = (self.end + bytes.len()).next_multiple_of(ALIGNMENT);
        self.parts.push(bytes);
        part
    }

    fn weights(&mut self, bytes: &'a [u8]) -> Part {
        let part = part(self.weights_end, bytes.len());
        self.weights_end = (self.weights_end + bytes.len()).next_multiple_of(ALIGNMENT);
        self.weights.push(bytes);
        part
    }

    fn floats(&mut self, values: &[f32]) -> Part {
        self.bytes(
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>(),
        )
    }

    fn linear(&mut self, linear: &'a sublayer::Linear) -> Linear {
        let sums = linear.weights.column_sums();
        let sums: Vec<u8> = sums.iter().flat_map(|v| v.to_le_bytes()).collect();
        Linear {
            n: linear.weights.n(),
            k: linear.weights.k(),
            weights: self.weights(linear.weights.packed()),
            scales: self.floats(linear.weights.scales()),
            column_sums: self.bytes(sums),
            bias: self.floats(&linear.bias),
        }
    }

    fn sublayer(&mut self, sublayer: &'a sublayer::Sublayer) -> Sublayer {
        let norm = sublayer.norm();
        Sublayer {
            norm: sublayer.placement().into(),
            epsilon: norm.epsilon,
            gamma: self.floats(&norm.gamma),
            beta: self.floats(&norm.beta),
            body: match sublayer.body() {
                sublayer::Body::Attention(attention) => Body::Attention {
                    heads: attention.heads,
                    dim: attention.dim,
                    scale: attention.scale,
                    causal: attention.causal,
                    masked: attention.masked,
                    qkv: self.linear(&attention.qkv),
                    out: self.linear(&attention.out),
                },
                sublayer::Body::FeedForward(layers) => Body::FeedForward {
                    activation: layers.activation.into(),
                    up: self.linear(&layers.up),
                    down: self.linear(&layers.down),
                },
            },
        }
    }

    fn patches(&mut self, embedding: &'a PatchEmbedding) -> Patches {
        let geometry = embedding.geometry();
        Patches {
            channels: geometry.channels,
            picture: geometry.picture,
            patch: geometry.patch,
            linear: self.linear(embedding.linear()),
        }
    }

    fn table(&mut self, table: &'a EmbeddingTable) -> Table {
        Table {
            rows: table.rows(),
            width: table.width(),
            codes: self.bytes(table.codes()),
            scales: self.bytes(table.scales()),
        }
    }
}

fn part(offset: usize, bytes: usize) -> Part {
    Part {
        offset: offset as u64,
        bytes: bytes as u64,
    }
}

/// Writes a recognised tower, whose result depends on the tower alone.
///
/// # Errors
/// An operator that has no NNEF form, by name; a failure of `out`.
pub fn write(model: &TypedModel, mut out: impl Write) -> TractResult<()> {
    let (nnef, fused) = graph::store(model)?;
    let mut parts = Parts::after(&fused.sublayers, &fused.patches);
    let header = Header {
        layout: LAYOUT.to_owned(),
        graph: parts.bytes(nnef),
        sublayers: fused.sublayers.iter().map(|s| parts.sublayer(s)).collect(),
        patches: fused.patches.iter().map(|p| parts.patches(p)).collect(),
        tables: fused.tables.iter().map(|t| parts.table(t)).collect(),
    };
    let mut json = serde_json::to_vec(&header)?;
    json.resize(
        (PREFIX + json.len()).next_multiple_of(ALIGNMENT) - PREFIX,
        b' ',
    );
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&u32::try_from(json.len())?.to_le_bytes())?;
    out.write_all(&json)?;
    let weights = parts.weights.iter().copied();
    for part in weights.chain(parts.parts.iter().map(|part| &**part)) {
        out.write_all(part)?;
        let rest = part.len().next_multiple_of(ALIGNMENT) - part.len();
        io::copy(&mut io::Read::take(io::repeat(0), rest as u64), &mut out)?;
    }
    out.flush()?;
    Ok(())
}
