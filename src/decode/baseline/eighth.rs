//! A JPEG at an eighth of its size, without its inverse transform: the DC coefficient of a block is
//! the mean of its 64 pixels (ITU-T T.81, A.3.3).

use image::RgbImage;

use super::headers::Headers;
use super::survey::Survey;
use crate::decode::ycbcr::full_range;

/// Pixels of an edge that become one.
pub const SCALE: u32 = 8;

/// Means of 8×8 pixels; chroma of larger blocks is repeated.
pub fn assemble(headers: &Headers, survey: &Survey) -> RgbImage {
    let (width, height) = (
        headers.width_px.div_ceil(SCALE),
        headers.height_px.div_ceil(SCALE),
    );
    let (most_across, most_down) = headers.most();
    // Where a pixel of the picture is in a component's row.
    let places: Vec<Vec<usize>> = (headers.components.iter())
        .map(|c| (0..width as usize).map(|x| x * c.across / most_across))
        .map(Iterator::collect)
        .collect();
    let rgb = full_range();
    let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height as usize {
        let components = headers.components.iter().zip(&survey.blocks);
        let rows = components.map(|(component, blocks)| {
            let from = y * component.down / most_down * blocks.width;
            let row = blocks.first.get(from..from + blocks.width).unwrap_or(&[]);
            (row, i32::from(component.steps[0]))
        });
        let rows: Vec<(&[i16], i32)> = rows.collect();
        let code = |n: usize, x: usize| {
            let (row, step) = rows[n];
            code(row.get(places[n][x]).copied().unwrap_or(0), step)
        };
        for x in 0..width as usize {
            let luma = code(0, x);
            pixels.extend(match rows.len() {
                3 => rgb(luma, code(1, x), code(2, x)),
                _ => [luma; 3],
            });
        }
    }
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

/// The mean of a block from its DC coefficient.
fn code(coefficient: i16, step: i32) -> u8 {
    let mean = (i32::from(coefficient) * step + 4).div_euclid(8) + 128;
    u8::try_from(mean.clamp(0, 255)).unwrap_or(u8::MAX)
}
