//! How the towers themselves are learnt, where more than a map behind them is.

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use image::RgbImage;
use rand::rngs::StdRng;

use super::embed::{Known, STRENGTH};
use crate::train::augment;
use crate::train::tower::{Learn, Rank};

/// Random views of a photo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// The photo itself.
    Plain,
    /// Crop, warp, colours, blur: what a camera nearby might have seen.
    Mild,
    /// Those CLIP-Italian was trained on, see [`augment::clip_italian`].
    ClipItalian,
}

impl Views {
    /// One view with edges of `size_px`; `None` for the photo itself.
    pub fn draw(self, photo: &RgbImage, size_px: u32, mut rng: StdRng) -> Option<RgbImage> {
        match self {
            Self::Plain => None,
            Self::Mild => Some(augment::picture(photo, size_px, true, STRENGTH, &mut rng)),
            Self::ClipItalian => Some(augment::clip_italian(photo, size_px, &mut rng)),
        }
    }
}

impl Tuning {
    /// The views that something which is not learnt is run on once: a teacher where `taught`, or the
    /// daemon's engine on an image tower that stays as it is. `None`: every epoch has fresh ones.
    pub fn known(&self, taught: bool, count: u8, seed: u64) -> Option<Known> {
        let kind = self.views;
        let count = if kind == Views::Plain { 0 } else { count };
        (taught || !self.image).then_some(Known { kind, count, seed })
    }
}

/// What is multiplied where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// f32 on the processor.
    #[default]
    Cpu,
    /// Mixed precision on the first CUDA device: products in bf16; weights, normalisations,
    /// softmax, the loss and the optimizer in f32.
    Cuda,
}

impl Compute {
    /// Device and the kind that matrices are multiplied in.
    ///
    /// # Errors
    /// There is no such device, or this program was built without it.
    pub fn open(self) -> Result<(Device, DType)> {
        match self {
            Self::Cpu => Ok((Device::Cpu, DType::F32)),
            Self::Cuda if !candle_core::utils::cuda_is_available() => bail!(
                "this vedetta-train was built without CUDA; build it with --features \
                 train,candle-core/cuda,candle-nn/cuda where CUDA's toolkit is installed, or leave \
                 --device out"
            ),
            Self::Cuda => {
                let device = Device::new_cuda(0);
                Ok((device.context("CUDA device 0")?, DType::BF16))
            }
        }
    }
}

/// What is learnt of the towers, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// What.
    pub learn: Learn,
    /// Whether the image tower is.
    pub image: bool,
    /// Whether the text tower is.
    pub text: bool,
    /// Photos or texts that go through a tower together. A batch that is larger goes through twice
    /// ([`super::towers`]).
    pub chunk: usize,
    /// What is learnt from.
    pub views: Views,
    /// Epochs at the beginning in which the last products are learnt alone.
    pub frozen_epochs: usize,
    /// Highest learning rate of those.
    pub frozen_rate: f64,
    /// Where.
    pub compute: Compute,
}

impl Tuning {
    /// Low-rank adapters beside the matrices of attention and feed-forward parts.
    pub fn adapters(rank: Rank) -> Self {
        Self {
            learn: Learn::Adapters(rank),
            views: Views::Mild,
            ..Self::full()
        }
    }

    /// Every weight of both towers.
    pub fn full() -> Self {
        Self {
            learn: Learn::Everything,
            image: true,
            text: true,
            chunk: 16,
            views: Views::Mild,
            frozen_epochs: 0,
            frozen_rate: 0.0,
            compute: Compute::Cpu,
        }
    }

    /// CLIP-Italian's recipe, but for the number of epochs: the projections first, at 5e-5, then
    /// everything. Its other half is [`super::Options`]: AdaBelief, a rate of 1e-5, batches of 128.
    pub fn clip_italian(frozen_epochs: usize) -> Self {
        Self {
            views: Views::ClipItalian,
            frozen_epochs,
            frozen_rate: 5e-5,
            ..Self::full()
        }
    }
}
