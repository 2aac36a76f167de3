//! Blocks become samples of planes.

use super::headers::{Component, Headers};
use super::inverse::{Block, Inverse, NOWHERE, flat, place};
use super::planes::{Plane, Units};
use super::scan::Bits;

/// Coefficients in the order in which they are coded: row and column (ITU-T T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0o00, 0o01, 0o10, 0o20, 0o11, 0o02, 0o03, 0o12, 0o21, 0o30, 0o40, 0o31, 0o22, 0o13, 0o04, 0o05,
    0o14, 0o23, 0o32, 0o41, 0o50, 0o60, 0o51, 0o42, 0o33, 0o24, 0o15, 0o06, 0o07, 0o16, 0o25, 0o34,
    0o43, 0o52, 0o61, 0o70, 0o71, 0o62, 0o53, 0o44, 0o35, 0o26, 0o17, 0o27, 0o36, 0o45, 0o54, 0o63,
    0o72, 0o73, 0o64, 0o55, 0o46, 0o37, 0o47, 0o56, 0o65, 0o74, 0o75, 0o66, 0o57, 0o67, 0o76, 0o77,
];

/// Decodes blocks to planes, in any order.
pub struct Painter<'h, I> {
    headers: &'h Headers,
    planes: Vec<Plane>,
    /// Per component.
    targets: Vec<[Target; 256]>,
    /// How many coefficients of a block have to be read.
    until: u32,
    block: Block,
    transform: I,
}

impl<'h, I: Inverse> Painter<'h, I> {
    /// With room for `units`.
    pub fn new(headers: &'h Headers, units: &Units, transform: I) -> Self {
        let components = headers.components.iter();
        let plane = |component| units.plane(component, headers, I::EDGE);
        Self {
            planes: components.clone().map(plane).collect(),
            targets: components.map(|c| targets(c, I::EDGE)).collect(),
            until: until(I::EDGE),
            block: Block([0; 256]),
            headers,
            transform,
        }
    }

    /// Decodes the block in column `x` and row `y` of component `n`, whose first coefficient is
    /// `first`; `bits` are at its second one. Returns where it stopped, and the number of the next
    /// coefficient, as [`Table::read`](super::huffman::Table::read) has them.
    #[inline(always)]
    pub fn paint<'a>(
        &mut self,
        n: usize,
        [x, y]: [usize; 2],
        first: i16,
        bits: Bits<'a>,
    ) -> Option<(Bits<'a>, u32)> {
        let (targets, block) = (&self.targets[n], &mut self.block);
        let first = first.wrapping_mul(targets[0].step);
        block.0[..I::EDGE * I::EDGE].fill(0);
        let mut seen = 0;
        let table = &self.headers.components[n].ac;
        let stop = table.read(bits, self.until, |n, value| {
            let target = targets[usize::from(n)];
            block.0[usize::from(target.place)] = value.wrapping_mul(target.step);
            seen |= value;
        })?;
        block.0[0] = first;
        let plane = &mut self.planes[n];
        let at = (y * I::EDGE - plane.top) * plane.width + x * I::EDGE - plane.left;
        let out = plane.samples.get_mut(at..)?;
        if seen == 0 {
            let rows = out.chunks_mut(plane.width).take(I::EDGE);
            rows.for_each(|row| row[..I::EDGE].fill(flat(first)));
        } else {
            self.transform.inverse(block, out, plane.width);
        }
        Some(stop)
    }

    /// What was decoded, per component.
    pub fn planes(self) -> Vec<Plane> {
        self.planes
    }
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
