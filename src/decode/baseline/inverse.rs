//! The inverse transform at three sizes, in 16-bit products of pairs.
//!
//! A block of 8×8 pixels has 64 coefficients `F[v][u]` (ITU-T T.81, A.3.3). Its `N × N` lowest ones,
//! transformed for `N` instead of 8 points, are the same picture at `N/8` of its size, without what is
//! too fine for it, so that nothing aliases:
//!
//! ```text
//! C[k][n] = ½·c(k)·cos((2n + 1)·k·π / 2N)        c(0) = 1/√2, c(k) = 1
//! T[y][u] = Σ_v C[v][y]·F[v][u]
//! X[y][x] = Σ_u C[u][x]·T[y][u] + 128
//! ```
//!
//! `C` has [`BASIS_BITS`] fraction bits, `T` is rounded to [`BETWEEN_BITS`] and held within 16 bits,
//! and `X` is rounded and held within 0–255. A sum is at most 8·2¹⁵·2¹² = 2³⁰, and half of a bit and
//! 128·2¹⁸ beside it: it fits 32 bits whatever the coefficients are. A picture's are within ±2¹¹, and
//! `T` then within ±2¹⁴; coefficients beyond that are damage, and wrap.

#[cfg(target_arch = "x86_64")]
pub mod avx2;

/// Fraction bits of `C`.
const BASIS_BITS: u32 = 13;
/// Fraction bits of `T`.
const BETWEEN_BITS: u32 = 5;
/// To `T`.
const FIRST_SHIFT: u32 = BASIS_BITS - BETWEEN_BITS;
const FIRST_HALF: i32 = 1 << (FIRST_SHIFT - 1);
/// To `X`.
const LAST_SHIFT: u32 = BASIS_BITS + BETWEEN_BITS;
/// Half of a bit, and the middle of the range.
const LAST_BIAS: i32 = (1 << (LAST_SHIFT - 1)) + (128 << LAST_SHIFT);

/// How large a picture is decoded, from the smallest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scale {
    /// A quarter in each direction.
    Quarter,
    /// Half.
    Half,
    /// As it is.
    Whole,
}

impl Scale {
    /// All, from the smallest on.
    pub const ALL: [Self; 3] = [Self::Quarter, Self::Half, Self::Whole];

    /// Samples that are left of the 8 of a block's edge.
    pub fn edge(self) -> usize {
        match self {
            Self::Quarter => 2,
            Self::Half => 4,
            Self::Whole => 8,
        }
    }
}

/// Coefficients of a block, times their quantization steps, where [`place`] says. Behind them is room
/// for what is not wanted, so that every `u8` is a place.
#[repr(C, align(32))]
pub struct Block(pub [i16; 256]);

/// Where coefficients go that are not wanted.
pub const NOWHERE: u8 = 64;

/// Where `F[v][u]` of the lowest `edge × edge` is in a [`Block`]: rows in pairs, 0 and 2, 4 and 6,
/// then the odd ones, each pair interleaved. So are they multiplied, and even and odd sums apart make
/// two mirrored rows.
pub const fn place(edge: usize, v: usize, u: usize) -> usize {
    let row = v / 2 + v % 2 * (edge / 2);
    row / 2 * 2 * edge + 2 * u + row % 2
}

/// `C[k][n]` for transforms of `N` points.
const fn basis<const N: usize>() -> [[i16; N]; N] {
    /// `2¹²·cos(j·π/16)`.
    const COSINES: [i16; 9] = [4096, 4017, 3784, 3406, 2896, 2276, 1567, 799, 0];
    let mut basis = [[COSINES[4]; N]; N];
    let mut k = 1;
    while k < N {
        let mut n = 0;
        while n < N {
            let angle = (2 * n + 1) * k * (8 / N) % 32;
            let angle = if angle > 16 { 32 - angle } else { angle };
            basis[k][n] = if angle > 8 {
                -COSINES[16 - angle]
            } else {
                COSINES[angle]
            };
            n += 1;
        }
        k += 1;
    }
    basis
}

/// One kind of transform.
pub trait Inverse: Copy {
    /// Samples of an edge.
    const EDGE: usize;

    /// Transforms `block` to rows of [`Inverse::EDGE`] samples, `stride` apart.
    fn inverse(self, block: &Block, out: &mut [u8], stride: usize);
}

/// A computation that is written once for every kind of transform.
pub trait Transformed {
    /// Its result.
    type Output;

    /// Does it with this one. Implementations are `#[inline(always)]`, so that the body is compiled with
    /// the instruction set of the caller.
    fn with<I: Inverse>(self, transform: I) -> Self::Output;
}

/// Does it with the fastest transform to `scale`, and the instructions that this takes. Gives the
/// computation back on a processor without them, on which what saves time elsewhere does not pay.
#[cfg(target_arch = "x86_64")]
pub fn with_vectors<T: Transformed>(scale: Scale, computation: T) -> Result<T::Output, T> {
    let Some(avx2) = avx2::Avx2::detect() else {
        return Err(computation);
    };
    Ok(match scale {
        Scale::Quarter => avx2.run(computation, Portable::<2>),
        Scale::Half => avx2.run(computation, avx2::Half(avx2)),
        Scale::Whole => avx2.run(computation, avx2::Whole(avx2)),
    })
}

/// Does it with the specification, which is all that there is here.
#[cfg(not(target_arch = "x86_64"))]
pub fn with_vectors<T: Transformed>(scale: Scale, computation: T) -> Result<T::Output, T> {
    Ok(portably(scale, computation))
}

/// Does it with the fastest transform to `scale`.
pub fn with_transform<T: Transformed>(scale: Scale, computation: T) -> T::Output {
    with_vectors(scale, computation).unwrap_or_else(|computation| portably(scale, computation))
}

fn portably<T: Transformed>(scale: Scale, computation: T) -> T::Output {
    match scale {
        Scale::Quarter => computation.with(Portable::<2>),
        Scale::Half => computation.with(Portable::<4>),
        Scale::Whole => computation.with(Portable::<8>),
    }
}

/// Does what transforms nothing with the same instructions.
pub fn without_transform<T: Transformed>(computation: T) -> T::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = avx2::Avx2::detect() {
        return avx2.run(computation, Portable::<2>);
    }
    computation.with(Portable::<2>)
}

/// The specification.
#[derive(Clone, Copy)]
pub struct Portable<const N: usize>;

impl<const N: usize> Inverse for Portable<N> {
    const EDGE: usize = N;

    #[inline(always)]
    fn inverse(self, block: &Block, out: &mut [u8], stride: usize) {
        let basis = const { basis::<N>() };
        let mut between = [[0_i16; N]; N];
        for (y, row) in between.iter_mut().enumerate() {
            let mut sums = [FIRST_HALF; N];
            for (v, weights) in basis.iter().enumerate() {
                for (u, sum) in sums.iter_mut().enumerate() {
                    *sum += i32::from(block.0[place(N, v, u)]) * i32::from(weights[y]);
                }
            }
            for (value, sum) in row.iter_mut().zip(sums) {
                *value = saturate(sum >> FIRST_SHIFT);
            }
        }
        for (row, out) in between.iter().zip(out.chunks_mut(stride)) {
            let mut sums = [LAST_BIAS; N];
            for (u, value) in row.iter().enumerate() {
                for (sum, weight) in sums.iter_mut().zip(&basis[u]) {
                    *sum += i32::from(*value) * i32::from(*weight);
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sample(sum);
            }
        }
    }
}

/// The samples of a block whose first coefficient alone is not 0, at every size.
#[inline]
pub fn flat(first: i16) -> u8 {
    const C: i32 = basis::<2>()[0][0] as i32;
    let between = saturate((i32::from(first) * C + FIRST_HALF) >> FIRST_SHIFT);
    sample(i32::from(between) * C + LAST_BIAS)
}

/// From a sum with [`LAST_BIAS`] in it.
#[inline(always)]
fn sample(sum: i32) -> u8 {
    u8::try_from((sum >> LAST_SHIFT).clamp(0, 255)).unwrap_or(u8::MAX)
}

#[inline(always)]
fn saturate(value: i32) -> i16 {
    let range = i32::from(i16::MIN)..=i32::from(i16::MAX);
    i16::try_from(value.clamp(*range.start(), *range.end())).unwrap_or(i16::MAX)
}

#[cfg(test)]
mod tests;
