//! A JPEG at an eighth of its size, without its inverse transform: the DC coefficient of a block is
//! the mean of its 64 pixels (ITU-T T.81, A.3.3). What looks at a picture to tell whether it changed
//! needs no more, and it takes about a sixth of the time.

mod bits;
mod headers;
mod huffman;

use image::RgbImage;

use super::DecodeError;
use super::ycbcr::full_range;
use bits::Bits;
use headers::{Component, Headers};

/// Pixels of an edge that become one.
pub const SCALE: u32 = 8;

/// An eighth of a JPEG of checked size, rounded up; `None` for kinds that have to be decoded as a
/// whole: progressive, not interleaved, RGB.
///
/// # Errors
/// A damaged picture.
pub fn preview(bytes: &[u8], has_huffman_tables: bool) -> Result<Option<RgbImage>, DecodeError> {
    let corrupt = |what: &str| DecodeError::Jpeg(what.to_owned());
    let Some((headers, data)) = headers::read(bytes, has_huffman_tables)? else {
        return Ok(None);
    };
    let mut planes: Vec<Plane> = headers
        .components
        .iter()
        .map(|c| Plane::new(&headers, c))
        .collect();
    let mut bits = Bits::new(data);
    let mcus = headers.columns * headers.rows;
    for mcu in 0..mcus {
        if headers.restart > 0 && mcu > 0 && mcu % headers.restart == 0 {
            if !bits.restart() {
                return Err(corrupt("a restart marker is missing"));
            }
            planes.iter_mut().for_each(|plane| plane.last = 0);
        }
        let (column, row) = (mcu % headers.columns, mcu / headers.columns);
        for (component, plane) in headers.components.iter().zip(&mut planes) {
            for y in 0..component.down {
                for x in 0..component.across {
                    let difference = component.dc.difference(&mut bits);
                    let passed = difference.and_then(|difference| {
                        component.ac.pass_block(&mut bits)?;
                        Some(difference)
                    });
                    let difference =
                        passed.ok_or_else(|| corrupt("it has bits that mean nothing"))?;
                    let at =
                        (row * component.down + y) * plane.width + column * component.across + x;
                    plane.put(at, difference, component.dc_step);
                }
            }
        }
        if bits.is_over() {
            return Err(corrupt("it ends within its picture"));
        }
    }
    Ok(Some(assemble(&headers, &planes)))
}

/// DC coefficients of one component, as codes.
struct Plane {
    width: usize,
    codes: Vec<u8>,
    /// The last coefficient, which the next one is a difference to.
    last: i32,
}

impl Plane {
    fn new(headers: &Headers, component: &Component) -> Self {
        let width = headers.columns * component.across;
        Self {
            width,
            codes: vec![0; width * headers.rows * component.down],
            last: 0,
        }
    }

    fn put(&mut self, at: usize, difference: i32, step: i32) {
        // Damaged data may count beyond all bounds; what is meant is within ±2^11.
        self.last = self.last.wrapping_add(difference);
        let mean = self.last.wrapping_mul(step) / 8 + 128;
        let code = u8::try_from(mean.clamp(0, 255)).unwrap_or(u8::MAX);
        if let Some(place) = self.codes.get_mut(at) {
            *place = code;
        }
    }
}

fn assemble(headers: &Headers, planes: &[Plane]) -> RgbImage {
    let (width, height) = (
        headers.width_px.div_ceil(SCALE),
        headers.height_px.div_ceil(SCALE),
    );
    let (most_across, most_down) = headers.most();
    // Where a pixel of the picture is in a plane's row.
    let places: Vec<Vec<usize>> = (headers.components.iter())
        .map(|c| (0..width as usize).map(|x| x * c.across / most_across))
        .map(Iterator::collect)
        .collect();
    let rgb = full_range();
    let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height as usize {
        let rows = headers.components.iter().zip(planes).map(|(c, plane)| {
            let from = y * c.down / most_down * plane.width;
            plane.codes.get(from..from + plane.width).unwrap_or(&[])
        });
        let rows: Vec<&[u8]> = rows.collect();
        let code = |n: usize, x: usize| rows[n].get(places[n][x]).copied().unwrap_or(0);
        for x in 0..width as usize {
            let luma = code(0, x);
            pixels.extend(match planes.len() {
                3 => rgb(luma, code(1, x), code(2, x)),
                _ => [luma; 3],
            });
        }
    }
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

#[cfg(test)]
mod tests;
