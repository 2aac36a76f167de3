//! What was recognised, and which float products are left.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::Conv;
use tract_onnx::tract_core::ops::einsum::EinSum;

use super::block::{Block, Branch};

/// A sublayer that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Name of the node that gave its result.
    pub name: String,
    /// `attention` or `feed-forward`, and where it is normalised.
    pub kind: String,
    /// Multiplications with weights for one input.
    pub macs: u64,
    /// Whether it was left float as asked.
    pub kept_float: bool,
}

impl Found {
    pub(super) fn new(model: &TypedModel, block: &Block, kept_float: bool) -> Self {
        let what = match &block.branch {
            Branch::Attention { .. } => "attention",
            Branch::FeedForward { .. } => "feed-forward",
        };
        Self {
            name: model.node(block.output.node).name.clone(),
            kind: format!("{what}, {:?}-norm", block.placement).to_lowercase(),
            macs: block.macs(),
            kept_float,
        }
    }
}

/// Why a float product was not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A convolution that is no patch embedding.
    Convolution,
    /// A product with a constant matrix.
    Linear,
    /// A product of two tensors, such as those of an attention.
    Product,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Convolution => "a convolution",
            Self::Linear => "a linear layer outside a recognised sublayer",
            Self::Product => "a product of two tensors outside a recognised attention",
        })
    }
}

/// A float product that is still tract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its node.
    pub name: String,
    /// Why it was not replaced.
    pub reason: Reason,
    /// Multiplications for one input.
    pub macs: u64,
}

/// What [`recognise`](super::recognise) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sublayers, in the order in which they are evaluated.
    pub found: Vec<Found>,
    /// Multiplications of the patch embedding when it is in int8.
    pub patches_macs: u64,
    /// Float products that are left, in the order in which they are evaluated.
    pub left: Vec<Left>,
}

impl Report {
    /// Multiplications in int8 for one input.
    pub fn int8_macs(&self) -> u64 {
        let replaced = self.found.iter().filter(|found| !found.kept_float);
        replaced.map(|found| found.macs).sum::<u64>() + self.patches_macs
    }

    /// Whether something was found, and no product of two tensors is left, as it is of an attention
    /// that is not understood.
    pub fn is_whole(&self) -> bool {
        let open = |left: &Left| left.reason == Reason::Product;
        !self.found.is_empty() && !self.left.iter().any(open)
    }

    /// Multiplications in float for one input, those inside fused attention not counted.
    pub fn float_macs(&self) -> u64 {
        self.left.iter().map(|left| left.macs).sum()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let million = |macs: u64| macs.div_ceil(1_000_000);
        let int8 = self.found.iter().filter(|found| !found.kept_float).count();
        write!(
            f,
            "{int8} of {} sublayers in int8 ({} million multiplications), {} float products left ({} million)",
            self.found.len(),
            million(self.int8_macs()),
            self.left.len(),
            million(self.float_macs())
        )?;
        for left in &self.left {
            let Left { name, reason, macs } = left;
            write!(f, "\n  {name}: {reason}, {macs} multiplications")?;
        }
        Ok(())
    }
}

pub(super) fn left(model: &TypedModel, symbols: &SymbolValues) -> TractResult<Vec<Left>> {
    let mut left = Vec::new();
    for id in model.eval_order()? {
        let node = model.node(id);
        let inputs = model.node_input_facts(id)?;
        let reason = if node.op_is::<Conv>() {
            Reason::Convolution
        } else if node.op_is::<EinSum>() && inputs.iter().any(|fact| fact.konst.is_some()) {
            Reason::Linear
        } else if node.op_is::<EinSum>() {
            Reason::Product
        } else {
            continue;
        };
        let macs = node
            .op
            .cost(&inputs)?
            .iter()
            .filter(|(cost, _)| matches!(cost, Cost::FMA(_)))
            .filter_map(|(_, count)| u64::try_from(count.eval_to_i64(symbols).ok()?).ok())
            .sum();
        left.push(Left {
            name: node.name.clone(),
            reason,
            macs,
        });
    }
    Ok(left)
}
