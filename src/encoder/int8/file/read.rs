//! Reading a packed tower.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Weak};

use tract_onnx::tract_core::internal::*;

use super::graph::{self, Fused};
use super::header::{Body, Header, LAYOUT, Linear, Part, Patches, Sublayer, Table};
use super::{ALIGNMENT, MAGIC, MAX_HEADER_BYTES, PREFIX, Relocation, VERSION};
use crate::bundle::Shared;
use crate::encoder::EncodeError;
use crate::encoder::int8::kernels::{Bytes, Context, Movable, PackedMatrix};
use crate::encoder::int8::patches::{Geometry, PatchEmbedding};
use crate::encoder::int8::sublayer::{self, LayerNorm};
use crate::encoder::int8::table::EmbeddingTable;
use crate::encoder::tract::graph::guarded;

/// A file whose header was read.
struct File {
    shared: Shared,
    /// Where the parts start.
    start: usize,
    /// Weights that were looked at: where they lie, in this order, and what moves them.
    weights: RefCell<Vec<(Range<usize>, Weak<Movable>)>>,
}

/// Reads a packed tower, whose weights and embedding tables are used where they lie in `file`; where
/// the weights would be better off elsewhere, there is something to start that brings them there.
///
/// # Errors
/// A file of another format or version, or one whose parts do not fit.
pub fn read(
    file: Shared,
    context: &Arc<Context>,
) -> Result<(TypedModel, Option<Relocation>), EncodeError> {
    guarded("reading a packed tower", || {
        let (header, opened) = open(Arc::clone(&file))?;
        let (graph, fused) = contents(&header, &opened)?;
        let model = graph::restore(&(*file).as_ref()[graph], &fused, context)?;
        Ok((model, Relocation::new(&file, opened.weights.into_inner())))
    })
}

/// Checks everything but the graph of a packed tower, for which tract is asked.
///
/// # Errors
/// A file of another format or version, or one whose parts do not fit.
pub fn check(file: &Shared) -> Result<(), String> {
    open(Arc::clone(file))
        .and_then(|(header, opened)| contents(&header, &opened))
        .map(drop)
        .map_err(|error| format!("{error:#}"))
}

/// Where the graph lies, and what is fused.
fn contents(header: &Header, file: &File) -> TractResult<(Range<usize>, Fused)> {
    let sublayers = header.sublayers.iter().enumerate();
    let sublayers = sublayers
        .map(|(i, s)| file.sublayer(s).with_context(|| format!("sublayer {i}")))
        .collect::<TractResult<_>>()?;
    let patches = header.patches.iter();
    let patches = patches
        .map(|p| file.patches(p).context("the patch embedding"))
        .collect::<TractResult<_>>()?;
    let tables = header.tables.iter();
    let tables = tables
        .map(|t| file.table(t).context("an embedding table"))
        .collect::<TractResult<_>>()?;
    let fused = Fused {
        sublayers,
        patches,
        tables,
    };
    Ok((file.range(header.graph)?, fused))
}

fn open(shared: Shared) -> TractResult<(Header, File)> {
    let bytes = (*shared).as_ref();
    let Some((prefix, rest)) = bytes.split_at_checked(PREFIX) else {
        bail!("is {} bytes long: not a packed tower", bytes.len());
    };
    ensure!(prefix[..8] == MAGIC, "is not a packed tower");
    let number = |at: usize| {
        u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
    };
    ensure!(
        number(8) == VERSION,
        "has version {} where {VERSION} is known; quantize again with this version",
        number(8)
    );
    let size = usize::try_from(number(12))?;
    ensure!(
        size <= MAX_HEADER_BYTES,
        "a header of {size} bytes is too long"
    );
    let header = rest.get(..size).context("is cut off in its header")?;
    let header: Header = serde_json::from_slice(header).context("its header cannot be read")?;
    let start = PREFIX + size;
    ensure!(start.is_multiple_of(ALIGNMENT), "a header of {size} bytes");
    ensure!(
        header.layout == LAYOUT,
        "weights in layout {:?} where {LAYOUT:?} is known; quantize again with this version",
        header.layout
    );
    let weights = RefCell::default();
    Ok((
        header,
        File {
            shared,
            start,
            weights,
        },
    ))
}

impl File {
    fn range(&self, part: Part) -> TractResult<Range<usize>> {
        let whole = (*self.shared).as_ref().len();
        let place = || {
            let from = usize::try_from(part.offset).ok()?.checked_add(self.start)?;
            let to = from.checked_add(usize::try_from(part.bytes).ok()?)?;
            (from.is_multiple_of(ALIGNMENT) && to <= whole).then_some(from..to)
        };
        place().with_context(|| format!("{part:?} does not lie in a file of {whole} bytes"))
    }

    fn part(&self, part: Part) -> TractResult<&[u8]> {
        let range = self.range(part)?;
        Ok(&(*self.shared).as_ref()[range])
    }

    /// A part that stays where it is.
    fn view(&self, part: Part) -> TractResult<Bytes> {
        let view = Bytes::shared(Arc::clone(&self.shared) as _, self.range(part)?);
        view.context("a part outside the file")
    }

    /// A part that may be moved.
    fn movable(&self, part: Part) -> TractResult<Bytes> {
        let (view, handle) = self.view(part)?.movable();
        let place = self.range(part)?;
        self.weights.borrow_mut().push((place, handle));
        Ok(view)
    }

    fn words(&self, part: Part, count: usize) -> TractResult<impl Iterator<Item = [u8; 4]>> {
        let bytes = self.part(part)?;
        let (words, rest) = bytes.as_chunks::<4>();
        ensure!(
            rest.is_empty() && words.len() == count,
            "{} bytes where {count} numbers are expected",
            bytes.len()
        );
        Ok(words.iter().copied())
    }

    fn floats(&self, part: Part, count: usize) -> TractResult<Vec<f32>> {
        Ok(self.words(part, count)?.map(f32::from_le_bytes).collect())
    }

    fn linear(&self, linear: &Linear) -> TractResult<sublayer::Linear> {
        let (n, k) = (linear.n, linear.k);
        let packed = self.movable(linear.weights)?;
        let scales = self.floats(linear.scales, n)?;
        ensure!(
            scales.iter().all(|s| s.is_finite()),
            "a scale is not finite"
        );
        let sums = self.words(linear.column_sums, n)?;
        let sums = sums.map(i32::from_le_bytes).collect();
        Ok(sublayer::Linear {
            weights: PackedMatrix::from_trusted_parts(n, k, packed, scales, sums)?,
            bias: self.floats(linear.bias, n)?,
        })
    }

    fn sublayer(&self, header: &Sublayer) -> TractResult<Arc<sublayer::Sublayer>> {
        let body = match &header.body {
            Body::Attention {
                heads,
                dim,
                scale,
                causal,
                masked,
                qkv,
                out,
            } => sublayer::Body::Attention(sublayer::Attention {
                qkv: self.linear(qkv)?,
                out: self.linear(out)?,
                heads: *heads,
                dim: *dim,
                scale: *scale,
                causal: *causal,
                masked: *masked,
            }),
            Body::FeedForward {
                activation,
                up,
                down,
            } => sublayer::Body::FeedForward(sublayer::FeedForward {
                up: self.linear(up)?,
                activation: (*activation).into(),
                down: self.linear(down)?,
            }),
        };
        let width = match &header.body {
            Body::Attention { qkv, .. } => qkv.k,
            Body::FeedForward { up, .. } => up.k,
        };
        let norm = LayerNorm {
            gamma: self.floats(header.gamma, width)?,
            beta: self.floats(header.beta, width)?,
            epsilon: header.epsilon,
        };
        let sublayer = sublayer::Sublayer::new(norm, header.norm.into(), body);
        Ok(Arc::new(sublayer.map_err(TractError::msg)?))
    }

    fn patches(&self, header: &Patches) -> TractResult<Arc<PatchEmbedding>> {
        let geometry = Geometry {
            channels: header.channels,
            picture: header.picture,
            patch: header.patch,
        };
        let embedding = PatchEmbedding::new(self.linear(&header.linear)?, geometry);
        Ok(Arc::new(embedding.map_err(TractError::msg)?))
    }

    fn table(&self, header: &Table) -> TractResult<Arc<EmbeddingTable>> {
        let (codes, scales) = (self.view(header.codes)?, self.view(header.scales)?);
        let table = EmbeddingTable::from_parts(header.rows, header.width, codes, scales);
        Ok(Arc::new(table.map_err(TractError::msg)?))
    }
}
