//! Layer normalisation in any decomposition: `(x − mean x) / √(mean (x − mean x)² + ε) · γ + β`.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::math::{PowConst, Recip, Rsqrt, Sqrt, Square};
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};

use super::reader::{Arithmetic, Reader};

/// Most factors of one product that are looked at.
const MAX_FACTORS: usize = 8;

/// A layer normalisation over the last axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Norm {
    /// What is normalised.
    pub input: OutletId,
    /// γ.
    pub gamma: Vec<f32>,
    /// β.
    pub beta: Vec<f32>,
    /// ε.
    pub epsilon: f32,
}

/// A factor of a product: divided by when `inverse`.
#[derive(Clone, Copy)]
struct Factor {
    outlet: OutletId,
    inverse: bool,
}

impl Reader<'_> {
    /// A layer normalisation whose result is `outlet`.
    pub fn layer_norm(&self, outlet: OutletId) -> Option<Norm> {
        let outlet = self.base(outlet);
        let width = *self.shape(outlet)?.last()?;
        if let Some((a, b)) = self.sum(outlet) {
            for (product, shift) in [(a, b), (b, a)] {
                if let Some(beta) = self.vector(shift, width) {
                    return self.normalised(product, width, beta);
                }
            }
        }
        self.normalised(outlet, width, vec![0.0; width])
    }

    fn normalised(&self, outlet: OutletId, width: usize, beta: Vec<f32>) -> Option<Norm> {
        let mut factors = Vec::new();
        self.factors(outlet, false, &mut factors)?;
        let mut gamma = vec![1.0; width];
        let (mut centred, mut deviation) = (None, None);
        for factor in factors {
            if let Some(values) = self.vector(factor.outlet, width) {
                for (have, value) in gamma.iter_mut().zip(values) {
                    *have *= if factor.inverse { 1.0 / value } else { value };
                }
            } else if let Some(found) = self.deviation(factor) {
                if deviation.replace(found).is_some() {
                    return None;
                }
            } else if factor.inverse || centred.replace(factor.outlet).is_some() {
                return None;
            }
        }
        let ((of, epsilon), centred) = (deviation?, centred?);
        let input = self.centred(centred)?;
        (self.same(of, input) && self.shape(input)?.last() == Some(&width)).then_some(Norm {
            input,
            gamma,
            beta,
            epsilon,
        })
    }

    /// The factors of a product of any nesting.
    fn factors(&self, outlet: OutletId, inverse: bool, into: &mut Vec<Factor>) -> Option<()> {
        if into.len() >= MAX_FACTORS {
            return None;
        }
        match self.arithmetic(outlet) {
            Some((Arithmetic::Mul, a, b)) if self.constant(outlet).is_none() => {
                self.factors(a, inverse, into)?;
                self.factors(b, inverse, into)
            }
            Some((Arithmetic::Div, a, b)) if self.constant(outlet).is_none() => {
                self.factors(a, inverse, into)?;
                self.factors(b, !inverse, into)
            }
            _ => match self.function(outlet) {
                Some((function, x)) if function.is::<Recip>() => self.factors(x, !inverse, into),
                _ => {
                    into.push(Factor { outlet, inverse });
                    Some(())
                }
            },
        }
    }

    /// `x` and ε when the factor is `1 / √(variance of x + ε)`.
    fn deviation(&self, factor: Factor) -> Option<(OutletId, f32)> {
        let root = |wanted: f32| match self.arithmetic(factor.outlet)? {
            (Arithmetic::Pow, x, power) => (self.scalar(power)? == wanted).then_some(x),
            _ => None,
        };
        let radicand = match self.function(factor.outlet) {
            Some((function, x)) if function.is::<Rsqrt>() && !factor.inverse => x,
            Some((function, x)) if function.is::<Sqrt>() && factor.inverse => x,
            Some((function, x)) => {
                let power = function.downcast_ref::<PowConst>()?.exponent;
                let wanted = if factor.inverse { 0.5 } else { -0.5 };
                (power == wanted).then_some(x)?
            }
            None => root(if factor.inverse { 0.5 } else { -0.5 })?,
        };
        let (a, b) = self.sum(radicand)?;
        let (variance, epsilon) = match (self.scalar(a), self.scalar(b)) {
            (None, Some(epsilon)) => (a, epsilon),
            (Some(epsilon), None) => (b, epsilon),
            _ => return None,
        };
        let centred = match self.op::<Reduce>(self.base(variance)) {
            Some((reduce, inputs)) if reduce.reducer == Reducer::MeanOfSquares => {
                self.is_last_axis(reduce, inputs[0])?;
                inputs[0]
            }
            _ => self.squared(self.mean(variance)?)?,
        };
        Some((self.centred(centred)?, epsilon))
    }

    /// `x` when `outlet` is `x²`.
    fn squared(&self, outlet: OutletId) -> Option<OutletId> {
        match self.function(outlet) {
            Some((function, x)) if function.is::<Square>() => return Some(x),
            Some((function, x)) => {
                return (function.downcast_ref::<PowConst>()?.exponent == 2.0).then_some(x);
            }
            None => {}
        }
        match self.arithmetic(outlet)? {
            (Arithmetic::Mul, a, b) => self.same(a, b).then_some(a),
            (Arithmetic::Pow, x, power) => (self.scalar(power)? == 2.0).then_some(x),
            _ => None,
        }
    }

    /// `x` when `outlet` is `x − mean x`.
    fn centred(&self, outlet: OutletId) -> Option<OutletId> {
        match self.arithmetic(self.base(outlet))? {
            (Arithmetic::Sub, x, mean) => self.same(self.mean(mean)?, x).then_some(x),
            _ => None,
        }
    }

    /// `x` when `outlet` is its mean over the last axis.
    fn mean(&self, outlet: OutletId) -> Option<OutletId> {
        let (factor, sum) = self.scaled(self.base(outlet))?;
        let (reduce, inputs) = self.op::<Reduce>(self.base(sum))?;
        let width = self.is_last_axis(reduce, inputs[0])?;
        #[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
        let count = width as f32;
        (reduce.reducer == Reducer::Sum && (factor * count - 1.0).abs() < 1e-6).then_some(inputs[0])
    }

    fn is_last_axis(&self, reduce: &Reduce, input: OutletId) -> Option<usize> {
        let shape = self.shape(input)?;
        (reduce.axes[..] == [shape.len() - 1]).then(|| shape[shape.len() - 1])
    }
}
