//! Attention in f32 and with integer products.

use super::*;

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
