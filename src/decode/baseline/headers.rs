//! The segments of a baseline JPEG that its picture data need (ITU-T T.81, Annex B).

use std::sync::Arc;

use super::huffman::{self, Codes, Table};
use crate::decode::DecodeError;
use crate::decode::huffman::STANDARD_SEGMENT;

/// Most blocks of a minimum coded unit (B.2.3).
const MAX_BLOCKS: usize = 10;

/// A component of the picture.
pub struct Component {
    /// Blocks of a minimum coded unit, from left to right and from top to bottom.
    pub across: usize,
    pub down: usize,
    /// Quantization steps, in zigzag order.
    pub steps: [u16; 64],
    pub dc: Arc<Table>,
    pub ac: Arc<Table>,
}

/// What is needed to read the picture data.
pub struct Headers {
    pub width_px: u32,
    pub height_px: u32,
    /// One, luma, or three, with chroma.
    pub components: Vec<Component>,
    /// Minimum coded units.
    pub columns: usize,
    pub rows: usize,
    /// Minimum coded units between two restart markers; 0 is none.
    pub restart: usize,
}

impl Headers {
    /// The most blocks that a component has in a minimum coded unit: its size.
    pub fn most(&self) -> (usize, usize) {
        let most = |edge: fn(&Component) -> usize| self.components.iter().map(edge).max();
        (
            most(|c| c.across).unwrap_or(1),
            most(|c| c.down).unwrap_or(1),
        )
    }
}

struct Sampling {
    id: u8,
    across: usize,
    down: usize,
    /// Number of the quantization table.
    table: usize,
}

#[derive(Default)]
struct Segments {
    /// By number of the table.
    steps: [Option<[u16; 64]>; 4],
    dc: [Option<Codes>; 4],
    ac: [Option<Codes>; 4],
    restart: usize,
    /// Width, height, and what is said of each component.
    frame: Option<(u32, u32, Vec<Sampling>)>,
    is_rgb: bool,
}

/// Reads the segments up to the picture data, which come with it; `None` for a kind of JPEG that is
/// not baseline YCbCr or greyscale in one scan. The sizes were checked before.
pub fn read(
    bytes: &[u8],
    has_huffman_tables: bool,
) -> Result<Option<(Headers, &[u8])>, DecodeError> {
    let damaged = || DecodeError::Jpeg("its headers are damaged".to_owned());
    let mut segments = Segments::default();
    if !has_huffman_tables {
        segments
            .huffman(&STANDARD_SEGMENT[4..])
            .ok_or_else(damaged)?;
    }
    let mut at = 2;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let start = rest
            .iter()
            .position(|byte| *byte == 0xff)
            .ok_or_else(damaged)?;
        let marker = rest[start..]
            .iter()
            .position(|byte| *byte != 0xff)
            .ok_or_else(damaged)?;
        let code = rest[start + marker];
        at += start + marker + 1;
        if matches!(code, 0x00 | 0x01 | 0xd0..=0xd8) {
            continue;
        }
        let length = bytes.get(at..at + 2).ok_or_else(damaged)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let body = bytes.get(at + 2..at + length).ok_or_else(damaged)?;
        at += length;
        match code {
            0xc4 => segments.huffman(body).ok_or_else(damaged)?,
            0xdb => segments.quantization(body).ok_or_else(damaged)?,
            0xdd => {
                let interval = body.first_chunk::<2>().ok_or_else(damaged)?;
                segments.restart = usize::from(u16::from_be_bytes(*interval));
            }
            // Adobe's marker: 0 is no transform, so RGB.
            0xee if body.starts_with(b"Adobe") => segments.is_rgb = body.get(11) == Some(&0),
            0xc0 | 0xc1 if segments.frame(body).is_some() => {}
            0xc0..=0xc2 => return Ok(None),
            0xda => {
                let headers = segments.scan(body);
                return Ok(headers.map(|headers| (headers, &bytes[at..])));
            }
            _ => {}
        }
    }
}

impl Segments {
    fn huffman(&mut self, body: &[u8]) -> Option<()> {
        for (kind, codes) in huffman::segment(body)? {
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(kind & 15))? = Some(codes);
        }
        Some(())
    }

    fn quantization(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((kind, rest)) = body.split_first() {
            let is_wide = match kind >> 4 {
                0 => false,
                1 => true,
                _ => return None,
            };
            let (table, rest) = rest.split_at_checked(if is_wide { 128 } else { 64 })?;
            let (wide, _) = table.as_chunks::<2>();
            let steps = std::array::from_fn(|n| match is_wide {
                true => u16::from_be_bytes(wide[n]),
                false => u16::from(table[n]),
            });
            *self.steps.get_mut(usize::from(kind & 15))? = Some(steps);
            body = rest;
        }
        Some(())
    }

    fn frame(&mut self, body: &[u8]) -> Option<()> {
        let &[precision, h1, h0, w1, w0, count, ref rest @ ..] = body else {
            return None;
        };
        let (components, rest) = rest.as_chunks::<3>();
        let components = components.iter().map(|&[id, sampling, table]| {
            let (across, down) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            // What the whole decoder reads, too.
            let is_legal = matches!(across, 1 | 2 | 4) && matches!(down, 1 | 2 | 4);
            is_legal.then_some(Sampling {
                id,
                across,
                down,
                table: usize::from(table),
            })
        });
        let components: Vec<_> = components.collect::<Option<_>>()?;
        let is_known = precision == 8 && matches!(count, 1 | 3) && rest.is_empty();
        if !is_known || components.len() != usize::from(count) {
            return None;
        }
        let edge = |high, low| u32::from(u16::from_be_bytes([high, low]));
        self.frame = Some((edge(w1, w0), edge(h1, h0), components));
        Some(())
    }

    fn scan(mut self, body: &[u8]) -> Option<Headers> {
        let (width_px, height_px, frame) = self.frame.take()?;
        let (count, rest) = body.split_first()?;
        let is_whole = usize::from(*count) == frame.len() && rest.len() == 2 * frame.len() + 3;
        // Encoders without Adobe's marker name the components so.
        let is_rgb = self.is_rgb || frame.iter().map(|c| c.id).eq(*b"RGB");
        if !is_whole || (is_rgb && frame.len() == 3) {
            return None;
        }
        let mut components = Vec::new();
        for (sampling, selector) in frame.into_iter().zip(rest.chunks_exact(2)) {
            let &[selected, tables] = selector else {
                return None;
            };
            if selected != sampling.id {
                return None;
            }
            // A single component is not interleaved: a unit is one block (A.2.2).
            let (across, down) = match *count {
                1 => (1, 1),
                _ => (sampling.across, sampling.down),
            };
            components.push(Component {
                across,
                down,
                steps: (*self.steps.get(sampling.table)?)?,
                dc: table(&self.dc, tables >> 4)?,
                ac: table(&self.ac, tables & 15)?,
            });
        }
        if components.iter().map(|c| c.across * c.down).sum::<usize>() > MAX_BLOCKS {
            return None;
        }
        let mut headers = Headers {
            width_px,
            height_px,
            components,
            columns: 0,
            rows: 0,
            restart: self.restart,
        };
        let (across, down) = headers.most();
        // Chroma finer than luma: no camera has it, and the whole decoder reads it wrongly.
        let luma = headers.components.first()?;
        if (luma.across, luma.down) != (across, down) {
            return None;
        }
        headers.columns = (width_px as usize).div_ceil(8 * across);
        headers.rows = (height_px as usize).div_ceil(8 * down);
        Some(headers)
    }
}

/// `None` where there is none, and for codes that are none.
fn table(tables: &[Option<Codes>], number: u8) -> Option<Arc<Table>> {
    Table::of(tables.get(usize::from(number))?.as_ref()?)
}
