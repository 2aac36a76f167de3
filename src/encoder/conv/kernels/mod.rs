//! Float convolution kernels for towers of the MobileNet and EfficientNet-Lite families.
//!
//! **Layout.** Activations are *blocked*: `[C / LANES, H, W, LANES] f32`, the last block padded with
//! channels that are zero. A pixel of a block is one cache line, pixels of a row are neighbours, and
//! a zero border is just more pixels: what vectorises is always the same 16 channels.
//!
//! **Instruction sets.** Each kernel is written once over [`Register`] and instantiated for AVX-512,
//! AVX2 with FMA, SSE2 and NEON; [`Kernels::best`] picks at run time. All but SSE2, which has no
//! fused multiply–add, give the same bits: the order of every sum is fixed and no tile size, thread
//! count or instruction set changes it.
//!
//! This module uses nothing but the standard library.

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub mod buffer;
pub mod dense;
pub mod depthwise;
mod isa;
pub mod layout;
pub mod register;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use dense::{Run, Tile};
pub use depthwise::DepthwiseRow;
pub use register::Register;

/// Channels in a block.
pub const LANES: usize = 16;

/// Computes one [`Tile`] of a fixed number of pixels and blocks.
pub type TileKernel = unsafe fn(&Tile<'_>);

/// Computes one [`DepthwiseRow`] of a fixed kernel size and stride.
pub type RowKernel = unsafe fn(&DepthwiseRow);

/// Floats between the origins of neighbouring pixels that [`dense`] is instantiated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Planes, stride 1.
    One,
    /// Planes, stride 2.
    Two,
    /// Blocks, stride 1.
    Block,
    /// Blocks, stride 2.
    TwoBlocks,
}

impl Step {
    /// The step of a convolution with `stride` over planes or over blocks; `None` when there is no
    /// kernel for it.
    pub fn of(planes: bool, stride: usize) -> Option<Self> {
        match (planes, stride) {
            (true, 1) => Some(Self::One),
            (true, 2) => Some(Self::Two),
            (false, 1) => Some(Self::Block),
            (false, 2) => Some(Self::TwoBlocks),
            _ => None,
        }
    }

    /// Floats.
    pub fn floats(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Block => LANES,
            Self::TwoBlocks => 2 * LANES,
        }
    }
}

/// Weights to prefetch while others are used, `per_tile` floats with each tile.
#[derive(Clone, Debug)]
pub struct Ahead<'a> {
    /// What is left to prefetch.
    pub weights: &'a [f32],
    /// [`LANES`] for each value that a tile sums.
    pub per_tile: usize,
}

impl Ahead<'_> {
    /// Where the next tile begins to prefetch: `hot` weights, which costs little, when all is done.
    fn next(&mut self, hot: *const f32) -> *const f32 {
        if self.weights.is_empty() {
            return hot;
        }
        let (now, later) = self.weights.split_at(self.per_tile.min(self.weights.len()));
        self.weights = later;
        now.as_ptr()
    }
}

/// The kernels of one instruction set.
pub struct Kernels {
    /// Instruction set.
    pub name: &'static str,
    /// See [`Register::FUSED`].
    #[cfg_attr(not(test), expect(dead_code, reason = "says which bits to expect"))]
    pub fused: bool,
    /// By [`Step`], blocks − 1, pixels − 1.
    dense: [&'static [&'static [TileKernel]]; 4],
    /// By kernel size (3, 5), stride (1, 2).
    depthwise: [[RowKernel; 2]; 2],
}

impl Kernels {
    /// The fastest set this CPU has.
    pub fn best() -> &'static Self {
        isa::available()[0]
    }

    /// All sets this CPU has, fastest first.
    #[cfg(test)]
    pub fn available() -> Vec<&'static Self> {
        isa::available()
    }

    /// Splits `blocks` of output channels into panels, blocks of each. Where a panel may have three,
    /// pairs are preferred (their tiles are the tallest) and three take the odd block.
    pub fn panels(&self, step: Step, blocks: usize) -> Vec<usize> {
        let most = self.dense[step as usize].len();
        let mut panels = Vec::new();
        let mut left = blocks;
        while left > 0 {
            let panel = match (most, left) {
                (3, 3) => 3,
                (3, _) => left.min(2),
                _ => left.min(most),
            };
            panels.push(panel);
            left -= panel;
        }
        panels
    }

    /// Computes `pixels` neighbours: `row` describes the first of them. Tiles are as equal as can be.
    ///
    /// # Safety
    /// As [`dense::tile`] for `pixels` and for `blocks·LANES` output channels.
    ///
    /// # Panics
    /// With `blocks` that [`Kernels::panels`] does not give.
    pub unsafe fn dense_row(
        &self,
        row: &Tile<'_>,
        (step, blocks, pixels): (Step, usize, usize),
        ahead: &mut Ahead<'_>,
    ) {
        let kernels = self.dense[step as usize][blocks - 1];
        let tiles = pixels.div_ceil(kernels.len());
        let mut tile = *row;
        let mut done = 0;
        for i in 0..tiles {
            let end = pixels * (i + 1) / tiles;
            let take = end - done;
            // SAFETY: the tile covers pixels done..end of what the caller vouches for.
            unsafe {
                tile.src = row.src.add(done * step.floats());
                tile.dst = row.dst.add(done * LANES);
                if !row.residual.is_null() {
                    tile.residual = row.residual.add(done * LANES);
                }
                tile.ahead = ahead.next(row.weights);
                kernels[take - 1](&tile);
            }
            done = end;
        }
    }

    /// The depthwise kernel for `size`×`size` taps, if there is one.
    pub fn depthwise(&self, size: usize, stride: usize) -> Option<RowKernel> {
        let size = [3, 5].iter().position(|s| *s == size)?;
        let stride = [1, 2].iter().position(|s| *s == stride)?;
        Some(self.depthwise[size][stride])
    }
}
