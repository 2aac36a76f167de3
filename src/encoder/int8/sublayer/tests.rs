use std::num::NonZeroUsize;

use super::*;
use crate::encoder::int8::kernels::Isa;
use crate::encoder::int8::recognise::fixtures::cosine;

/// Channels of a token.
pub const WIDTH: usize = 64;

#[expect(clippy::cast_precision_loss, reason = "a few thousand values")]
pub fn waves(count: usize, step: f32, size: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * step).sin() * size).collect()
}

pub fn linear_of(n: usize, k: usize, step: f32) -> Linear {
    Linear {
        weights: PackedMatrix::quantize(&waves(n * k, step, 0.2), n, k),
        bias: waves(n, 0.3, 0.1),
    }
}

pub fn body() -> Attention {
    Attention {
        qkv: linear_of(3 * WIDTH, WIDTH, 0.71),
        out: linear_of(WIDTH, WIDTH, 1.3),
        heads: 2,
        dim: WIDTH / 2,
        scale: 0.18,
        causal: false,
        masked: false,
    }
}

/// A normalisation that neither scales nor shifts.
pub fn plain_norm() -> LayerNorm {
    LayerNorm {
        gamma: vec![1.0; WIDTH],
        beta: vec![0.0; WIDTH],
        epsilon: 1e-5,
    }
}

/// Two layers with an odd number of values between.
pub fn layers() -> FeedForward {
    FeedForward {
        up: linear_of(100, WIDTH, 0.37),
        activation: Activation::Gelu,
        down: linear_of(WIDTH, 100, 0.53),
    }
}

/// The same sublayer with attention in f32.
fn with_float_attention(cx: &Context, norm: &LayerNorm, x: &[f32], tokens: usize) -> Vec<f32> {
    let (body, mut rows, mut x) = (body(), QuantizedRows::new(), x.to_vec());
    rows.layer_norm(cx, &x, tokens, WIDTH, &norm.gamma, &norm.beta, norm.epsilon);
    let mut qkv = vec![0.0; tokens * 3 * WIDTH];
    let (weights, bias) = (&body.qkv.weights, &body.qkv.bias);
    linear(cx, &rows, weights, bias, Activation::None, &mut qkv);
    let mut mixed = vec![0.0; tokens * WIDTH];
    let (heads, dim, scale) = (body.heads, body.dim, body.scale);
    let all = 0..tokens;
    attention(
        cx,
        &qkv,
        Order::Rows,
        1,
        tokens,
        heads,
        dim,
        scale,
        None,
        false,
        all,
        &mut mixed,
    );
    rows.quantize(cx, &mixed, tokens, WIDTH);
    linear_add(cx, &rows, &body.out.weights, &body.out.bias, &mut x);
    x
}

#[test]
fn long_sequences_attend_in_int8_and_stay_close_to_the_floats() {
    let cx = Context::new(Isa::detect(), NonZeroUsize::MIN);
    let norm = plain_norm();
    let body = Body::Attention(body());
    let sublayer = Sublayer::new(norm.clone(), Placement::Pre, body).unwrap();
    for tokens in [INT8_ATTENTION_FROM - 1, INT8_ATTENTION_FROM, 197] {
        let x = waves(tokens * WIDTH, 0.137, 1.0);
        let float = with_float_attention(&cx, &norm, &x, tokens);
        let mut mixed = x.clone();
        let shape = Batch { batch: 1, tokens };
        sublayer.run(&cx, &mut Scratch::default(), &mut mixed, shape, None);
        assert_eq!(float == mixed, tokens < INT8_ATTENTION_FROM, "{tokens}");
        let added = |y: &[f32]| y.iter().zip(&x).map(|(y, x)| y - x).collect::<Vec<f32>>();
        let cosine = cosine(&added(&float), &added(&mixed));
        assert!(cosine > 0.9995, "{tokens} tokens: {cosine}");
        // One query's products are in f32, however long the sequence.
        let (mut one, last) = (x, tokens - 1);
        let scratch = &mut Scratch::default();
        sublayer.run_for_token(&cx, scratch, &mut one, shape, None, last);
        assert_eq!(one, float[last * WIDTH..], "{tokens}");
    }
}

#[test]
fn one_token_alone_is_what_it_is_among_all() {
    let cx = Context::new(Isa::detect(), NonZeroUsize::MIN);
    let norm = LayerNorm {
        gamma: waves(WIDTH, 0.9, 1.5),
        beta: waves(WIDTH, 0.4, 0.2),
        epsilon: 1e-5,
    };
    let masked = |masked, causal| {
        Body::Attention(Attention {
            masked,
            causal,
            ..body()
        })
    };
    let bodies = [
        masked(false, false),
        masked(true, false),
        masked(false, true),
        masked(true, true),
        Body::FeedForward(layers()),
    ];
    for body in bodies {
        for placement in [Placement::Pre, Placement::Post] {
            let sublayer = Sublayer::new(norm.clone(), placement, body.clone()).unwrap();
            for (batch, tokens, token) in [(1, 1, 0), (1, 50, 0), (3, 20, 19), (2, 31, 7)] {
                let shape = Batch { batch, tokens };
                let x = waves(batch * tokens * WIDTH, 0.137, 1.0);
                let mask: Vec<f32> = (0..batch * tokens)
                    .map(|i| if i % 5 == 3 { -1e4 } else { 0.0 })
                    .collect();
                let mut scratch = Scratch::default();
                let (mut all, mut one) = (x.clone(), x);
                sublayer.run(&cx, &mut scratch, &mut all, shape, Some(&mask));
                sublayer.run_for_token(&cx, &mut scratch, &mut one, shape, Some(&mask), token);
                let wanted: Vec<f32> = all
                    .chunks_exact(tokens * WIDTH)
                    .flat_map(|image| image[token * WIDTH..][..WIDTH].to_vec())
                    .collect();
                assert_eq!(one, wanted, "{placement:?} {shape:?} token {token}");
            }
        }
    }
}
