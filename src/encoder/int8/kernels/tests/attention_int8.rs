//! Attention with integer products.

use super::attention::AttentionCase;
use super::*;

impl AttentionCase {
    fn run_int8(&self, cx: &Context, qkv: &[f32], mask: Option<&[f32]>) -> Vec<f32> {
        self.run_int8_in(cx, qkv, Order::Rows, mask)
    }

    fn run_int8_in(
        &self,
        cx: &Context,
        qkv: &[f32],
        order: Order,
        mask: Option<&[f32]>,
    ) -> Vec<f32> {
        let Self {
            batch,
            tokens,
            heads,
            dim,
            ..
        } = *self;
        let mut out = vec![9.0; batch * tokens * heads * dim];
        let scale = 1.0 / (dim as f32).sqrt();
        attention_int8(
            cx, qkv, order, batch, tokens, heads, dim, scale, mask, &mut out,
        );
        out
    }

    /// Every instruction set, number of threads and order gives the bits of the specification, which
    /// are returned.
    fn same_everywhere(&self, qkv: &[f32], mask: Option<&[f32]>) -> Vec<f32> {
        let expected = self.run_int8(&context(Isa::Scalar, 1), qkv, mask);
        for isa in Isa::supported() {
            for threads in [1, 4] {
                let got = self.run_int8(&context(isa, threads), qkv, mask);
                let what = format!("{isa} {} tokens of {}", self.tokens, self.dim);
                assert_same(&got, &expected, &what);
                if let Some(panels) = self.in_panels(qkv) {
                    let cx = context(isa, threads);
                    let got = self.run_int8_in(&cx, &panels, Order::Panels, mask);
                    assert_same(&got, &expected, &format!("{what}, in panels"));
                }
            }
        }
        expected
    }
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let a = f64::from(*a);
        (dot, aa, bb) = (dot + a * b, aa + a * a, bb + b * b);
    }
    dot / (aa * bb).sqrt()
}

/// One head of 64 channels, 197 tokens, `value(random, token, channel)` giving q, k and v.
fn head(value: impl Fn(&mut Random, usize, usize) -> [f32; 3]) -> (AttentionCase, Vec<f32>) {
    let (tokens, dim) = (197, 64);
    let case = AttentionCase {
        batch: 1,
        tokens,
        heads: 1,
        dim,
        masked: false,
        causal: false,
    };
    let mut random = Random(11);
    let mut qkv = vec![0.0; tokens * 3 * dim];
    for (token, row) in qkv.chunks_mut(3 * dim).enumerate() {
        for channel in 0..dim {
            for (which, value) in value(&mut random, token, channel).into_iter().enumerate() {
                row[which * dim + channel] = value;
            }
        }
    }
    (case, qkv)
}

#[test]
fn int8_attention_is_close_to_that_of_the_floats_and_the_same_everywhere() {
    let mut random = Random(7);
    let shapes = [
        (1, 1, 1, 1),
        (2, 5, 3, 20),
        (1, 50, 2, 64),
        (1, 70, 1, 80),
        (1, 97, 2, 32),
        (1, 197, 1, 64),
        (1, 513, 1, 24),
    ];
    for (batch, tokens, heads, dim) in shapes {
        for masked in [false, true] {
            let case = AttentionCase {
                batch,
                tokens,
                heads,
                dim,
                masked,
                causal: false,
            };
            let qkv: Vec<f32> = random
                .values(batch * tokens * 3 * heads * dim)
                .iter()
                .map(|v| v * 2.0)
                .collect();
            let mask: Vec<f32> = (0..batch * tokens)
                .map(|i| match i % tokens % 6 {
                    2 => f32::NEG_INFINITY,
                    5 => -1e30,
                    _ => 0.0,
                })
                .collect();
            let mask = case.masked.then_some(mask.as_slice());
            let got = case.same_everywhere(&qkv, mask);
            let cosine = cosine(&got, &case.reference(&qkv, mask));
            assert!(cosine > 0.9998, "{tokens} tokens of {dim}: cosine {cosine}");
        }
    }
}

#[test]
fn int8_attention_is_close_to_that_of_the_floats_where_trained_towers_are_hard() {
    type Value = fn(&mut Random, usize, usize) -> [f32; 3];
    let cases: [(&str, f64, Value); 8] = [
        ("a key channel is large in all tokens", 0.9998, |r, _, d| {
            let shift = if d == 5 { 30.0 } else { 0.0 };
            [r.unit() * 2.0, r.unit() * 2.0 + shift, r.unit()]
        }),
        ("a key channel varies most", 0.999, |r, _, d| {
            let size = if d == 5 { 15.0 } else { 1.5 };
            [r.unit() * 1.5, r.unit() * size, r.unit()]
        }),
        ("a query channel is large", 0.999, |r, _, d| {
            let shift = if d == 5 { 20.0 } else { 0.0 };
            [r.unit() * 1.5 + shift, r.unit() * 0.5, r.unit()]
        }),
        (
            "nearly all look at a value near nothing",
            0.9998,
            |r, t, d| {
                let (towards, size) = (
                    if d < 8 { 3.3 } else { 0.0 },
                    if t == 0 { 1e-3 } else { 1.0 },
                );
                let key = if t == 0 { towards } else { 0.0 };
                [r.unit() + towards, r.unit() + key, r.unit() * size]
            },
        ),
        (
            "nearly all look at a value near nothing, and some value channels are shifted",
            0.9998,
            |r, t, d| {
                let towards = if d < 8 { 3.3 } else { 0.0 };
                let shift = if d % 4 == 3 { 2.0 } else { 0.0 };
                let (key, size) = if t == 0 { (towards, 1e-3) } else { (0.0, 1.0) };
                [
                    r.unit() + towards,
                    r.unit() + key,
                    (r.unit() + shift) * size,
                ]
            },
        ),
        ("nearly all look at eight such", 0.9998, |r, t, d| {
            let (towards, size) = (
                if d < 8 { 3.0 } else { 0.0 },
                if t < 8 { 1e-3 } else { 1.0 },
            );
            let key = if t < 8 { towards } else { 0.0 };
            [r.unit() + towards, r.unit() + key, r.unit() * size]
        }),
        ("nobody looks at a huge value", 0.9998, |r, t, d| {
            let (towards, size) = (
                if d < 8 { 2.8 } else { 0.0 },
                if t == 0 { 50.0 } else { 1.0 },
            );
            let key = if t == 0 { -towards } else { 0.0 };
            [r.unit() + towards, r.unit() + key, r.unit() * size]
        }),
        (
            "some value channels are large in all tokens",
            0.9998,
            |r, _, d| {
                let shift = if d % 16 == 3 { 20.0 } else { 0.0 };
                [r.unit() * 2.0, r.unit() * 2.0, r.unit() + shift]
            },
        ),
    ];
    for (name, least, value) in cases {
        let (case, qkv) = head(value);
        let got = case.same_everywhere(&qkv, None);
        let cosine = cosine(&got, &case.reference(&qkv, None));
        assert!(cosine > least, "{name}: cosine {cosine}");
    }
}

#[test]
fn int8_attention_looks_past_what_is_shifted_in_all_tokens() {
    // Deviations from a large common value, which are what tells the queries apart.
    let (case, qkv) = head(|r, _, _| [r.unit() * 3.0, r.unit() * 3.0, r.unit() + 100.0]);
    let got = case.same_everywhere(&qkv, None);
    let deviations: Vec<f32> = got.iter().map(|v| v - 100.0).collect();
    let exact: Vec<f64> = case
        .reference(&qkv, None)
        .iter()
        .map(|v| v - 100.0)
        .collect();
    let cosine = cosine(&deviations, &exact);
    assert!(cosine > 0.9998, "cosine {cosine}");
}

/// Attention of one head of one image, without a scale or a mask.
fn one_head(cx: &Context, qkv: &[f32], tokens: usize, dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; tokens * dim];
    let order = Order::Rows;
    attention_int8(cx, qkv, order, 1, tokens, 1, dim, 1.0, None, &mut out);
    out
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
    let cx = context(Isa::detect(), 1);
    let out = one_head(&cx, &qkv, tokens, dim);
    for row in out.chunks(dim) {
        assert!(row[0].abs() < 0.03, "{} for 0", row[0]);
        assert!((row[1] - 1.0).abs() < 1e-4, "{} for 1", row[1]);
    }
}

#[test]
fn int8_attention_does_not_depend_on_what_the_mask_leaves_out() {
    let (case, mut qkv) = head(|r, _, _| [r.unit(), r.unit(), r.unit()]);
    let (tokens, dim) = (case.tokens, case.dim);
    let mask: Vec<f32> = (0..tokens)
        .map(|token| if token < 150 { 0.0 } else { -1e30 })
        .collect();
    let expected = case.same_everywhere(&qkv, Some(&mask));
    for row in qkv.chunks_mut(3 * dim).skip(150) {
        row[dim..].fill(1e20);
    }
    let got = case.same_everywhere(&qkv, Some(&mask));
    assert_same(&got[..150 * dim], &expected[..150 * dim], "seen keys");
}

#[test]
fn int8_attention_of_keys_that_are_all_masked_alike_is_that_without_a_mask() {
    let (case, qkv) = head(|r, t, _| {
        let size = if t % 2 == 0 { 1.0 } else { 0.01 };
        [r.unit() * 2.0, r.unit() * 2.0, r.unit() * size]
    });
    let expected = case.reference(&qkv, None);
    for mask in [0.0, -1e4, -1e6, -1e9, -1e30, f32::MIN] {
        let got = case.same_everywhere(&qkv, Some(&vec![mask; case.tokens]));
        let cosine = cosine(&got, &expected);
        assert!(cosine > 0.9998, "{mask}: cosine {cosine}");
    }
}

#[test]
fn int8_attention_does_not_depend_on_padding_that_is_masked() {
    let (dim, seen) = (64, 98);
    let mut random = Random(31);
    let long: Vec<f32> = random.values(130 * 3 * dim);
    let case = |tokens| AttentionCase {
        batch: 1,
        tokens,
        heads: 1,
        dim,
        masked: true,
        causal: false,
    };
    let expected = case(seen).same_everywhere(&long[..seen * 3 * dim], None);
    for tokens in [99, 112, 113, 130] {
        let mask: Vec<f32> = (0..tokens)
            .map(|token| if token < seen { 0.0 } else { f32::MIN })
            .collect();
        let got = case(tokens).same_everywhere(&long[..tokens * 3 * dim], Some(&mask));
        assert_same(&got[..seen * dim], &expected, &format!("{tokens} tokens"));
    }
}

#[test]
fn int8_attention_of_tiny_values_is_the_same_everywhere() {
    let (case, qkv) = head(|r, t, _| {
        let size = if t == 0 { 1e-36 } else { 1e-39 };
        [r.unit(), r.unit(), r.unit() * size]
    });
    case.same_everywhere(&qkv, None);
}

#[test]
fn int8_attention_of_zeros_and_of_hostile_rows_is_the_same_everywhere() {
    let mut random = Random(23);
    for tokens in [3, 40, 130] {
        let case = AttentionCase {
            batch: 1,
            tokens,
            heads: 2,
            dim: 20,
            masked: false,
            causal: false,
        };
        let zeros = vec![0.0; tokens * 3 * 40];
        assert!(case.same_everywhere(&zeros, None).iter().all(|v| *v == 0.0));
        let hostile = random.hostile_rows(tokens * 3, 40);
        case.same_everywhere(&hostile, None);
    }
}

#[test]
fn int8_attention_of_a_batch_is_that_of_its_images() {
    let (case, one) = head(|r, t, d| [r.unit(), r.unit() + (t * d % 7) as f32, r.unit()]);
    let other: Vec<f32> = one.iter().map(|v| v * 1.7 - 0.2).collect();
    let cx = context(Isa::detect(), 2);
    let singles = [&one, &other].map(|qkv| case.run_int8(&cx, qkv, None));
    let both = AttentionCase { batch: 2, ..case };
    let got = both.run_int8(&cx, &[one, other].concat(), None);
    assert_same(&got, &singles.concat(), "a batch of two");
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
            let out = one_head(&cx, &qkv, tokens, dim);
            assert!(!out[0].is_finite(), "{isa}: {bad} at {place} gave {out:?}");
        }
    }
}
