//! Photos, the random views of them, and what a tower sees in those.

use anyhow::Result;
use candle_core::{Device, Tensor};
use image::RgbImage;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use super::Settings;
use crate::train::augment::{self, Strength};
use crate::train::contrast::Shows;
use crate::train::efficientnet::{Architecture, FEATURES, Workspace};
use crate::train::grocery::{Class, Photo, decode};
use crate::train::space::Examples;

/// Decoded photos.
pub struct Photos {
    pub(super) images: Vec<RgbImage>,
    /// What each shows.
    pub shows: Vec<Shows>,
    readable: Vec<bool>,
}

impl Photos {
    /// Decodes all of `list`.
    ///
    /// # Errors
    /// The first photo that cannot be decoded.
    pub fn load(list: &[Photo], classes: &[Class]) -> Result<Self> {
        let images = list
            .par_iter()
            .map(|p| decode(&p.path))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            images,
            shows: list
                .iter()
                .map(|p| Shows::Grocery {
                    fine: p.fine,
                    coarse: p.coarse,
                })
                .collect(),
            readable: list.iter().map(|p| classes[p.fine].packaged).collect(),
        })
    }

    fn view(&self, i: usize, size: usize, strength: Strength, rng: &mut StdRng) -> Vec<f32> {
        augment::view(&self.images[i], size, self.readable[i], strength, rng)
    }

    /// A random view, now and then blended with another photo's, and what it then shows.
    pub(super) fn mixed_view(
        &self,
        i: usize,
        settings: &Settings,
        rng: &mut StdRng,
    ) -> (Vec<f32>, Vec<(Shows, f32)>) {
        let size = settings.size_px;
        let mut pixels = self.view(i, size, settings.strength, rng);
        if !rng.random_bool(settings.mix) {
            return (pixels, vec![(self.shows[i], 1.0)]);
        }
        let j = rng.random_range(0..self.images.len());
        let other = self.view(j, size, settings.strength, rng);
        let share: f32 = if rng.random_bool(0.5) {
            let share = rng.random_range(0.0..0.5);
            for (p, o) in pixels.iter_mut().zip(&other) {
                *p += share * (o - *p);
            }
            share
        } else {
            paste(&mut pixels, &other, size, rng)
        };
        (
            pixels,
            vec![(self.shows[i], 1.0 - share), (self.shows[j], share)],
        )
    }
}

/// Copies a random rectangle of `other`, at most half the area (CutMix, Yun et al., ICCV 2019);
/// returns its share of the area.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions inside an image"
)]
fn paste(pixels: &mut [f32], other: &[f32], size: usize, rng: &mut impl Rng) -> f32 {
    let share: f32 = rng.random_range(0.0..0.5);
    let edge = ((share.sqrt() * size as f32) as usize).clamp(1, size);
    let (x, y) = (
        rng.random_range(0..=size - edge),
        rng.random_range(0..=size - edge),
    );
    for row in y..y + edge {
        let span = (row * size + x) * 3..(row * size + x + edge) * 3;
        pixels[span.clone()].copy_from_slice(&other[span]);
    }
    (edge * edge) as f32 / (size * size) as f32
}

/// Pooled features of `views` random views (or of the centre view alone when 0) of every photo,
/// `[photos · max(views, 1), 1280]`, photo by photo.
///
/// # Errors
/// candle's.
pub fn features(
    parameters: &[f32],
    photos: &Photos,
    size_px: usize,
    views: usize,
    strength: Strength,
    seed: u64,
    progress: &indicatif::ProgressBar,
) -> Result<Examples> {
    let net = Architecture::lite0();
    let per_photo = views.max(1);
    progress.set_length((photos.images.len() * per_photo) as u64);
    let rows: Vec<Vec<f32>> = (0..photos.images.len() * per_photo)
        .into_par_iter()
        .map_init(Workspace::default, |space, i| {
            let photo = i / per_photo;
            let pixels = if views == 0 {
                augment::centre_view(&photos.images[photo], size_px)
            } else {
                let mut rng =
                    StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(i as u64));
                photos.view(photo, size_px, strength, &mut rng)
            };
            net.forward(parameters, 0..net.layers.len(), &pixels, size_px, space);
            progress.inc(1);
            space.pooled(FEATURES)
        })
        .collect();
    let count = rows.len();
    Ok(Examples {
        features: Tensor::from_vec(rows.concat(), (count, FEATURES), &Device::Cpu)?,
        shows: (0..count).map(|i| photos.shows[i / per_photo]).collect(),
    })
}
