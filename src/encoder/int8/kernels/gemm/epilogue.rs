//! From integer sums to outputs.

use super::super::buffer::Disjoint;
use super::super::lanes::{LANES, Lanes};
use super::super::layout::{PANEL, PackedMatrix};
use super::super::math::{Activation, activate};
use super::super::order::Strides;
use super::super::rows::QuantizedRows;
use super::prefetch::{LINE, prefetch_line};

/// Column vectors of a whole panel.
const VECTORS: usize = PANEL / LANES;

/// What becomes of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Sink {
    /// `out = activation(y)`.
    Store(Activation),
    /// `out = out + y`.
    Add,
}

/// Bias, activation or residual, and where the values go.
pub(in super::super) struct Epilogue<'a> {
    /// `[n]`.
    pub(in super::super) bias: &'a [f32],
    pub(in super::super) sink: Sink,
    /// `[rows, n]`, with these strides.
    pub(in super::super) out: Disjoint<'a, f32>,
    pub(in super::super) strides: Strides,
}

/// Weights to fetch while the tiles rest, a line for every vector of outputs.
pub(super) struct Stream {
    pub(super) next: *const i8,
    pub(super) lines: usize,
}

impl Stream {
    #[inline(always)]
    fn advance(&mut self) {
        if self.lines > 0 {
            prefetch_line(self.next);
            self.next = self.next.wrapping_add(LINE);
            self.lines -= 1;
        }
    }
}

/// `V` column vectors of a tile, side by side.
#[derive(Clone, Copy)]
struct Columns<'a, L, const V: usize> {
    /// Integer sums of the first row, 64 apart from row to row.
    sums: *const i32,
    column_sums: *const i32,
    scales: [L; V],
    bias: [L; V],
    row_scales: &'a [f32],
    row_zeros: &'a [i32],
    centre: i32,
    /// The output of the first row, `stride` apart from row to row.
    out: *mut f32,
    stride: usize,
    /// Of each vector: less than sixteen only where it is alone.
    width: usize,
}

impl Epilogue<'_> {
    /// Finishes `count` rows from `first` of one panel.
    ///
    /// # Safety
    /// The CPU has the instruction set; `sums` holds `[count][64]`; this part of the output belongs
    /// to the calling thread.
    #[inline(always)]
    #[expect(
        clippy::too_many_arguments,
        reason = "the position of a tile in a product"
    )]
    pub(super) unsafe fn run<L: Lanes>(
        &self,
        x: &QuantizedRows,
        w: &PackedMatrix,
        panel: usize,
        first: usize,
        count: usize,
        sums: *const i32,
        mut stream: Stream,
    ) {
        let n = w.n();
        assert!(first + count <= x.rows() && self.bias.len() == n);
        let start = panel * PANEL;
        let left = (n - start).min(PANEL);
        let vectors = if left == PANEL { VECTORS } else { 1 };
        for at in (start..start + left).step_by(vectors * LANES) {
            // SAFETY: the caller owns these columns of these rows and gives their sums.
            unsafe {
                let sums = sums.add(at - start);
                if left == PANEL {
                    self.columns::<L, VECTORS>(x, w, at, LANES, first, count, sums, &mut stream);
                } else {
                    let width = (n - at).min(LANES);
                    self.columns::<L, 1>(x, w, at, width, first, count, sums, &mut stream);
                }
            }
        }
    }

    /// Finishes `V` vectors of columns from `at`.
    ///
    /// # Safety
    /// As [`Self::run`]; the columns lie within the panel.
    #[inline(always)]
    #[expect(
        clippy::too_many_arguments,
        reason = "the position of a tile in a product"
    )]
    unsafe fn columns<L: Lanes, const V: usize>(
        &self,
        x: &QuantizedRows,
        w: &PackedMatrix,
        at: usize,
        width: usize,
        first: usize,
        count: usize,
        sums: *const i32,
        stream: &mut Stream,
    ) {
        let stride = self.strides.row;
        let bias = &self.bias[at..at + (V - 1) * LANES + width];
        let scales = &w.padded_scales()[at..at + V * LANES];
        // SAFETY: the caller owns these columns of these rows; scales and column sums are padded to
        // whole panels, the bias holds `width` values for its last vector.
        unsafe {
            let out = (count - 1) * stride + (V - 1) * LANES + width;
            let columns = Columns::<L, V> {
                sums,
                column_sums: w.padded_column_sums()[at..at + V * LANES].as_ptr(),
                scales: std::array::from_fn(|j| L::load(scales[j * LANES..].as_ptr())),
                bias: std::array::from_fn(|j| {
                    L::load_partial(bias[j * LANES..].as_ptr(), width, 0.0)
                }),
                row_scales: &x.scales()[first..first + count],
                row_zeros: &x.zeros()[first..first + count],
                centre: i32::from(x.centre()),
                out: self.out.part(self.strides.place(first, at), out),
                stride,
                width,
            };
            self.finish(columns, stream);
        }
    }

    /// # Safety
    /// The CPU has the instruction set and the pointers are valid for all rows.
    #[inline(always)]
    unsafe fn finish<L: Lanes, const V: usize>(
        &self,
        columns: Columns<'_, L, V>,
        stream: &mut Stream,
    ) {
        // SAFETY: as the caller promises. One loop per function, so that none decides inside.
        unsafe {
            match self.sink {
                Sink::Add => columns.each::<Residual>(stream),
                Sink::Store(Activation::None) => columns.each::<Identity>(stream),
                Sink::Store(Activation::Gelu) => columns.each::<Gelu>(stream),
                Sink::Store(Activation::QuickGelu) => columns.each::<QuickGelu>(stream),
                Sink::Store(Activation::GeluTanh) => columns.each::<GeluTanh>(stream),
                Sink::Store(Activation::Relu) => columns.each::<Relu>(stream),
                Sink::Store(Activation::Tanh) => columns.each::<Tanh>(stream),
            }
        }
    }
}

/// What a value becomes. A trait and not a closure, for `#[inline(always)]`: code that is not
/// inlined would be compiled without the instruction set.
trait Finish {
    /// Whether it looks at the old output.
    const READS: bool = false;
    fn apply<L: Lanes>(y: L, old: L) -> L;
}

macro_rules! finish {
    ($($name:ident),*) => {
        $(
            struct $name;

            impl Finish for $name {
                #[inline(always)]
                fn apply<L: Lanes>(y: L, _: L) -> L {
                    activate(y, Activation::$name)
                }
            }
        )*
    };
}

finish!(Gelu, QuickGelu, GeluTanh, Relu, Tanh);

struct Identity;

impl Finish for Identity {
    #[inline(always)]
    fn apply<L: Lanes>(y: L, _: L) -> L {
        y
    }
}

struct Residual;

impl Finish for Residual {
    const READS: bool = true;

    #[inline(always)]
    fn apply<L: Lanes>(y: L, old: L) -> L {
        old.add(y)
    }
}

impl<L: Lanes, const V: usize> Columns<'_, L, V> {
    /// # Safety
    /// As [`Epilogue::finish`].
    #[inline(always)]
    unsafe fn each<F: Finish>(self, stream: &mut Stream) {
        for (row, (&scale, &zero)) in self.row_scales.iter().zip(self.row_zeros).enumerate() {
            for j in 0..V {
                // SAFETY: the pointers are valid for all rows and vectors, the output for `width`
                // columns of each.
                unsafe {
                    let sums = self.sums.add(row * PANEL + j * LANES);
                    let column_sums = self.column_sums.add(j * LANES);
                    let exact = L::dequantize(sums, column_sums, zero - self.centre);
                    let scale = self.scales[j].same(scale).mul(self.scales[j]);
                    let y = exact.mul_add(scale, self.bias[j]);
                    let out = self.out.add(row * self.stride + j * LANES);
                    stream.advance();
                    if V > 1 || self.width == LANES {
                        let old = if F::READS { L::load(out) } else { y };
                        F::apply(y, old).store(out);
                    } else {
                        let old = if F::READS {
                            L::load_partial(out, self.width, 0.0)
                        } else {
                            y
                        };
                        F::apply(y, old).store_partial(out, self.width);
                    }
                }
            }
        }
    }
}
