//! Writing a packed tower.

use std::io::{self, Write};

use tract_onnx::tract_core::internal::*;

use super::header::{Body, Header, LAYOUT, Linear, Part, Patches, Sublayer};
use super::{ALIGNMENT, MAGIC, PREFIX, VERSION, graph};
use crate::encoder::int8::patches::PatchEmbedding;
use crate::encoder::int8::sublayer;

/// The parts, one after another.
#[derive(Default)]
struct Parts<'a> {
    parts: Vec<Cow<'a, [u8]>>,
    end: usize,
}

impl<'a> Parts<'a> {
    fn bytes(&mut self, bytes: impl Into<Cow<'a, [u8]>>) -> Part {
        let bytes = bytes.into();
        let part = Part {
            offset: self.end as u64,
            bytes: bytes.len() as u64,
        };
        self.end = (self.end + bytes.len()).next_multiple_of(ALIGNMENT);
        self.parts.push(bytes);
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
            weights: self.bytes(linear.weights.packed()),
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
}

/// Writes a recognised tower, whose result depends on the tower alone.
///
/// # Errors
/// An operator that has no NNEF form, by name; a failure of `out`.
pub fn write(model: &TypedModel, mut out: impl Write) -> TractResult<()> {
    let stored = graph::store(model)?;
    let mut parts = Parts::default();
    let header = Header {
        layout: LAYOUT.to_owned(),
        graph: parts.bytes(stored.nnef),
        sublayers: stored.sublayers.iter().map(|s| parts.sublayer(s)).collect(),
        patches: stored.patches.iter().map(|p| parts.patches(p)).collect(),
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
    for part in &parts.parts {
        out.write_all(part)?;
        let rest = part.len().next_multiple_of(ALIGNMENT) - part.len();
        io::copy(&mut io::Read::take(io::repeat(0), rest as u64), &mut out)?;
    }
    out.flush()?;
    Ok(())
}
