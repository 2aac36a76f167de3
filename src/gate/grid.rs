//! Mean colour per cell of a zone.

use std::ops::Range;

use image::RgbImage;

use crate::config::Shape;

/// Cells from left to right and from top to bottom.
const COLUMNS: u32 = 16;
const ROWS: u32 = 12;
/// Sampled pixels per cell and direction, at most.
const SAMPLES: u32 = 8;

/// Mean luma and two colour differences of each cell inside a shape, in units of full scale.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    /// `None` where the cell's centre is outside of the polygon.
    cells: Vec<Option<Cell>>,
}

/// `[Y, R − Y, B − Y]`: luma alone would miss a red pepper that replaces a green one.
type Cell = [f32; 3];

/// How far a grid is from another one, 0–1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Change {
    /// The most changed cell, after the global offset of each channel is taken out.
    pub cell: f32,
    /// The greatest global offset.
    pub global: f32,
}

impl Grid {
    pub(super) fn of(rgb: &RgbImage, shape: &Shape) -> Self {
        let [x, y, width, height] = bounds(shape);
        let mut cells = Vec::with_capacity(192);
        for row in 0..ROWS {
            let top = y + height * ratio(row, ROWS);
            let bottom = y + height * ratio(row + 1, ROWS);
            for column in 0..COLUMNS {
                let left = x + width * ratio(column, COLUMNS);
                let right = x + width * ratio(column + 1, COLUMNS);
                let centre = [f32::midpoint(left, right), f32::midpoint(top, bottom)];
                cells.push(contains(shape, centre).then(|| {
                    let columns = pixels(left, right, rgb.width());
                    mean(rgb, columns, pixels(top, bottom, rgb.height()))
                }));
            }
        }
        if cells.iter().all(Option::is_none) {
            // A sliver between the cell centres: better its whole bounding box than nothing.
            return Self::of(
                rgb,
                &Shape::Rectangle {
                    x,
                    y,
                    width,
                    height,
                },
            );
        }
        Self { cells }
    }

    /// The global offset is the median over the cells, so that an object in less than half of the
    /// zone does not move it.
    pub(super) fn change_from(&self, reference: &Self) -> Change {
        let pairs = self.cells.iter().zip(&reference.cells);
        let differences: Vec<Cell> = pairs
            .filter_map(|(now, then)| {
                let (now, then) = ((*now)?, (*then)?);
                Some(std::array::from_fn(|c| now[c] - then[c]))
            })
            .collect();
        let mut change = Change::default();
        for channel in 0..3 {
            let offset = median(differences.iter().map(|cell| cell[channel]));
            let most = differences
                .iter()
                .map(|cell| (cell[channel] - offset).abs())
                .fold(0.0, f32::max);
            change.cell = change.cell.max(most);
            change.global = change.global.max(offset.abs());
        }
        change
    }
}

/// Mean of the sampled pixels; black for an empty image.
fn mean(rgb: &RgbImage, columns: Range<u32>, rows: Range<u32>) -> Cell {
    let step = |range: &Range<u32>| {
        let length = range.end.saturating_sub(range.start);
        let step = length.div_ceil(SAMPLES).max(1);
        usize::try_from(step).unwrap_or(1)
    };
    let (step_x, step_y) = (step(&columns), step(&rows));
    let mut sum = [0_u32; 3];
    let mut count = 0_u32;
    for y in rows.step_by(step_y) {
        for x in columns.clone().step_by(step_x) {
            let pixel = rgb.get_pixel(x, y).0;
            (0..3).for_each(|c| sum[c] += u32::from(pixel[c]));
            count += 1;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "sums of a few hundred bytes")]
    let [r, g, b] = sum.map(|s| s as f32 / (count.max(1) as f32 * 255.0));
    let y = luma(r, g, b);
    [y, r - y, b - y]
}

/// ITU-R BT.601 luma.
pub(super) fn luma(r: f32, g: f32, b: f32) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// Pixels of `from..to` (fractions) of an edge of `length_px`: at least one, all inside.
pub(super) fn pixels(from: f32, to: f32, length_px: u32) -> Range<u32> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=length_px; a float cast saturates"
    )]
    let at = |fraction: f32| ((fraction * length_px as f32).max(0.0) as u32).min(length_px);
    let start = at(from).min(length_px.saturating_sub(1));
    start..at(to).max(start + 1).min(length_px)
}

/// `part / whole`.
pub(super) fn ratio(part: u32, whole: u32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "grid sizes")]
    let ratio = part as f32 / whole.max(1) as f32;
    ratio
}

/// `[x, y, width, height]` of the bounding box, fractions of the frame.
fn bounds(shape: &Shape) -> [f32; 4] {
    match shape {
        Shape::Full => [0.0, 0.0, 1.0, 1.0],
        Shape::Rectangle {
            x,
            y,
            width,
            height,
        } => [*x, *y, *width, *height],
        Shape::Polygon(corners) => {
            let of = |axis: usize| {
                let values = || corners.iter().map(move |corner| corner[axis]);
                let low = values().fold(1.0, f32::min);
                (low, values().fold(0.0, f32::max) - low)
            };
            let ((x, width), (y, height)) = (of(0), of(1));
            [x, y, width, height]
        }
    }
}

/// Even–odd rule.
fn contains(shape: &Shape, [x, y]: [f32; 2]) -> bool {
    let Shape::Polygon(corners) = shape else {
        return true;
    };
    let next = corners.iter().cycle().skip(1);
    let crossings = corners.iter().zip(next).filter(|([ax, ay], [bx, by])| {
        (*ay > y) != (*by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax
    });
    crossings.count() % 2 == 1
}

/// The middle value (the upper one of an even number); 0 for none.
fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut sorted: Vec<f32> = values.collect();
    sorted.sort_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_of_an_edge_has_a_pixel_and_stays_inside() {
        for length in [1, 2, 15, 16, 17, 1920] {
            for part in 0..COLUMNS {
                let span = pixels(ratio(part, COLUMNS), ratio(part + 1, COLUMNS), length);
                assert!(span.start < span.end && span.end <= length, "{span:?}");
            }
        }
    }

    #[test]
    fn a_polygon_keeps_only_the_cells_inside() {
        let triangle = Shape::Polygon(vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
        let grid = Grid::of(&RgbImage::new(64, 48), &triangle);
        let kept = grid.cells.iter().flatten().count();
        assert!((90..=102).contains(&kept), "{kept}");
    }

    #[test]
    fn an_empty_image_does_not_panic() {
        let grid = Grid::of(&RgbImage::new(0, 0), &Shape::Full);
        assert_eq!(grid.change_from(&grid), Change::default());
    }
}
