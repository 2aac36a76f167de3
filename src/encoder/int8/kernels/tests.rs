//! Every instruction set against the scalar specification.

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

const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Gelu,
    Activation::QuickGelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Tanh,
];

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

#[test]
fn products_have_the_bits_of_the_specification_for_any_shape() {
    let mut random = Random(1);
    for case in 0..60 {
        let rows = if case < 35 {
            case + 1
        } else {
            1 + random.below(70)
        };
        let (n, k) = (1 + random.below(150), 1 + random.below(300));
        let x = random.hostile_rows(rows, k);
        let w = PackedMatrix::quantize(&random.hostile_rows(n, k), n, k);
        let bias = random.values(n);
        let activation = ACTIVATIONS[case % 6];
        let expected = run_linear(&context(Isa::Scalar, 1), &x, rows, &w, &bias, activation);
        for isa in Isa::supported() {
            for threads in [1, 3] {
                let got = run_linear(&context(isa, threads), &x, rows, &w, &bias, activation);
                assert_same(
                    &got,
                    &expected,
                    &format!("{isa} {rows}×{k}→{n} {activation:?}"),
                );
            }
        }
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    for k in [MAX_K, 4096] {
        let x = vec![1.0; 2 * k];
        let weights: Vec<f32> = (0..2 * k).map(|i| if i < k { 1.0 } else { -1.0 }).collect();
        let w = PackedMatrix::quantize(&weights, 2, k);
        for isa in Isa::supported() {
            let cx = context(isa, 1);
            let mut quantized = QuantizedRows::new();
            quantized.quantize(&cx, &x, 2, k);
            let mut out = [0.0; 4];
            linear(&cx, &quantized, &w, &[0.0; 2], Activation::None, &mut out);
            for (value, sign) in out.iter().zip([1.0, -1.0, 1.0, -1.0]) {
                let error = (value / (sign * k as f32) - 1.0).abs();
                assert!(error < 1e-5, "{isa}: {value} for {k} ones");
            }
        }
    }
}

#[test]
fn a_product_is_close_to_that_of_the_floats() {
    let mut random = Random(2);
    let (rows, n, k) = (9, 70, 256);
    let (x, weights, bias) = (
        random.values(rows * k),
        random.values(n * k),
        random.values(n),
    );
    let w = PackedMatrix::quantize(&weights, n, k);
    let cx = context(Isa::detect(), 1);
    let mut quantized = QuantizedRows::new();
    quantized.quantize(&cx, &x, rows, k);
    let mut out = vec![0.0; rows * n];
    linear(&cx, &quantized, &w, &bias, Activation::None, &mut out);
    let (mut dot, mut a, mut b) = (0.0, 0.0, 0.0);
    for row in 0..rows {
        for channel in 0..n {
            let exact: f32 = (0..k)
                .map(|i| x[row * k + i] * weights[channel * k + i])
                .sum();
            let (exact, got) = (exact + bias[channel], out[row * n + channel]);
            // Each of 256 products is off by at most about 1/127 + 1/255 of 1.
            assert!((got - exact).abs() < 0.5, "{got} for {exact}");
            dot += got * exact;
            a += got * got;
            b += exact * exact;
        }
    }
    assert!(
        dot / (a * b).sqrt() > 0.9999,
        "cosine {}",
        dot / (a * b).sqrt()
    );
}

#[test]
fn rows_are_quantized_alike_everywhere_and_to_half_a_step() {
    let mut random = Random(3);
    for k in [1, 7, 16, 63, 64, 65, 200, 768] {
        let rows = 17;
        let x = random.hostile_rows(rows, k);
        let mut expected = QuantizedRows::new();
        expected.quantize(&context(Isa::Scalar, 1), &x, rows, k);
        for (i, (back, x)) in expected.dequantize().iter().zip(&x).enumerate() {
            let step = expected.scales()[i / k];
            assert!(
                (back - x).abs() <= 1.01 * step,
                "{back} for {x}, step {step}"
            );
        }
        for isa in Isa::supported() {
            let mut got = QuantizedRows::new();
            got.quantize(&context(isa, 2), &x, rows, k);
            assert_eq!(codes(&got), codes(&expected), "{isa} k {k}");
            assert_same(got.scales(), expected.scales(), isa.name());
            assert_eq!(got.zeros(), expected.zeros(), "{isa} k {k}");
        }
    }
}

#[test]
fn rows_that_are_not_finite_make_nan_of_their_outputs_only() {
    for isa in Isa::supported() {
        let cx = context(isa, 1);
        let k = 40;
        let mut x = vec![1.0; 4 * k];
        x[3] = f32::NAN;
        x[k + 39] = f32::INFINITY;
        x[2 * k] = f32::NEG_INFINITY;
        let w = PackedMatrix::quantize(&vec![1.0; 3 * k], 3, k);
        let out = run_linear(&cx, &x, 4, &w, &[0.0; 3], Activation::None);
        assert!(out[..9].iter().all(|y| y.is_nan()), "{isa}: {out:?}");
        assert!(out[9..].iter().all(|y| y.is_finite()), "{isa}: {out:?}");
        let mut normed = vec![0.0; 4 * k];
        layer_norm(
            &cx,
            &x,
            4,
            k,
            &vec![1.0; k],
            &vec![0.0; k],
            1e-5,
            &mut normed,
        );
        assert!(normed[..3 * k].iter().all(|y| y.is_nan()), "{isa}");
        assert!(normed[3 * k..].iter().all(|y| y.is_finite()), "{isa}");
        x.truncate(4 * 39);
        let mut out = vec![0.0; 4 * 13];
        attention(&cx, &x, 1, 4, 1, 13, 1.0, None, false, &mut out);
        assert!(out.iter().any(|y| y.is_nan()), "{isa}");
    }
}

#[test]
fn layer_norm_follows_its_formula_and_is_the_same_everywhere() {
    let mut random = Random(4);
    for (rows, k) in [(1, 1), (3, 5), (20, 64), (9, 100), (50, 768)] {
        let x: Vec<f32> = random
            .values(rows * k)
            .iter()
            .map(|v| v * 3.0 + 1.0)
            .collect();
        let (gamma, beta) = (random.values(k), random.values(k));
        let mut expected = vec![0.0; rows * k];
        let cx = context(Isa::Scalar, 1);
        layer_norm(&cx, &x, rows, k, &gamma, &beta, 1e-5, &mut expected);
        for (row, x) in x.chunks(k).enumerate() {
            let wide = |v: f32| f64::from(v);
            let mean = x.iter().copied().map(wide).sum::<f64>() / k as f64;
            let variance = x.iter().map(|&v| (wide(v) - mean).powi(2)).sum::<f64>() / k as f64;
            for (i, &v) in x.iter().enumerate() {
                let exact =
                    (wide(v) - mean) / (variance + 1e-5).sqrt() * wide(gamma[i]) + wide(beta[i]);
                let got = wide(expected[row * k + i]);
                assert!((got - exact).abs() < 1e-4, "{got} for {exact}");
            }
        }
        let mut direct = QuantizedRows::new();
        direct.layer_norm(&cx, &x, rows, k, &gamma, &beta, 1e-5);
        let mut staged = QuantizedRows::new();
        staged.quantize(&cx, &expected, rows, k);
        assert_eq!(codes(&direct), codes(&staged));
        for isa in Isa::supported() {
            let cx = context(isa, 3);
            let mut got = vec![0.0; rows * k];
            layer_norm(&cx, &x, rows, k, &gamma, &beta, 1e-5, &mut got);
            assert_same(&got, &expected, isa.name());
            let mut fused = QuantizedRows::new();
            fused.layer_norm(&cx, &x, rows, k, &gamma, &beta, 1e-5);
            assert_eq!(codes(&fused), codes(&direct), "{isa} k {k}");
        }
    }
}

struct AttentionCase {
    batch: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
    masked: bool,
    causal: bool,
}

impl AttentionCase {
    fn run(&self, cx: &Context, qkv: &[f32], mask: Option<&[f32]>) -> Vec<f32> {
        let mut out = vec![9.0; self.batch * self.tokens * self.heads * self.dim];
        let scale = 1.0 / (self.dim as f32).sqrt();
        attention(
            cx,
            qkv,
            self.batch,
            self.tokens,
            self.heads,
            self.dim,
            scale,
            mask,
            self.causal,
            &mut out,
        );
        out
    }

    fn reference(&self, qkv: &[f32], mask: Option<&[f32]>) -> Vec<f64> {
        let (tokens, width) = (self.tokens, self.heads * self.dim);
        let mut out = vec![0.0; self.batch * tokens * width];
        let at = |image: usize, token: usize, which: usize, column: usize| {
            f64::from(qkv[((image * tokens + token) * 3 + which) * width + column])
        };
        for image in 0..self.batch {
            for column in (0..width).step_by(self.dim) {
                for query in 0..tokens {
                    let keys = if self.causal { query + 1 } else { tokens };
                    let scores: Vec<f64> = (0..keys)
                        .map(|key| {
                            let dot: f64 = (0..self.dim)
                                .map(|d| {
                                    at(image, query, 0, column + d) * at(image, key, 1, column + d)
                                })
                                .sum();
                            let mask =
                                mask.map_or(0.0, |mask| f64::from(mask[image * tokens + key]));
                            dot / (self.dim as f64).sqrt() + mask
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f64::MIN, f64::max);
                    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    for d in 0..self.dim {
                        let sum: f64 = (0..keys)
                            .map(|key| (scores[key] - max).exp() * at(image, key, 2, column + d))
                            .sum();
                        out[(image * tokens + query) * width + column + d] = sum / total;
                    }
                }
            }
        }
        out
    }
}

#[test]
fn attention_follows_its_formula_and_is_the_same_everywhere() {
    let mut random = Random(5);
    let shapes = [
        (1, 1, 1, 1),
        (2, 5, 3, 20),
        (1, 50, 2, 64),
        (1, 77, 2, 32),
        (2, 40, 1, 80),
        (1, 197, 1, 64),
    ];
    for (batch, tokens, heads, dim) in shapes {
        for (masked, causal) in [(false, false), (true, false), (false, true), (true, true)] {
            let case = AttentionCase {
                batch,
                tokens,
                heads,
                dim,
                masked,
                causal,
            };
            let qkv: Vec<f32> = random
                .values(batch * tokens * 3 * heads * dim)
                .iter()
                .map(|v| v * 3.0)
                .collect();
            let mask: Vec<f32> = (0..batch * tokens)
                .map(|i| match i % tokens {
                    0 => 0.0,
                    token if token % 3 == 2 => [f32::NEG_INFINITY, f32::MIN, -1e4][token % 2],
                    _ => 0.0,
                })
                .collect();
            let mask = case.masked.then_some(mask.as_slice());
            let expected = case.run(&context(Isa::Scalar, 1), &qkv, mask);
            for (got, exact) in expected.iter().zip(case.reference(&qkv, mask)) {
                assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} for {exact}");
            }
            for isa in Isa::supported() {
                for threads in [1, 4] {
                    let got = case.run(&context(isa, threads), &qkv, mask);
                    assert_same(&got, &expected, &format!("{isa} {tokens} tokens of {dim}"));
                }
            }
        }
    }
}

#[test]
fn int8_attention_is_close_to_that_of_the_floats_and_the_same_everywhere() {
    let mut random = Random(7);
    let shapes = [
        (1, 1, 1, 1),
        (2, 5, 3, 20),
        (1, 50, 2, 64),
        (1, 77, 2, 32),
        (1, 70, 1, 80),
        (1, 197, 1, 64),
    ];
    for (batch, tokens, heads, dim) in shapes {
        for (masked, causal) in [(false, false), (true, false), (false, true)] {
            let case = AttentionCase {
                batch,
                tokens,
                heads,
                dim,
                masked,
                causal,
            };
            let width = heads * dim;
            let qkv: Vec<f32> = random
                .values(batch * tokens * 3 * width)
                .iter()
                .map(|v| v * 2.0)
                .collect();
            let mask: Vec<f32> = (0..batch * tokens)
                .map(|i| {
                    if i % tokens % 3 == 2 {
                        f32::NEG_INFINITY
                    } else {
                        0.0
                    }
                })
                .collect();
            let mask = case.masked.then_some(mask.as_slice());
            let run = |cx: &Context| {
                let mut out = vec![9.0; batch * tokens * width];
                let scale = 1.0 / (dim as f32).sqrt();
                attention_int8(
                    cx, &qkv, batch, tokens, heads, dim, scale, mask, causal, &mut out,
                );
                out
            };
            let expected = run(&context(Isa::Scalar, 1));
            let (mut dot, mut a, mut b) = (0.0, 0.0, 0.0);
            for (&got, exact) in expected.iter().zip(case.reference(&qkv, mask)) {
                dot += f64::from(got) * exact;
                a += f64::from(got).powi(2);
                b += exact.powi(2);
            }
            let cosine = dot / (a * b).sqrt();
            assert!(cosine > 0.9998, "{tokens} tokens of {dim}: cosine {cosine}");
            for isa in Isa::supported() {
                for threads in [1, 4] {
                    let got = run(&context(isa, threads));
                    assert_same(&got, &expected, &format!("{isa} {tokens} tokens of {dim}"));
                }
            }
        }
    }
}

#[test]
fn int8_attention_keeps_the_weight_of_many_small_probabilities() {
    // One key with probability 0.5, 200 keys that share the other half: p / max p = 1/200.
    let (tokens, dim) = (201, 4);
    let mut qkv = vec![0.0; tokens * 3 * dim];
    for (token, row) in qkv.chunks_mut(3 * dim).enumerate() {
        row[0] = 1.0;
        row[dim] = if token == 0 { 200f32.ln() } else { 0.0 };
        row[2 * dim] = if token == 0 { -1.0 } else { 1.0 };
        row[2 * dim + 1] = 1.0;
    }
    let mut out = vec![0.0; tokens * dim];
    let cx = context(Isa::detect(), 1);
    attention_int8(&cx, &qkv, 1, tokens, 1, dim, 1.0, None, false, &mut out);
    for row in out.chunks(dim) {
        assert!(row[0].abs() < 0.03, "{} for 0", row[0]);
        assert!((row[1] - 1.0).abs() < 1e-4, "{} for 1", row[1]);
    }
}

#[test]
fn int8_attention_of_what_is_not_finite_is_not_finite() {
    for isa in Isa::supported() {
        let cx = context(isa, 1);
        let (tokens, dim) = (5, 8);
        for (place, bad) in [
            (0, f32::NAN),
            (dim, f32::INFINITY),
            (2 * dim, f32::NEG_INFINITY),
        ] {
            let mut qkv = vec![1.0; tokens * 3 * dim];
            qkv[place] = bad;
            let mut out = vec![0.0; tokens * dim];
            attention_int8(&cx, &qkv, 1, tokens, 1, dim, 1.0, None, false, &mut out);
            assert!(!out[0].is_finite(), "{isa}: {bad} at {place} gave {out:?}");
        }
    }
}

#[test]
fn a_batch_has_the_bits_of_its_single_images() {
    let mut random = Random(6);
    let (batch, tokens, heads, dim) = (8, 11, 2, 16);
    let width = heads * dim;
    let cx = context(Isa::detect(), 2);
    let x = random.values(batch * tokens * width);
    let w = PackedMatrix::quantize(&random.values(3 * width * width), 3 * width, width);
    let bias = random.values(3 * width);
    let forward = |x: &[f32], batch: usize| {
        let qkv = run_linear(&cx, x, batch * tokens, &w, &bias, Activation::Gelu);
        let mut out = vec![0.0; batch * tokens * width];
        attention(
            &cx, &qkv, batch, tokens, heads, dim, 0.25, None, true, &mut out,
        );
        out
    };
    let together = forward(&x, batch);
    for image in 0..batch {
        let one = image * tokens * width..(image + 1) * tokens * width;
        assert_same(
            &together[one.clone()],
            &forward(&x[one], 1),
            "one of the batch",
        );
    }
}

#[test]
fn empty_inputs_give_empty_outputs() {
    let cx = context(Isa::detect(), 2);
    let w = PackedMatrix::quantize(&[1.0], 1, 1);
    assert!(run_linear(&cx, &[], 0, &w, &[0.0], Activation::None).is_empty());
    attention(&cx, &[], 0, 5, 2, 8, 1.0, None, false, &mut []);
    layer_norm(&cx, &[], 0, 1, &[1.0], &[0.0], 1e-5, &mut []);
}
