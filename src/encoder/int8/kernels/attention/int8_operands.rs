//! Keys and values of a head as the weights of a product.

use super::super::lanes::{LANES, Lanes, transpose};
use super::super::layout::{GROUP, PANEL, padded_k};
use super::super::norm::fold;
use super::int8::Head;

impl Head<'_> {
    /// Quantizes the keys, sixteen at a time, and turns their groups into columns.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    pub(super) unsafe fn pack_keys<L: Lanes>(&mut self) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let (padded, depth) = (padded_k(tokens), padded_k(dim));
        for first in (0..padded).step_by(LANES) {
            for i in 0..LANES {
                self.scratch.rows[i * depth..(i + 1) * depth].fill(0);
                let token = first + i;
                let (scale, sum) = if token < tokens {
                    let row = self.row(token, 1).as_ptr();
                    let codes = self.scratch.rows[i * depth..].as_mut_ptr();
                    // SAFETY: the caller has the instruction set; the row holds `dim` values, the
                    // codes `dim` rounded up to 64.
                    unsafe { quantize_key::<L>(row, dim, codes) }
                } else {
                    (0.0, 0)
                };
                self.scratch.key_scales[token] = scale;
                self.scratch.key_sums[token] = sum;
            }
            let panel = first / PANEL * PANEL * depth + first % PANEL * GROUP;
            for at in (0..depth / GROUP).step_by(LANES) {
                let rows = &self.scratch.rows;
                let keys = &mut self.scratch.keys[panel..];
                // SAFETY: the caller has the instruction set; a row of `depth` bytes holds sixteen
                // groups from group `at` on, the keys a column vector of each group. Groups travel
                // as f32, which are only moved.
                unsafe {
                    let mut square: [L; LANES] = std::array::from_fn(|i| {
                        L::load(rows[i * depth + at * GROUP..].as_ptr().cast())
                    });
                    transpose(&mut square);
                    for (i, lanes) in square.into_iter().enumerate() {
                        lanes.store(keys[(at + i) * PANEL * GROUP..].as_mut_ptr().cast());
                    }
                }
            }
        }
    }

    /// Quantizes v per channel, and lays four tokens side by side.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    pub(super) unsafe fn pack_values<L: Lanes>(&mut self) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let (padded, width) = (padded_k(tokens), padded_k(dim));
        for at in (0..width).step_by(LANES) {
            let n = dim.saturating_sub(at).min(LANES);
            // SAFETY: the caller has the instruction set; a row of v holds `n` values from `at`;
            // scales and sums hold sixteen from `at`, the values a column vector of each group.
            unsafe {
                let zero = L::splat(0.0);
                let load = |head: &Self, token: usize| {
                    if n == 0 || token >= tokens {
                        zero
                    } else {
                        let v = head.row(token, 2)[at..].as_ptr();
                        if n == LANES {
                            L::load(v)
                        } else {
                            L::load_partial(v, n, 0.0)
                        }
                    }
                };
                let (mut most, mut poison) = (zero, zero);
                for token in 0..tokens {
                    let v = load(self, token);
                    most = v.abs().max(most);
                    poison = v.mul_add(zero, poison);
                }
                let scale = symmetric_scale(most);
                let inverse = zero.same(1.0).div(scale);
                scale
                    .add(poison)
                    .store(self.scratch.value_scales[at..].as_mut_ptr());
                let panel = at / PANEL * PANEL * padded + at % PANEL * GROUP;
                let mut sum = zero;
                for group in 0..padded / GROUP {
                    let mut four = [zero; GROUP];
                    for (j, lanes) in four.iter_mut().enumerate() {
                        *lanes = load(self, group * GROUP + j).mul(inverse).round();
                        sum = sum.add(*lanes);
                    }
                    let out = &mut self.scratch.values[panel + group * PANEL * GROUP..];
                    L::store_groups(four, out.as_mut_ptr());
                }
                let sums = &mut self.scratch.value_sums[at..at + LANES];
                for (to, sum) in sums.iter_mut().zip(sum.to_array()) {
                    *to = integer(sum);
                }
            }
        }
    }
}

/// max / 127, at least the smallest normal number.
#[inline(always)]
fn symmetric_scale<L: Lanes>(most: L) -> L {
    most.div(most.same(127.0)).max(most.same(f32::MIN_POSITIVE))
}

/// Sums of codes are small integers; those of rows that are not finite do not matter.
#[expect(clippy::cast_possible_truncation, reason = "a small integer")]
#[inline(always)]
fn integer(sum: f32) -> i32 {
    sum as i32
}

/// Symmetric codes of one key: scale (NaN when a value is not finite) and sum of the codes.
///
/// # Safety
/// The CPU has the instruction set; `x` is readable for `n` f32, `codes` writable for `n` rounded up
/// to 16.
#[inline(always)]
unsafe fn quantize_key<L: Lanes>(x: *const f32, n: usize, codes: *mut i8) -> (f32, i32) {
    // SAFETY: as the caller promises.
    unsafe {
        let zero = L::splat(0.0);
        let [a, b, c, d] = fold::<L>(x, n, 0.0, zero, |most, v| v.abs().max(most));
        let most = zero.same(a.max(b).max(c.max(d)).reduce_max());
        let [a, b, c, d] = fold::<L>(x, n, 0.0, zero, |sum, v| v.mul_add(zero, sum));
        let poison = a.add(b).add(c.add(d)).reduce_add();
        let scale = symmetric_scale(most);
        let inverse = zero.same(1.0).div(scale);
        let mut sum = zero;
        for at in (0..n).step_by(LANES) {
            let code = L::load_partial(x.add(at), (n - at).min(LANES), 0.0)
                .mul(inverse)
                .round();
            sum = sum.add(code);
            code.store_signed(codes.add(at));
        }
        (scale.to_array()[0] + poison, integer(sum.reduce_add()))
    }
}
