//! Parts of a picture as planes of luma and chroma, at the size that is asked for.

use std::ops::Range;

use super::headers::{Component, Headers};
use super::inverse::{Block, Inverse, NOWHERE, Portable, Scale, flat, place};
use super::scan::Bits;
use super::{Baseline, corrupt};
use crate::decode::DecodeError;
use crate::preprocess::Region;

/// Coefficients in the order in which they are coded: row and column (ITU-T T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0o00, 0o01, 0o10, 0o20, 0o11, 0o02, 0o03, 0o12, 0o21, 0o30, 0o40, 0o31, 0o22, 0o13, 0o04, 0o05,
    0o14, 0o23, 0o32, 0o41, 0o50, 0o60, 0o51, 0o42, 0o33, 0o24, 0o15, 0o06, 0o07, 0o16, 0o25, 0o34,
    0o43, 0o52, 0o61, 0o70, 0o71, 0o62, 0o53, 0o44, 0o35, 0o26, 0o17, 0o27, 0o36, 0o45, 0o54, 0o63,
    0o72, 0o73, 0o64, 0o55, 0o46, 0o37, 0o47, 0o56, 0o65, 0o74, 0o75, 0o66, 0o57, 0o67, 0o76, 0o77,
];

/// One component of a part of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    /// Row by row; 0 where nothing was asked for.
    pub samples: Vec<u8>,
    /// Samples of a row.
    pub width: usize,
    /// Column of the whole picture's plane that is the first one here.
    pub left: usize,
    /// Row of the whole picture's plane that is the first one here.
    pub top: usize,
    /// Samples per pixel of the picture, from left to right and from top to bottom.
    pub density: [f64; 2],
}

impl Baseline {
    /// Decodes the minimum coded units under `regions`, and no others: luma alone, or with Cb and Cr
    /// (JFIF: BT.601, full range), each at the resolution at which it is coded times `scale`.
    ///
    /// # Errors
    /// A damaged picture; the survey has found most of that.
    pub fn planes(&self, regions: &[Region], scale: Scale) -> Result<Vec<Plane>, DecodeError> {
        let units = Units::under(regions, &self.headers);
        let planes = match (scale, vectors()) {
            (Scale::Quarter, _) => self.decode(&units, Portable::<2>),
            #[cfg(target_arch = "x86_64")]
            (Scale::Half, Some(avx2)) => self.decode(&units, super::inverse::avx2::Half(avx2)),
            #[cfg(target_arch = "x86_64")]
            (Scale::Whole, Some(avx2)) => self.decode(&units, super::inverse::avx2::Whole(avx2)),
            (Scale::Half, _) => self.decode(&units, Portable::<4>),
            (Scale::Whole, _) => self.decode(&units, Portable::<8>),
        };
        planes.ok_or_else(|| corrupt("it has bits that mean nothing"))
    }

    #[inline(always)]
    fn decode<I: Inverse>(&self, units: &Units, transform: I) -> Option<Vec<Plane>> {
        let components = &self.headers.components;
        let mut planes: Vec<Plane> = (components.iter())
            .map(|component| units.plane(component, &self.headers, I::EDGE))
            .collect();
        let targets: Vec<_> = (components.iter())
            .map(|component| targets(component, I::EDGE))
            .collect();
        let until = until(I::EDGE);
        let mut block = Block([0; 256]);
        for row in units.rows.clone() {
            for column in units.columns.clone() {
                if !units.contain(column, row) {
                    continue;
                }
                for (n, component) in components.iter().enumerate() {
                    let (blocks, plane) = (&self.survey.blocks[n], &mut planes[n]);
                    for y in 0..component.down {
                        for x in 0..component.across {
                            let (y, x) = (row * component.down + y, column * component.across + x);
                            let number = y * blocks.width + x;
                            let first = *blocks.first.get(number)?;
                            let bits = self.scan.bits(*blocks.starts.get(number)? as usize);
                            let first = first.wrapping_mul(targets[n][0].step);
                            let is_flat =
                                read(component, bits, until, &targets[n], first, &mut block)?;
                            let at =
                                (y * I::EDGE - plane.top) * plane.width + x * I::EDGE - plane.left;
                            let out = plane.samples.get_mut(at..)?;
                            if is_flat {
                                let rows = out.chunks_mut(plane.width).take(I::EDGE);
                                rows.for_each(|row| row[..I::EDGE].fill(flat(first)));
                            } else {
                                transform.inverse(&block, out, plane.width);
                            }
                        }
                    }
                }
            }
        }
        Some(planes)
    }
}

/// Reads a block whose `first` coefficient is known; whether that is the only one that is not 0 and
/// wanted.
#[inline(always)]
fn read(
    component: &Component,
    bits: Bits<'_>,
    until: u32,
    targets: &[Target; 256],
    first: i16,
    block: &mut Block,
) -> Option<bool> {
    block.0[..64].fill(0);
    let mut seen = 0;
    component.ac.read(bits, until, |n, value| {
        let target = targets[usize::from(n)];
        block.0[usize::from(target.place)] = value.wrapping_mul(target.step);
        seen |= value;
    })?;
    block.0[0] = first;
    Some(seen == 0)
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> Option<super::inverse::avx2::Avx2> {
    super::inverse::avx2::Avx2::detect()
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> Option<()> {
    None
}

/// What becomes of a coefficient.
#[derive(Clone, Copy)]
struct Target {
    /// What it is multiplied with; a wider one is damage.
    step: i16,
    /// Where it is in the [`Block`].
    place: u8,
}

/// By number of the coefficient; numbers beyond the block are of damaged data.
fn targets(component: &Component, edge: usize) -> [Target; 256] {
    std::array::from_fn(|n| match (component.steps.get(n), ZIGZAG.get(n)) {
        (Some(step), Some(at)) => {
            let (v, u) = (usize::from(at >> 3), usize::from(at & 7));
            let is_wanted = v < edge && u < edge;
            let wanted = is_wanted.then(|| u8::try_from(place(edge, v, u)).unwrap_or(NOWHERE));
            Target {
                step: step.cast_signed(),
                place: wanted.unwrap_or(NOWHERE),
            }
        }
        _ => Target {
            step: 0,
            place: NOWHERE,
        },
    })
}

/// How many coefficients have to be read for the lowest `edge × edge`.
fn until(edge: usize) -> u32 {
    let is_wanted = |at: &u8| usize::from(at >> 3) < edge && usize::from(at & 7) < edge;
    let last = ZIGZAG.iter().rposition(is_wanted).unwrap_or(63);
    u32::try_from(last + 1).unwrap_or(64)
}

/// Minimum coded units.
struct Units {
    columns: Range<usize>,
    rows: Range<usize>,
    /// Which of these are wanted, row by row.
    wanted: Vec<bool>,
}

impl Units {
    fn under(regions: &[Region], headers: &Headers) -> Self {
        let (across, down) = headers.most();
        let span = |from: u32, length: u32, edge: usize, count: usize| {
            let (from, to) = (from as usize, from as usize + length as usize);
            (from / edge).min(count)..to.div_ceil(edge).min(count)
        };
        let columns = regions
            .iter()
            .map(|region| span(region.x, region.width, 8 * across, headers.columns));
        let rows = regions
            .iter()
            .map(|region| span(region.y, region.height, 8 * down, headers.rows));
        let mut units = Self {
            columns: hull(columns.clone()),
            rows: hull(rows.clone()),
            wanted: Vec::new(),
        };
        units.wanted = vec![false; units.columns.len() * units.rows.len()];
        for (columns, rows) in columns.zip(rows) {
            for row in rows {
                let at = (row - units.rows.start) * units.columns.len();
                let (from, to) = (columns.start, columns.end);
                let first = units.columns.start;
                units.wanted[at + from - first..at + to - first].fill(true);
            }
        }
        units
    }

    fn contain(&self, column: usize, row: usize) -> bool {
        let at = (row - self.rows.start) * self.columns.len() + column - self.columns.start;
        self.wanted[at]
    }

    /// Room for `component` of all of them.
    fn plane(&self, component: &Component, headers: &Headers, edge: usize) -> Plane {
        let (across, down) = (component.across * edge, component.down * edge);
        let (most_across, most_down) = headers.most();
        let density = |samples: usize, most: usize| {
            let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
            number(samples) / number(8 * most)
        };
        let width = self.columns.len() * across;
        Plane {
            samples: vec![0; width * self.rows.len() * down],
            width,
            left: self.columns.start * across,
            top: self.rows.start * down,
            density: [density(across, most_across), density(down, most_down)],
        }
    }
}

/// The least range around all.
fn hull(ranges: impl Iterator<Item = Range<usize>> + Clone) -> Range<usize> {
    let start = ranges.clone().map(|range| range.start).min();
    let end = ranges.map(|range| range.end).max();
    start.unwrap_or(0)..end.unwrap_or(0)
}
