//! Keys and values of a head as the weights of a product.

use super::super::lanes::{LANES, Lanes, transpose};
use super::super::layout::{GROUP, PANEL, padded_k};
use super::super::math::exp2;
use super::int8::Head;

/// A channel has a mean that goes past the product when no value is further from it than this much of
/// itself.
const NEAR: f32 = 0.9;
/// The least l: smaller values are quantized as if they were that large.
const LEAST_LOGARITHM: f32 = -12.0;

impl Head<'_> {
    /// What goes past the products: k̄ and v̄. The mean of a channel in which some value is near nothing
    /// does not: less the mean that value would be as large as any other, and if all look at it (a sink)
    /// the rounding of the mean would be all that they see.
    ///
    /// # Safety
    /// The CPU has the instruction set; the mask is there.
    #[inline(always)]
    pub(super) unsafe fn take_means<L: Lanes>(&mut self) {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let count = (0..tokens).filter(|&token| self.takes_part(token)).count();
        let part = if count > 0 { 1.0 / count as f32 } else { 0.0 };
        for start in (0..dim).step_by(PANEL) {
            // SAFETY: the caller has the instruction set; the means hold whole panels.
            unsafe {
                let part = L::splat(part);
                let zero = part.same(0.0);
                let (mut keys, mut values) = ([zero; 4], [zero; 4]);
                let mut least = [zero.same(f32::INFINITY); 4];
                let mut most = [zero.same(f32::NEG_INFINITY); 4];
                for token in (0..tokens).filter(|&token| self.takes_part(token)) {
                    let (k, v) = (self.rows.row(token, 1), self.rows.row(token, 2));
                    for j in 0..PANEL / LANES {
                        let at = start + j * LANES;
                        keys[j] = load::<L>(k, at).mul_add(part, keys[j]);
                        let v = load::<L>(v, at);
                        values[j] = v.mul_add(part, values[j]);
                        least[j] = v.min(least[j]);
                        most[j] = v.max(most[j]);
                    }
                }
                for j in 0..PANEL / LANES {
                    let at = start + j * LANES;
                    keys[j].store(self.scratch.key_mean[at..at + LANES].as_mut_ptr());
                    let mean = &mut self.scratch.value_mean[at..at + LANES];
                    values[j].store(mean.as_mut_ptr());
                    let ranges = least[j].to_array().into_iter().zip(most[j].to_array());
                    for (mean, (least, most)) in mean.iter_mut().zip(ranges) {
                        if (most - *mean).max(*mean - least) >= NEAR * mean.abs() {
                            *mean = 0.0;
                        }
                    }
                }
            }
        }
    }

    /// Quantizes the keys, sixteen at a time, and turns their groups into columns.
    ///
    /// # Safety
    /// The CPU has the instruction set; the means are there.
    #[inline(always)]
    pub(super) unsafe fn pack_keys<L: Lanes>(&mut self) {
        let depth = padded_k(self.shape.dim);
        for first in (0..self.shape.tokens).step_by(LANES) {
            // SAFETY: the caller has the instruction set; all slices are as long as what is read or
            // written. Groups travel as f32, which are only moved.
            unsafe {
                let size = self.centre_rows::<L>(1, first, 0);
                let scale = size.mul(size.same(1.0 / 127.0));
                let scale = scale.max(size.same(f32::MIN_POSITIVE));
                let inverses = size.same(1.0).div(scale).to_array();
                let scratch = &mut *self.scratch;
                let mut sums = [size.same(0.0); LANES];
                let rows = scratch.centred.chunks_exact(depth).zip(inverses);
                for (i, (row, inverse)) in rows.take(LANES).enumerate() {
                    let codes = &mut scratch.rows[i * depth..(i + 1) * depth];
                    let inverse = size.same(inverse);
                    let mut sum = size.same(0.0);
                    for (x, codes) in row.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
                        let code = L::load(x.as_ptr()).mul(inverse).round();
                        sum = sum.add(code);
                        code.store_signed(codes.as_mut_ptr());
                    }
                    sums[i] = sum;
                }
                transpose(&mut sums);
                let sum = add_all(sums);
                // A value that is not finite makes the sum NaN: ∞ − ∞, ∞ · 0.
                let scale = sum.mul_add(sum.same(0.0), scale);
                scale.store(scratch.key_scales[first..first + LANES].as_mut_ptr());
                let key_sums = &mut scratch.key_sums[first..first + LANES];
                for (to, sum) in key_sums.iter_mut().zip(sum.to_array()) {
                    *to = integer(sum);
                }
                let panel = first / PANEL * PANEL * depth + first % PANEL * GROUP;
                for at in (0..depth / GROUP).step_by(LANES) {
                    let mut square = [scale; LANES];
                    for (lanes, row) in square.iter_mut().zip(scratch.rows.chunks_exact(depth)) {
                        let groups = &row[at * GROUP..(at + LANES) * GROUP];
                        *lanes = L::load(groups.as_ptr().cast());
                    }
                    transpose(&mut square);
                    for (i, lanes) in square.into_iter().enumerate() {
                        let column = panel + (at + i) * PANEL * GROUP;
                        let groups = &mut scratch.keys[column..column + LANES * GROUP];
                        lanes.store(groups.as_mut_ptr().cast());
                    }
                }
            }
        }
    }

    /// Quantizes v per token, and lays four tokens side by side.
    ///
    /// # Safety
    /// The CPU has the instruction set; mask and means are there.
    #[inline(always)]
    pub(super) unsafe fn pack_values<L: Lanes>(&mut self) {
        let (padded, width) = (padded_k(self.shape.tokens), padded_k(self.shape.dim));
        // SAFETY: as the caller promises.
        unsafe { self.scale_values::<L>() };
        let inverse = 1.0 / self.value_scale;
        let packed = self.shape.tokens.next_multiple_of(LANES);
        let scratch = &mut *self.scratch;
        for panel in scratch.values.chunks_exact_mut(PANEL * padded) {
            panel[PANEL * packed..].fill(0);
        }
        let rows = scratch.centred[..packed * width].chunks_exact(GROUP * width);
        let shares = scratch.shares.chunks_exact(GROUP);
        for (group, (rows, shares)) in rows.zip(shares).enumerate() {
            for at in (0..width).step_by(LANES) {
                let panel = at / PANEL * PANEL * padded + at % PANEL * GROUP;
                let column = panel + group * PANEL * GROUP;
                let values = &mut scratch.values[column..column + LANES * GROUP];
                // SAFETY: the caller has the instruction set; rows and values hold sixteen and 64.
                unsafe {
                    let mut four = [L::splat(inverse); GROUP];
                    for ((lanes, row), share) in
                        four.iter_mut().zip(rows.chunks_exact(width)).zip(shares)
                    {
                        let v = L::load(row[at..at + LANES].as_ptr());
                        // In this order nothing overflows, however small all values are.
                        *lanes = v.mul(*lanes).mul(lanes.same(*share));
                    }
                    L::store_groups(four, values.as_mut_ptr());
                }
            }
        }
        if L::CENTRE != 0 {
            self.sum_values();
        }
    }

    /// Sums over the tokens, which take the centre of the weights back out of the product.
    fn sum_values(&mut self) {
        let panel_len = PANEL * padded_k(self.shape.tokens);
        let scratch = &mut *self.scratch;
        scratch.value_sums.fill(0);
        let panels = scratch.values.chunks_exact(panel_len);
        for (sums, panel) in scratch.value_sums.chunks_exact_mut(PANEL).zip(panels) {
            for groups in panel.chunks_exact(PANEL * GROUP) {
                for (sum, group) in sums.iter_mut().zip(groups.chunks_exact(GROUP)) {
                    *sum += group.iter().map(|&v| i32::from(v)).sum::<i32>();
                }
            }
        }
    }

    /// Rows of v less the mean, and the scale of each: b, and l, which joins the mask.
    ///
    /// # Safety
    /// As [`Self::pack_values`].
    #[inline(always)]
    unsafe fn scale_values<L: Lanes>(&mut self) {
        let tokens = self.shape.tokens;
        // SAFETY: the caller has the instruction set; all slices hold sixteen values.
        unsafe {
            let mut most = L::splat(f32::MIN_POSITIVE * 127.0);
            for first in (0..tokens).step_by(LANES) {
                let size = self.centre_rows::<L>(2, first, first);
                size.store(self.scratch.shares[first..first + LANES].as_mut_ptr());
                most = size.max(most);
            }
            let most = most.reduce_max();
            self.value_scale = most / 127.0;
            let scratch = &mut *self.scratch;
            for first in (0..tokens).step_by(LANES) {
                let shares = &mut scratch.shares[first..first + LANES];
                let mut logarithms = [0.0; LANES];
                for (l, size) in logarithms.iter_mut().zip(&*shares) {
                    *l = log2_from_above(size / most).clamp(LEAST_LOGARITHM, 0.0);
                }
                let l = L::load(logarithms.as_ptr());
                let mask = L::load(scratch.mask[first..first + LANES].as_ptr());
                let offsets = &mut scratch.offsets[first..first + LANES];
                mask.add(l).store(offsets.as_mut_ptr());
                exp2(l.same(0.0).sub(l)).store(shares.as_mut_ptr());
            }
        }
    }

    /// Sixteen rows of k (1) or v (2) from token `first` less the mean, from row `place` of the scratch
    /// memory on; zeros for tokens that are left out. Returns the largest magnitude of each row, NaNs
    /// passed over.
    ///
    /// # Safety
    /// As [`Self::pack_keys`].
    #[inline(always)]
    unsafe fn centre_rows<L: Lanes>(&mut self, which: usize, first: usize, place: usize) -> L {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim);
        let width = padded_k(dim);
        // SAFETY: the caller has the instruction set; means and rows hold whole vectors.
        unsafe {
            let mut sizes = [L::splat(0.0); LANES];
            for (i, size) in sizes.iter_mut().enumerate() {
                let token = first + i;
                let takes_part = token < tokens && self.takes_part(token);
                let scratch = &mut *self.scratch;
                let out = &mut scratch.centred[(place + i) * width..(place + i + 1) * width];
                if !takes_part {
                    out.fill(0.0);
                    continue;
                }
                let row = self.rows.row(token, which);
                let means = [&scratch.key_mean, &scratch.value_mean][which - 1];
                let mut most = *size;
                let means = means.chunks_exact(LANES);
                for ((at, mean), out) in (0..)
                    .step_by(LANES)
                    .zip(means)
                    .zip(out.chunks_exact_mut(LANES))
                {
                    let x = load::<L>(row, at).sub(L::load(mean.as_ptr()));
                    x.store(out.as_mut_ptr());
                    most = x.abs().max(most);
                }
                *size = most;
            }
            transpose(&mut sizes);
            let mut most = sizes[0];
            for size in sizes {
                most = size.max(most);
            }
            most
        }
    }
}

/// Lane by lane, by a tree.
#[inline(always)]
fn add_all<L: Lanes>(mut rows: [L; LANES]) -> L {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            rows[i] = rows[i].add(rows[i + half]);
        }
        half /= 2;
    }
    rows[0]
}

/// Sixteen values of a row from `at` on, zeros past its end.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn load<L: Lanes>(row: &[f32], at: usize) -> L {
    let row = row.get(at..).unwrap_or_default();
    // SAFETY: the caller has the instruction set; the row holds as many values.
    unsafe {
        if row.len() >= LANES {
            L::load(row.as_ptr())
        } else {
            L::load_partial(row.as_ptr(), row.len(), 0.0)
        }
    }
}

/// log₂ x or up to 0.0861 more, for x ≥ 0: the exponent and, for the logarithm of the fraction, the
/// fraction itself, which is at most so much below it (Mitchell, 1962).
#[inline(always)]
fn log2_from_above(x: f32) -> f32 {
    const MOST_BELOW: f32 = 0.0861;
    const UNIT: f32 = 1.0 / (1 << 23) as f32;
    let bits = |x: f32| x.to_bits().cast_signed();
    bits(x).wrapping_sub(bits(1.0)) as f32 * UNIT + MOST_BELOW
}

/// Sums of codes are small integers; those of rows that are not finite do not matter.
#[expect(clippy::cast_possible_truncation, reason = "a small integer")]
#[inline(always)]
fn integer(sum: f32) -> i32 {
    sum as i32
}
