//! Elementary functions on lanes, each a fixed sequence of IEEE 754 operations.
//!
//! The polynomials are minimax fits (Lawson-weighted least squares on a dense grid, coefficients
//! rounded to f32); the tests state and check their errors against f64.

use super::lanes::Lanes;

/// An elementwise function after a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    None,
    /// x · Φ(x), with the normal distribution function Φ (the "erf" GELU); absolute error below
    /// 2·10⁻⁶ and below 1·10⁻⁶ · |x|.
    Gelu,
    /// x · σ(1.702 x), as in the first CLIP models.
    QuickGelu,
    /// x · (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// tanh(x).
    Tanh,
}

impl Activation {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Gelu,
        Self::QuickGelu,
        Self::GeluTanh,
        Self::Relu,
        Self::Tanh,
    ];
}

#[inline(always)]
pub(super) fn activate<L: Lanes>(x: L, activation: Activation) -> L {
    match activation {
        Activation::None => x,
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => gated(x, x, 1.702),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::Relu => x.same(0.0).max(x),
        Activation::Tanh => tanh(x),
    }
}

#[inline(always)]
fn horner<L: Lanes>(x: L, coefficients: &[f32]) -> L {
    let (last, rest) = coefficients
        .split_last()
        .expect("a polynomial has coefficients");
    let mut sum = x.same(*last);
    for &c in rest.iter().rev() {
        sum = sum.mul_add(x, x.same(c));
    }
    sum
}

/// eˣ, relative error below 2·10⁻⁷ for −87.3 ≤ x ≤ 88; above it stays at e⁸⁸, below it soon becomes
/// exactly 0, so that a masked key has no weight at all. NaN gives NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2 (ln 2 in two parts, Cody and Waite), then 2ⁿ · p(r), where the
/// bits of 2⁻¹²⁷ are taken as 0.
#[inline(always)]
pub(super) fn exp<L: Lanes>(x: L) -> L {
    const P: [f32; 7] = [
        1.0,
        1.0,
        0.499_999_94,
        0.166_664_3,
        0.041_668_005,
        0.008_374_155,
        0.001_384_362_7,
    ];
    let x = x.same(-88.2).max(x);
    let x = x.same(88.0).min(x);
    let n = x.mul(x.same(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(x.same(-0.693_359_4), x);
    let r = n.mul_add(x.same(2.121_944_4e-4), r);
    horner(r, &P).mul(n.exp2_of_integer())
}

/// 2ᶠ for |f| ≤ ½.
#[expect(
    clippy::approx_constant,
    reason = "a minimax coefficient close to ln 2"
)]
const EXP2: [f32; 6] = [
    1.0,
    0.693_147,
    0.240_222_42,
    0.055_507_34,
    0.009_671_513,
    0.001_326_469_7,
];

/// 2ᵖ for |p| ≤ 126, relative error below 2·10⁻⁷ plus that of rounding p.
#[inline(always)]
pub(super) fn exp2<L: Lanes>(p: L) -> L {
    let n = p.round();
    horner(p.sub(n), &EXP2).scale_by_exp2(n)
}

/// 2ᵖ for p ≤ 0, and exactly 0 for p < −126.5; otherwise as [`exp2`]. NaN gives NaN.
#[inline(always)]
pub(super) fn weight<L: Lanes>(p: L) -> L {
    let p = p.same(-127.0).max(p);
    let n = p.round();
    horner(p.sub(n), &EXP2).mul(n.exp2_of_integer())
}

/// 32767 · 2ᵖ for p ≤ 0: between 0 and 32767, the error below 8·10⁻⁵ of the result. NaN gives NaN.
#[inline(always)]
pub(super) fn weight_code<L: Lanes>(p: L) -> L {
    const P: [f32; 4] = [32_764.643, 22_716.082, 7_949.640_6, 1_807.810_8];
    let p = p.same(-100.0).max(p);
    let n = p.round();
    horner(p.sub(n), &P).scale_by_exp2(n)
}

/// x · σ(factor · y) = x / (1 + 2^(−log₂e · factor · y)); the power stays within 2^±126.
#[inline(always)]
fn gated<L: Lanes>(x: L, y: L, factor: f32) -> L {
    let one = x.same(1.0);
    let p = y.mul(x.same(-std::f32::consts::LOG2_E * factor));
    let p = x.same(-126.0).max(p);
    let p = x.same(126.0).min(p);
    x.div(one.add(exp2(p)))
}

/// x Φ(x) = max(x, 0) − |x| · h(|x|) with h(u) = erfc(u/√2) / 2 = 2^(−1 + u q(u)).
///
/// q is a polynomial of degree 4 with |h error| < 3.1·10⁻⁷ (6.2·10⁻⁷ in erf), so that one exponential
/// serves and no quotient.
#[inline(always)]
fn gelu<L: Lanes>(x: L) -> L {
    const Q: [f32; 5] = [
        -1.151_091_3,
        -0.459_254_7,
        -0.052_561_168,
        0.007_397_465_4,
        -0.000_520_448_84,
    ];
    let u = x.abs();
    let p = horner(u, &Q).mul_add(u, x.same(-1.0));
    let h = exp2(x.same(-126.0).max(p));
    u.same(0.0).sub(u).mul_add(h, x.same(0.0).max(x))
}

/// 1 − 2 / (1 + e²ˣ); absolute error below 3·10⁻⁷.
#[inline(always)]
fn tanh<L: Lanes>(x: L) -> L {
    let one = x.same(1.0);
    let e = exp(x.add(x));
    one.sub(x.same(2.0).div(one.add(e)))
}

#[inline(always)]
fn gelu_tanh<L: Lanes>(x: L) -> L {
    // (1 + tanh(y)) / 2 = σ(2y).
    let cube = x.mul(x).mul(x);
    let y = cube.mul_add(x.same(0.044_715), x);
    gated(x, y, 1.595_769)
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{LANES, Scalar};
    use super::*;

    fn one(f: impl Fn(Scalar) -> Scalar, x: f32) -> f32 {
        // SAFETY: portable lanes.
        f(unsafe { Scalar::splat(x) }).to_array()[LANES - 1]
    }

    /// erfc by its series near 0 and its continued fraction far from it.
    fn erfc(x: f64) -> f64 {
        if x < 0.0 {
            return 2.0 - erfc(-x);
        }
        let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
        if x < 2.5 {
            let (mut term, mut sum) = (2.0 * x, 2.0 * x);
            for n in 1..80 {
                term *= 2.0 * x * x / f64::from(2 * n + 1);
                sum += term;
            }
            1.0 - scale * sum
        } else {
            let mut tail = 0.0;
            for n in (1..80).rev() {
                tail = f64::from(n) / 2.0 / (x + tail);
            }
            scale / (x + tail)
        }
    }

    fn grid(limit: f64) -> impl Iterator<Item = f32> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "grid points need no precision"
        )]
        (-40_000..=40_000).map(move |i| (f64::from(i) / 40_000.0 * limit) as f32)
    }

    #[test]
    fn exp_is_within_its_stated_error() {
        for x in grid(87.0) {
            let exact = f64::from(x).exp();
            let got = f64::from(one(exp, x));
            assert!(
                (got / exact - 1.0).abs() < 2e-7,
                "exp({x}) = {got}, not {exact}"
            );
        }
        assert!(one(exp, f32::NAN).is_nan());
        assert_eq!(one(exp, f32::NEG_INFINITY).to_bits(), 0);
        assert_eq!(one(exp, -88.0).to_bits(), 0);
        assert!(one(exp, f32::INFINITY).is_finite());
    }

    #[test]
    fn weight_codes_are_within_their_stated_error() {
        for x in grid(60.0).filter(|x| *x <= 0.0) {
            let exact = 32_767.0 * f64::from(x).exp2();
            let got = f64::from(one(weight_code, x));
            assert!(
                (got / exact - 1.0).abs() < 8e-5 && got <= 32_767.0,
                "weight_code({x}) = {got}, not {exact}"
            );
        }
        assert!(one(weight_code, f32::NAN).is_nan());
        assert!(one(weight_code, f32::NEG_INFINITY) < 1e-20);
    }

    #[test]
    fn gelu_is_within_its_stated_error() {
        for x in grid(12.0).chain(grid(1.0)) {
            let wide = f64::from(x);
            let exact = wide * 0.5 * erfc(-wide / std::f64::consts::SQRT_2);
            let error = (f64::from(one(gelu, x)) - exact).abs();
            assert!(
                error < 2e-6 && error <= 1e-6 * wide.abs(),
                "gelu({x}): {error}"
            );
        }
        for x in [-1e30, -1e4, -30.0] {
            assert!(one(gelu, x).abs() < 1e-6, "gelu({x})");
        }
        assert_eq!(one(gelu, 1e30).to_bits(), 1e30f32.to_bits());
        assert!(one(gelu, f32::NAN).is_nan());
    }

    #[test]
    fn the_other_activations_follow_their_formulas() {
        for x in grid(20.0) {
            let wide = f64::from(x);
            let quick = wide / (1.0 + (-1.702 * wide).exp());
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let smooth = 0.5 * wide * (1.0 + inner.tanh());
            for (activation, exact) in [
                (Activation::QuickGelu, quick),
                (Activation::GeluTanh, smooth),
                (Activation::Tanh, wide.tanh()),
                (Activation::Relu, wide.max(0.0)),
                (Activation::None, wide),
            ] {
                let got = f64::from(one(|x| activate(x, activation), x));
                let limit = 3e-7 + 4e-7 * wide.abs();
                assert!(
                    (got - exact).abs() < limit,
                    "{activation:?}({x}) = {got}, not {exact}"
                );
            }
        }
    }
}
