//! From blocks to planes, and the mean over all pixels.

use super::LANES;

/// Copies blocks `[ceil(C / LANES), H, W, LANES]` into planes `[C, H, W]`.
///
/// # Panics
/// When the two do not fit `channels` and `pixels` (`H·W`).
pub fn blocks_to_planes(blocks: &[f32], channels: usize, pixels: usize, planes: &mut [f32]) {
    assert_eq!(planes.len(), channels * pixels);
    assert_eq!(blocks.len(), channels.next_multiple_of(LANES) * pixels);
    if pixels == 0 {
        return;
    }
    for (channel, plane) in planes.chunks_exact_mut(pixels).enumerate() {
        let first = channel / LANES * LANES * pixels + channel % LANES;
        for (p, value) in plane.iter_mut().enumerate() {
            *value = blocks[first + p * LANES];
        }
    }
}

/// Mean over the pixels of each block: `[B, pixels, LANES]` to `[B, LANES]`, summed in order.
///
/// # Panics
/// When the two do not fit `pixels`, or there is none.
pub fn mean(blocks: &[f32], pixels: usize, means: &mut [f32]) {
    assert_eq!(blocks.len(), means.len() * pixels);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a feature map has far fewer than 2^24 pixels"
    )]
    let scale = 1.0 / pixels as f32;
    let blocks = blocks.chunks_exact(LANES * pixels);
    for (block, mean) in blocks.zip(means.chunks_exact_mut(LANES)) {
        let mut sums = [0.0f32; LANES];
        for pixel in block.chunks_exact(LANES) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += value;
            }
        }
        for (mean, sum) in mean.iter_mut().zip(sums) {
            *mean = sum * scale;
        }
    }
}
