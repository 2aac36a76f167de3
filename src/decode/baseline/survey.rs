//! Where everything is in a scan, and its DC coefficients.

use super::corrupt;
use super::headers::{Component, Headers};
use super::scan::{Bits, Scan};
use crate::decode::DecodeError;

/// What one pass over the codes of a scan finds.
pub struct Survey {
    /// Per component.
    pub blocks: Vec<Blocks>,
}

/// The blocks of one component, row by row.
pub struct Blocks {
    /// Blocks of a row.
    pub width: usize,
    /// DC coefficients before quantization. Damaged data may count beyond all bounds; what is meant is
    /// within ±2¹¹.
    pub first: Vec<i16>,
    /// Where the codes of the AC coefficients begin, bits.
    pub starts: Vec<u32>,
    /// The last DC coefficient, which the next is a difference to.
    last: i32,
}

impl Blocks {
    fn new(headers: &Headers, component: &Component) -> Self {
        let width = headers.columns * component.across;
        let count = width * headers.rows * component.down;
        Self {
            width,
            first: vec![0; count],
            starts: vec![0; count],
            last: 0,
        }
    }

    /// The first coefficient.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "meant is what fits; the length of the scan was checked"
    )]
    fn put(&mut self, at: usize, difference: i32, start: usize) -> i16 {
        self.last = self.last.wrapping_add(difference);
        if let Some(first) = self.first.get_mut(at) {
            *first = self.last as i16;
        }
        if let Some(place) = self.starts.get_mut(at) {
            *place = start as u32;
        }
        self.last as i16
    }
}

/// What is decoded while it is passed over.
pub trait Ahead {
    /// Whether the unit in this column and row is.
    fn wants(&self, column: usize, row: usize) -> bool;

    /// Decodes the block in column `x` and row `y` of component `n`, from its second coefficient on, and
    /// returns what is behind it.
    fn block<'a>(
        &mut self,
        n: usize,
        place: [usize; 2],
        first: i16,
        bits: Bits<'a>,
    ) -> Option<Bits<'a>>;
}

/// Nothing.
impl Ahead for () {
    #[inline(always)]
    fn wants(&self, _: usize, _: usize) -> bool {
        false
    }

    #[inline(always)]
    fn block<'a>(&mut self, _: usize, _: [usize; 2], _: i16, _: Bits<'a>) -> Option<Bits<'a>> {
        None
    }
}

impl Survey {
    /// Passes over all codes (ITU-T T.81, F.2).
    ///
    /// # Errors
    /// Codes that mean nothing, or that end before the picture does.
    #[inline(always)]
    pub fn of(headers: &Headers, scan: &Scan, ahead: &mut impl Ahead) -> Result<Self, DecodeError> {
        let mut blocks: Vec<Blocks> = (headers.components.iter())
            .map(|component| Blocks::new(headers, component))
            .collect();
        if u32::try_from(scan.length()).is_err() {
            return Err(corrupt("it has more bits than a picture takes"));
        }
        let (mut bits, mut parts) = (scan.bits(0), scan.parts());
        let mut until_restart = headers.restart;
        for row in 0..headers.rows {
            for column in 0..headers.columns {
                if headers.restart > 0 {
                    if until_restart == 0 {
                        let start = parts.next(&bits);
                        let start = start.ok_or_else(|| corrupt("a restart marker is missing"))?;
                        bits = scan.bits(start);
                        blocks.iter_mut().for_each(|blocks| blocks.last = 0);
                        until_restart = headers.restart;
                    }
                    until_restart -= 1;
                }
                let is_wanted = ahead.wants(column, row);
                let components = headers.components.iter().zip(&mut blocks).enumerate();
                for (n, (component, blocks)) in components {
                    for y in 0..component.down {
                        let y = row * component.down + y;
                        for x in 0..component.across {
                            let x = column * component.across + x;
                            let at = y * blocks.width + x;
                            let passed = if is_wanted {
                                decode(component, &mut bits, blocks, at, |first, bits| {
                                    ahead.block(n, [x, y], first, bits)
                                })
                            } else {
                                pass(component, &mut bits, blocks, at)
                            };
                            passed.ok_or_else(|| corrupt("it has bits that mean nothing"))?;
                        }
                    }
                }
                if parts.is_over(&bits) {
                    return Err(corrupt("it ends within its picture"));
                }
            }
        }
        Ok(Self { blocks })
    }
}

/// Passes over block number `at`. It works on a copy of where it is, which so stays in registers.
#[inline(always)]
fn pass(component: &Component, bits: &mut Bits<'_>, blocks: &mut Blocks, at: usize) -> Option<()> {
    let mut here = *bits;
    let difference = component.dc.difference(&mut here)?;
    blocks.put(at, difference, here.position());
    component.ac.pass(&mut here, 1)?;
    *bits = here;
    Some(())
}

/// Likewise, `block` going from the second coefficient to the end. One function for both would take 1.08 of
/// the time where something is decoded.
#[inline(always)]
fn decode<'a>(
    component: &Component,
    bits: &mut Bits<'a>,
    blocks: &mut Blocks,
    at: usize,
    block: impl FnOnce(i16, Bits<'a>) -> Option<Bits<'a>>,
) -> Option<()> {
    let mut here = *bits;
    let difference = component.dc.difference(&mut here)?;
    let first = blocks.put(at, difference, here.position());
    *bits = block(first, here)?;
    Some(())
}
