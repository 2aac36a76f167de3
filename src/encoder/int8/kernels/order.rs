//! How the values of a product lie in memory.

use super::layout::PANEL;

/// How `[rows, n]` values lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[rows][n]`.
    Rows,
    /// `[⌈n / 64⌉][rows][64]`: each panel of 64 columns by itself. What stands past the `n`th column is
    /// open.
    Panels,
}

/// Distances between values.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    /// From a panel of 64 columns to the next.
    pub(super) panel: usize,
    /// From a row to the next.
    pub(super) row: usize,
}

impl Order {
    /// That of q, k and v of heads of `dim` channels: in panels, where each head lies within one. Its rows
    /// are then neighbours, and in whole rows kilobytes apart.
    pub fn of_heads(dim: usize) -> Self {
        if dim > 0 && PANEL.is_multiple_of(dim) {
            Self::Panels
        } else {
            Self::Rows
        }
    }

    /// Length of `[rows, n]` values.
    pub fn len(self, rows: usize, n: usize) -> usize {
        match self {
            Self::Rows => rows * n,
            Self::Panels => rows * n.next_multiple_of(PANEL),
        }
    }

    pub(super) fn strides(self, rows: usize, n: usize) -> Strides {
        match self {
            Self::Rows => Strides {
                panel: PANEL,
                row: n,
            },
            Self::Panels => Strides {
                panel: rows * PANEL,
                row: PANEL,
            },
        }
    }
}

impl Strides {
    /// Where a value lies.
    pub(super) fn place(self, row: usize, column: usize) -> usize {
        column / PANEL * self.panel + row * self.row + column % PANEL
    }
}
