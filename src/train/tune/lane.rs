//! A share of every step: its chunks of photos go through the tower one after the other.

use rand::{SeedableRng, rngs::StdRng};

use super::{CHUNK, Photos, Settings};
use crate::train::efficientnet::{Architecture, FEATURES, Scratch, Workspace};
use crate::train::fitting::Shown;

/// One lane's share of a step, kept from the way forward to the way back.
#[derive(Default)]
pub(super) struct Lane {
    chunks: Vec<Workspace>,
    frozen: Workspace,
    published: Workspace,
    scratch: Scratch,
    /// Of the trained parameters, summed over the lane's photos.
    pub gradient: Vec<f32>,
    /// Pooled, one row of 1280 per photo.
    pub features: Vec<f32>,
    /// What each row shows.
    pub goals: Shown,
    /// Features of the published tower for the lane's first chunk.
    pub reference: Vec<f32>,
}

impl Lane {
    /// Makes views of `photos`, runs the tower and keeps what the way back needs.
    #[expect(clippy::too_many_arguments, reason = "each is its own thing")]
    pub fn forward(
        &mut self,
        net: &Architecture,
        published: &[f32],
        parameters: &[f32],
        photos: &Photos,
        batch: &[usize],
        settings: &Settings,
        seed: u64,
    ) {
        let first = net.first_layer(settings.first_block);
        let trained = first..net.layers.len();
        self.features.clear();
        self.goals.clear();
        self.reference.clear();
        self.chunks
            .resize_with(batch.len().div_ceil(CHUNK), Workspace::default);
        for (number, chunk) in batch.chunks(CHUNK).enumerate() {
            let mut middle = Vec::new();
            let mut side = 0;
            for photo in chunk {
                let mut rng = StdRng::seed_from_u64(seed.wrapping_add(*photo as u64));
                let (pixels, goal) = photos.mixed_view(*photo, settings, &mut rng);
                self.goals.push(goal);
                net.forward(
                    published,
                    0..first,
                    &pixels,
                    settings.size_px,
                    &mut self.frozen,
                );
                let (output, output_side) = self.frozen.output();
                middle.extend_from_slice(output);
                side = output_side;
            }
            let space = &mut self.chunks[number];
            net.forward(parameters, trained.clone(), &middle, side, space);
            self.features.extend(space.pooled(FEATURES));
            if number == 0 && settings.distill > 0.0 {
                net.forward(
                    published,
                    trained.clone(),
                    &middle,
                    side,
                    &mut self.published,
                );
                self.reference = self.published.pooled(FEATURES);
            }
        }
    }

    /// The gradient of the trained parameters, given that of the features.
    pub fn backward(
        &mut self,
        net: &Architecture,
        parameters: &[f32],
        gradient: &[f32],
        first: usize,
    ) {
        let trained = first..net.layers.len();
        self.gradient.clear();
        self.gradient
            .resize(net.parameters - net.first_parameter(first), 0.0);
        for (space, gradient) in self.chunks.iter().zip(gradient.chunks(CHUNK * FEATURES)) {
            let gradient = space.unpool(gradient, FEATURES);
            net.backward(
                parameters,
                trained.clone(),
                &gradient,
                &mut self.gradient,
                space,
                &mut self.scratch,
            );
        }
    }
}

/// For every trained parameter how far one step may move it: the root mean square of its output
/// channel's published weights (folding batch normalisation left channels of very different
/// sizes), times the block's share.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "layer widths"
)]
pub(super) fn rates(net: &Architecture, published: &[f32], first: usize, decay: f32) -> Vec<f32> {
    let base = net.first_parameter(first);
    let mut rates = vec![0.0; net.parameters - base];
    let last = net.layers.last().map_or(0, |l| l.block);
    for layer in &net.layers[first..] {
        let share = decay.powi((last - layer.block) as i32);
        let weight = &published[layer.weight.clone()];
        let n = layer.outputs;
        let mut squares = vec![0.0f32; n];
        for row in weight.chunks_exact(n) {
            for (s, w) in squares.iter_mut().zip(row) {
                *s += w * w;
            }
        }
        let rms: Vec<f32> = squares
            .iter()
            .map(|s| (s / (weight.len() / n) as f32).sqrt())
            .collect();
        for (i, r) in rates[layer.weight.start - base..layer.weight.end - base]
            .iter_mut()
            .enumerate()
        {
            *r = share * rms[i % n];
        }
        let bias = &published[layer.bias.clone()];
        let size = (bias.iter().map(|b| b * b).sum::<f32>() / n as f32).sqrt();
        rates[layer.bias.start - base..layer.bias.end - base].fill(share * 0.3 * size);
    }
    rates
}
