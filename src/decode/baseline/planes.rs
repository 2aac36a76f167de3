//! Parts of a picture as planes of luma and chroma, at the size that is asked for.

use std::ops::Range;

use super::headers::{Component, Headers};
use super::inverse::{Inverse, Scale, Transformed, with_transform};
use super::painter::Painter;
use super::{Baseline, corrupt};
use crate::decode::DecodeError;
use crate::preprocess::Region;

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
    /// (JFIF: BT.601, full range), each at the resolution at which it is coded times `scale`. What was
    /// [`Expected`](super::Expected) is there already, once.
    ///
    /// # Errors
    /// A damaged picture; the survey has found most of that.
    pub fn planes(&self, regions: &[Region], scale: Scale) -> Result<Vec<Plane>, DecodeError> {
        if let Some(ready) = self.take_ready(regions, scale) {
            return Ok(ready);
        }
        let units = Units::under(regions, &self.headers);
        let parts = Parts {
            baseline: self,
            units,
        };
        with_transform(scale, parts).ok_or_else(|| corrupt("it has bits that mean nothing"))
    }
}

/// Some units of a picture that was surveyed.
struct Parts<'a> {
    baseline: &'a Baseline,
    units: Units,
}

impl Transformed for Parts<'_> {
    type Output = Option<Vec<Plane>>;

    #[inline(always)]
    fn with<I: Inverse>(self, transform: I) -> Self::Output {
        let Self { baseline, units } = self;
        let mut painter = Painter::new(&baseline.headers, &units, transform);
        for row in units.rows.clone() {
            for column in units.columns.clone() {
                if !units.contain(column, row) {
                    continue;
                }
                for (n, component) in baseline.headers.components.iter().enumerate() {
                    let blocks = &baseline.survey.blocks[n];
                    for y in 0..component.down {
                        for x in 0..component.across {
                            let (y, x) = (row * component.down + y, column * component.across + x);
                            let number = y * blocks.width + x;
                            let first = *blocks.first.get(number)?;
                            let bits = baseline.scan.bits(*blocks.starts.get(number)? as usize);
                            painter.paint(n, [x, y], first, bits)?;
                        }
                    }
                }
            }
        }
        Some(painter.planes())
    }
}

/// Minimum coded units.
pub struct Units {
    columns: Range<usize>,
    rows: Range<usize>,
    /// Which of these are wanted, row by row.
    wanted: Vec<bool>,
}

impl Units {
    /// Those under `regions`.
    pub fn under(regions: &[Region], headers: &Headers) -> Self {
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

    /// Whether the unit in this column and row of the picture is one of them.
    #[inline]
    pub fn contain(&self, column: usize, row: usize) -> bool {
        if !self.columns.contains(&column) || !self.rows.contains(&row) {
            return false;
        }
        let at = (row - self.rows.start) * self.columns.len() + column - self.columns.start;
        self.wanted[at]
    }

    /// Room for `component` of all of them.
    pub fn plane(&self, component: &Component, headers: &Headers, edge: usize) -> Plane {
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
