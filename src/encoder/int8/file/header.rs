//! The header of a packed tower.

use serde::{Deserialize, Serialize};

use crate::encoder::int8::kernels::Activation;
use crate::encoder::int8::sublayer::Placement;

/// The only layout of weights there is.
pub const LAYOUT: &str = "n64k4";

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// From the end of the header, bytes, a multiple of 64.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`LAYOUT`].
    pub layout: String,
    /// The float rest of the tower, NNEF.
    pub graph: Part,
    /// Sublayers, as the graph counts them.
    pub sublayers: Vec<Sublayer>,
    /// Patch embeddings, as the graph counts them.
    pub patches: Vec<Patches>,
    /// Embedding tables, as the graph counts them.
    pub tables: Vec<Table>,
}

impl Header {
    /// Every linear layer.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let sublayers = self
            .sublayers
            .iter()
            .flat_map(|sublayer| match &sublayer.body {
                Body::Attention { qkv, out, .. } => [qkv, out],
                Body::FeedForward { up, down, .. } => [up, down],
            });
        sublayers.chain(self.patches.iter().map(|patches| &patches.linear))
    }
}

/// A linear layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Output channels.
    pub n: usize,
    /// Input channels.
    pub k: usize,
    /// Weights, s8 in the layout of the file.
    pub weights: Part,
    /// `[n] f32`: value of one step of a channel's weights.
    pub scales: Part,
    /// `[n] i32`: sums of a channel's weights.
    pub column_sums: Part,
    /// `[n] f32`.
    pub bias: Part,
}

/// A residual sublayer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sublayer {
    /// Whether the input or the sum is normalised.
    pub norm: Norm,
    /// ε of the normalisation.
    pub epsilon: f32,
    /// `[width] f32`.
    pub gamma: Part,
    /// `[width] f32`.
    pub beta: Part,
    /// What stands beside the residual.
    pub body: Body,
}

/// Where a sublayer is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Its input is.
    Pre,
    /// The sum is.
    Post,
}

/// What stands beside the residual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Body {
    /// Self attention.
    Attention {
        /// Number of heads.
        heads: usize,
        /// Channels of a head.
        dim: usize,
        /// Factor of the products of query and key.
        scale: f32,
        /// Whether a query sees no later key.
        causal: bool,
        /// Whether a mask is added to the scores.
        masked: bool,
        /// `[3 · heads · dim, width]`.
        qkv: Linear,
        /// `[width, heads · dim]`.
        out: Linear,
    },
    /// Two linear layers.
    FeedForward {
        /// Between them.
        activation: Function,
        /// `[hidden, width]`.
        up: Linear,
        /// `[width, hidden]`.
        down: Linear,
    },
}

/// An activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    /// None.
    None,
    /// GELU by the error function.
    Gelu,
    /// x · σ(1.702 x).
    QuickGelu,
    /// GELU by the hyperbolic tangent.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

/// A patch embedding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patches {
    /// Colour channels.
    pub channels: usize,
    /// Height and width of the picture, pixels.
    pub picture: [usize; 2],
    /// Height and width of a patch, pixels.
    pub patch: [usize; 2],
    /// `[n, channels · height · width]`.
    pub linear: Linear,
}

/// An embedding table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Rows.
    pub rows: usize,
    /// Values of a row.
    pub width: usize,
    /// `[rows, width] s8`.
    pub codes: Part,
    /// `[rows] f32`: value of one step of a row's codes.
    pub scales: Part,
}

impl From<Placement> for Norm {
    fn from(placement: Placement) -> Self {
        match placement {
            Placement::Pre => Self::Pre,
            Placement::Post => Self::Post,
        }
    }
}

impl From<Norm> for Placement {
    fn from(norm: Norm) -> Self {
        match norm {
            Norm::Pre => Self::Pre,
            Norm::Post => Self::Post,
        }
    }
}

impl From<Activation> for Function {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::None => Self::None,
            Activation::Gelu => Self::Gelu,
            Activation::QuickGelu => Self::QuickGelu,
            Activation::GeluTanh => Self::GeluTanh,
            Activation::Relu => Self::Relu,
            Activation::Tanh => Self::Tanh,
        }
    }
}

impl From<Function> for Activation {
    fn from(function: Function) -> Self {
        match function {
            Function::None => Self::None,
            Function::Gelu => Self::Gelu,
            Function::QuickGelu => Self::QuickGelu,
            Function::GeluTanh => Self::GeluTanh,
            Function::Relu => Self::Relu,
            Function::Tanh => Self::Tanh,
        }
    }
}
