//! Products of six rows in f32: scores of queries, and the mix of the values.

use super::super::lanes::{LANES, Lanes};

/// Rows that are multiplied together.
pub(super) const BLOCK: usize = 6;

/// `done(i, at, Σₗ a[i][l] · b[l][at..at + 16])` for six rows of `depth` values and every vector of
/// `columns` columns; `b` has rows of `stride` values.
///
/// # Safety
/// The CPU has the instruction set; `a` and `b` are readable for these sizes.
#[inline(always)]
pub(super) unsafe fn product<L: Lanes>(
    a: [*const f32; BLOCK],
    depth: usize,
    b: *const f32,
    stride: usize,
    columns: usize,
    done: impl Fn(usize, usize, L),
) {
    let mut at = 0;
    while at < columns {
        let vectors = ((columns - at) / LANES).min(L::TILE_COLUMNS);
        // SAFETY: as the caller promises; `vectors` whole vectors are left.
        unsafe {
            match vectors {
                4 => tile::<L, 4>(a, depth, b.add(at), stride, |i, j, s| done(i, at + j, s)),
                3 => tile::<L, 3>(a, depth, b.add(at), stride, |i, j, s| done(i, at + j, s)),
                2 => tile::<L, 2>(a, depth, b.add(at), stride, |i, j, s| done(i, at + j, s)),
                _ => tile::<L, 1>(a, depth, b.add(at), stride, |i, j, s| done(i, at + j, s)),
            }
        }
        at += vectors * LANES;
    }
}

/// Six rows × C vectors, all sums in registers.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn tile<L: Lanes, const C: usize>(
    a: [*const f32; BLOCK],
    depth: usize,
    b: *const f32,
    stride: usize,
    done: impl Fn(usize, usize, L),
) {
    // SAFETY: as the caller promises.
    let sums = unsafe { tile_sums::<L, C>(a, depth, b, stride) };
    for (i, sums) in sums.iter().enumerate() {
        for (j, &sum) in sums.iter().enumerate() {
            done(i, j * LANES, sum);
        }
    }
}

/// The sums of a tile. By value: where they are also looked at by reference, the compiler may keep
/// them in memory and store all of them in every step.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn tile_sums<L: Lanes, const C: usize>(
    a: [*const f32; BLOCK],
    depth: usize,
    b: *const f32,
    stride: usize,
) -> [[L; C]; BLOCK] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums = [[L::splat(0.0); C]; BLOCK];
        for l in 0..depth {
            let b: [L; C] = std::array::from_fn(|j| L::load(b.add(l * stride + j * LANES)));
            for i in 0..BLOCK {
                let a = L::splat(a[i].add(l).read());
                for j in 0..C {
                    sums[i][j] = a.mul_add(b[j], sums[i][j]);
                }
            }
        }
        sums
    }
}
