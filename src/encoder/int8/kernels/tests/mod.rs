//! Every instruction set against the scalar specification.

mod attention;
mod attention_int8;
mod products;
mod rows;

use std::num::NonZeroUsize;

use super::*;

fn context(isa: Isa, threads: usize) -> Context {
    Context::new(isa, NonZeroUsize::new(threads).unwrap())
}

/// A small generator of reproducible numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// In −1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }

    /// Rows of many kinds: zeros of both signs, denormals, one sign only, one spike, huge range.
    fn hostile_rows(&mut self, rows: usize, k: usize) -> Vec<f32> {
        let mut x = Vec::with_capacity(rows * k);
        for row in 0..rows {
            for i in 0..k {
                let unit = self.unit();
                x.push(match row % 8 {
                    0 => unit,
                    1 => -0.0,
                    2 => unit * 1e-41,
                    3 => unit.abs() * 3e38,
                    4 => -unit.abs() * 1e-20,
                    5 if i == k / 2 => 1e6,
                    5 => unit,
                    6 => unit * 10f32.powf(30.0 * self.unit()),
                    _ if i % 2 == 0 => 3e38,
                    _ => -3e38,
                });
            }
        }
        x
    }
}

/// Equal bits, or NaN in both.
fn assert_same(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            g.to_bits() == e.to_bits() || (g.is_nan() && e.is_nan()),
            "{what}: value {i} is {g:e}, not {e:e}"
        );
    }
}

/// The codes 0..=255 of all rows, whatever the kernels of the instruction set want.
fn codes(rows: &QuantizedRows) -> Vec<u8> {
    rows.codes()
        .chunks(rows.stride())
        .flat_map(|row| &row[..rows.k()])
        .map(|code| code.wrapping_add(rows.centre()))
        .collect()
}

fn run_linear(
    cx: &Context,
    x: &[f32],
    rows: usize,
    w: &PackedMatrix,
    bias: &[f32],
    activation: Activation,
) -> Vec<f32> {
    let mut quantized = QuantizedRows::new();
    quantized.quantize(cx, x, rows, w.k());
    let mut out = vec![0.5; rows * w.n()];
    linear(cx, &quantized, w, bias, activation, &mut out);
    linear_add(cx, &quantized, w, bias, &mut out);
    out
}
