//! The specification of the product, in portable code.

use super::super::lanes;
use super::super::layout::{GROUP, PANEL};
use super::{Microkernel, Tile};

pub(super) struct Scalar;

impl Microkernel for Scalar {
    type Lanes = lanes::Scalar;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn begin() -> Self {
        Self
    }

    #[inline(always)]
    unsafe fn tile(&mut self, tile: Tile) {
        for row in 0..tile.count {
            // SAFETY: the caller gives rows of `4 · groups` bytes, a panel of `groups` groups, and
            // sums for `count` rows.
            let (a, panel, sums) = unsafe {
                (
                    std::slice::from_raw_parts(
                        tile.rows.add(row * tile.stride),
                        GROUP * tile.groups,
                    ),
                    std::slice::from_raw_parts(tile.panel, PANEL * GROUP * tile.groups),
                    tile.sums.add(row * PANEL).cast::<[i32; PANEL]>(),
                )
            };
            let mut acc = [0i32; PANEL];
            for (a, group) in a.chunks_exact(GROUP).zip(panel.chunks_exact(PANEL * GROUP)) {
                for (acc, w) in acc.iter_mut().zip(group.chunks_exact(GROUP)) {
                    for (&a, &w) in a.iter().zip(w) {
                        *acc = acc.wrapping_add(i32::from(a) * i32::from(w));
                    }
                }
            }
            // SAFETY: as above.
            unsafe { sums.write(acc) };
        }
    }
}
