//! A JPEG at an eighth of its size, without its inverse transform: the DC coefficient of a block is
//! the mean of its 64 pixels (ITU-T T.81, A.3.3).

use image::RgbImage;

use super::headers::Headers;
use super::inverse::{Inverse, Transformed, without_transform};
use super::survey::Survey;
use crate::decode::ycbcr::full_range;

/// Pixels of an edge that become one.
pub const SCALE: u32 = 8;

/// Means of 8×8 pixels; chroma of larger blocks is repeated.
pub fn assemble(headers: &Headers, survey: &Survey) -> RgbImage {
    without_transform(Means { headers, survey })
}

/// The picture of the means.
struct Means<'a> {
    headers: &'a Headers,
    survey: &'a Survey,
}

impl Transformed for Means<'_> {
    type Output = RgbImage;

    #[inline(always)]
    fn with<I: Inverse>(self, _: I) -> RgbImage {
        let Self { headers, survey } = self;
        let (width, height) = (
            headers.width_px.div_ceil(SCALE),
            headers.height_px.div_ceil(SCALE),
        );
        let (most_across, most_down) = headers.most();
        let length = width as usize;
        let mut pixels = vec![0; 3 * length * height as usize];
        let mut rows = [const { Vec::new() }; 3];
        rows.iter_mut().for_each(|row| row.resize(length, 0));
        let mut means = vec![0; length];
        let rgb = full_range();
        let mut planes = [const { Vec::new() }; 3];
        planes.iter_mut().for_each(|plane| plane.resize(length, 0));
        for (y, out) in pixels.chunks_exact_mut(3 * length).enumerate() {
            let components = headers.components.iter().zip(&survey.blocks);
            for ((component, blocks), row) in components.zip(&mut rows) {
                let from = y * component.down / most_down * blocks.width;
                let Some(first) = blocks.first.get(from..from + blocks.width) else {
                    continue;
                };
                let step = i32::from(component.steps[0]);
                let codes = first.iter().map(|first| code(*first, step));
                match most_across / component.across {
                    1 => row.iter_mut().zip(codes).for_each(|(to, code)| *to = code),
                    // Sampling factors are powers of two.
                    repeat => {
                        means
                            .iter_mut()
                            .zip(codes)
                            .for_each(|(to, code)| *to = code);
                        let blocks = row.chunks_mut(repeat).zip(&means);
                        blocks.for_each(|(to, code)| to.fill(*code));
                    }
                }
            }
            let [luma, cb, cr] = &rows;
            let (out, _) = out.as_chunks_mut::<3>();
            if headers.components.len() == 3 {
                // Colours apart first: what goes to three places at once is not done with vectors.
                let [red, green, blue] = &mut planes;
                let to = red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut());
                let from = luma.iter().zip(cb).zip(cr);
                for (((red, green), blue), ((luma, cb), cr)) in to.zip(from) {
                    [*red, *green, *blue] = rgb(*luma, *cb, *cr);
                }
                let from = red.iter().zip(&*green).zip(&*blue);
                for (out, ((red, green), blue)) in out.iter_mut().zip(from) {
                    *out = [*red, *green, *blue];
                }
            } else {
                out.iter_mut()
                    .zip(luma)
                    .for_each(|(out, luma)| *out = [*luma; 3]);
            }
        }
        RgbImage::from_raw(width, height, pixels).unwrap_or_default()
    }
}

/// The mean of a block from its DC coefficient.
fn code(coefficient: i16, step: i32) -> u8 {
    let mean = (i32::from(coefficient) * step + 4).div_euclid(8) + 128;
    u8::try_from(mean.clamp(0, 255)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{photo, survey};
    use super::*;

    /// Sampling factors per component, across and down.
    const LAYOUTS: [&[(usize, usize)]; 6] = [
        &[(1, 1)],
        &[(1, 1), (1, 1), (1, 1)],
        &[(2, 1), (1, 1), (1, 1)],
        &[(1, 2), (1, 1), (1, 1)],
        &[(2, 2), (1, 1), (1, 1)],
        &[(4, 1), (1, 1), (1, 1)],
    ];

    #[test]
    fn every_pixel_is_the_mean_of_its_blocks_in_every_layout() {
        let mut state = 1_u32;
        let mut coefficient = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            i16::try_from(state >> 20).unwrap() - 2048
        };
        let bytes = photo("arance");
        for layout in LAYOUTS {
            for (width, height) in [(1, 1), (9, 7), (64, 48), (121, 77), (259, 17)] {
                let mut picture = survey(&bytes);
                let headers = &mut picture.headers;
                (headers.width_px, headers.height_px) = (width, height);
                headers.components.truncate(layout.len());
                for (component, (across, down)) in headers.components.iter_mut().zip(layout) {
                    (component.across, component.down) = (*across, *down);
                    component.steps[0] = 3;
                }
                let most = headers.most();
                headers.columns = (width as usize).div_ceil(8 * most.0);
                headers.rows = (height as usize).div_ceil(8 * most.1);
                let blocks = &mut picture.survey.blocks;
                blocks.truncate(layout.len());
                for (blocks, (across, down)) in blocks.iter_mut().zip(layout) {
                    blocks.width = headers.columns * across;
                    let count = blocks.width * headers.rows * down;
                    blocks.first = (0..count).map(|_| coefficient() / 4).collect();
                }
                let small = picture.eighth();
                assert_eq!(small.dimensions(), (width.div_ceil(8), height.div_ceil(8)));
                for (x, y, got) in small.enumerate_pixels() {
                    let codes: Vec<u8> = (picture.survey.blocks.iter().zip(layout))
                        .map(|(blocks, (across, down))| {
                            let column = x as usize * across / most.0;
                            let row = y as usize * down / most.1;
                            let first = blocks.first[row * blocks.width + column];
                            // Rounded, and never below zero on the way.
                            let mean = (i32::from(first) * 3 + 4 + 8 * 4096) / 8 - 4096 + 128;
                            u8::try_from(mean.clamp(0, 255)).unwrap()
                        })
                        .collect();
                    let wanted = match codes[..] {
                        [luma, cb, cr] => full_range()(luma, cb, cr),
                        _ => [codes[0]; 3],
                    };
                    assert_eq!(got.0, wanted, "{layout:?} {width}×{height}: {x}, {y}");
                }
            }
        }
    }
}
