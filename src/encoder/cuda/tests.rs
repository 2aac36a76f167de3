//! The GPU against the CPU, bit for bit. Where there is no GPU the tests say so and pass; what needs
//! none (that the committed PTX is that of the committed source) is always looked at.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tract_onnx::prelude::*;

use super::Gpu;
use super::tower::Tower;
use crate::bundle::hex;
use crate::encoder::Unavailable;
use crate::encoder::int8::kernels::{Activation, Context, Isa, PackedMatrix};
use crate::encoder::int8::op::{Accelerator, Device, Fused, Sublayers, Wanted};
use crate::encoder::int8::program::Program;
use crate::encoder::int8::recognise::fixtures::{self, cosine};
use crate::encoder::int8::recognise::{Options, recognise};
use crate::encoder::int8::sublayer::{
    Attention, Batch, Body, FeedForward, LayerNorm, Linear, Placement, Sublayer,
};

/// The GPU with the kernels made for it, and with those for older ones.
fn gpus() -> Vec<Gpu> {
    match Gpu::open() {
        Ok(gpu) => vec![gpu, Gpu::open_as_older().unwrap()],
        Err(Unavailable::Absent(reason)) => {
            println!("SKIPPED: {reason}");
            Vec::new()
        }
        Err(Unavailable::Unusable(reason)) => panic!("a GPU that cannot be used: {reason}"),
    }
}

/// Numbers that repeat nowhere, from −1 to 1.
struct Random(u64);

impl Random {
    fn values(&mut self, count: usize, size: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let bits = u16::try_from(self.0 >> 48).unwrap();
            (f32::from(bits) / 32768.0 - 1.0) * size
        };
        (0..count).map(|_| next()).collect()
    }

    fn linear(&mut self, n: usize, k: usize) -> Linear {
        let size = 1.7 / f32::from(u16::try_from(k).unwrap()).sqrt();
        Linear {
            weights: PackedMatrix::quantize(&self.values(n * k, size), n, k),
            bias: self.values(n, 0.3),
        }
    }

    fn sublayer(&mut self, width: usize, body: Body) -> Arc<Sublayer> {
        let norm = LayerNorm {
            gamma: self.values(width, 1.5),
            beta: self.values(width, 0.4),
            epsilon: 1e-5,
        };
        Arc::new(Sublayer::new(norm, Placement::Pre, body).unwrap())
    }

    fn attention(&mut self, width: usize, heads: usize, dim: usize) -> Arc<Sublayer> {
        let body = Body::Attention(Attention {
            qkv: self.linear(3 * heads * dim, width),
            out: self.linear(width, heads * dim),
            heads,
            dim,
            scale: 0.31,
            causal: false,
            masked: false,
        });
        self.sublayer(width, body)
    }

    fn feed_forward(
        &mut self,
        width: usize,
        hidden: usize,
        activation: Activation,
    ) -> Arc<Sublayer> {
        let body = Body::FeedForward(FeedForward {
            up: self.linear(hidden, width),
            activation,
            down: self.linear(width, hidden),
        });
        self.sublayer(width, body)
    }
}

fn context() -> Arc<Context> {
    Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN))
}

/// Sequences of `tokens`, `x` holding `[batch, tokens, width]`.
fn run(sublayers: &Sublayers, x: &[f32], tokens: usize) -> Vec<Vec<f32>> {
    let width = sublayers.width();
    let items = x.chunks_exact(tokens * width).map(|sequence| {
        let tensor = Tensor::from_shape(&[1, tokens, width], sequence).unwrap();
        tvec!(tensor.into_tvalue())
    });
    let results = sublayers.run(items.collect()).unwrap();
    let values = |tensor: &Tensor| {
        let plain = tensor.try_as_plain_ram().unwrap();
        plain.as_slice::<f32>().unwrap().to_vec()
    };
    results.iter().map(values).collect()
}

fn bits(results: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let bits = |values: &Vec<f32>| values.iter().map(|v| v.to_bits()).collect();
    results.iter().map(bits).collect()
}

/// The same on a GPU: `x` of one sequence after another, cut as [`run`] does. Nothing else steps in where
/// the GPU fails.
fn run_there(tower: &Tower, x: &[f32], tokens: usize, width: usize) -> Vec<Vec<f32>> {
    let batch = x.len() / tokens / width;
    let mut out = x.to_vec();
    tower.run(&mut out, Batch { batch, tokens }).unwrap();
    out.chunks_exact(out.len() / batch)
        .map(<[f32]>::to_vec)
        .collect()
}

/// One and all tokens, on both kinds of kernels, twice: kernel by kernel, then as a recorded graph.
fn compare(gpus: &[Gpu], sublayers: &Sublayers, x: &[f32], tokens: usize, what: &str) {
    let token = tokens / 3;
    for sublayers in [
        sublayers.clone(),
        sublayers.of_token(Wanted { axis: 1, token }),
    ] {
        let here = run(&sublayers, x, tokens);
        for (kind, gpu) in gpus.iter().enumerate() {
            let there = Tower::upload(gpu, &sublayers, tokens).unwrap();
            for time in 0..2 {
                assert_eq!(
                    bits(&run_there(&there, x, tokens, sublayers.width())),
                    bits(&here),
                    "{what}, {sublayers:?}, {tokens} tokens, kernels {kind}, time {time}"
                );
                assert_eq!(there.recorded(), 1, "{what}");
            }
        }
    }
}

#[test]
fn committed_kernels_are_made_of_the_committed_source() {
    let source = [&include_bytes!("kernels.cu")[..], include_bytes!("ptx.py")].concat();
    let digest = hex(&Sha256::digest(source));
    for ptx in [
        include_str!("kernels.sm_61.ptx"),
        include_str!("kernels.sm_80.ptx"),
    ] {
        let first = ptx.lines().next().unwrap();
        assert!(
            first.contains(&digest),
            "run src/encoder/cuda/ptx.py: {first}"
        );
        assert!(ptx.contains(".version 7.4\n"), "newer than JetPack 5");
    }
}

#[test]
fn sublayers_give_the_bits_of_the_cpu() {
    let gpus = gpus();
    let mut random = Random(1);
    let all = Activation::ALL;
    let shapes = [
        (64, 2, 32, 100, 1),
        (48, 3, 24, 65, 7),
        (100, 1, 100, 300, 16),
        (192, 3, 64, 768, 50),
        (33, 1, 5, 31, 64),
        (768, 12, 64, 3072, 95),
    ];
    for (i, (width, heads, dim, hidden, tokens)) in shapes.into_iter().enumerate() {
        let layers = vec![
            random.feed_forward(width, hidden, all[(i + 3) % all.len()]),
            random.attention(width, heads, dim),
            random.feed_forward(width, hidden, all[i % all.len()]),
            random.attention(width, heads, dim),
            random.feed_forward(width, hidden, all[(i + 1) % all.len()]),
        ];
        let sublayers = Sublayers::new(context(), layers);
        for batch in [1, 3] {
            let x = random.values(batch * tokens * width, 2.0);
            compare(&gpus, &sublayers, &x, tokens, "random");
        }
    }
}

#[test]
fn without_attention_one_token_is_kept_first() {
    let gpus = gpus();
    let mut random = Random(5);
    let layers = vec![
        random.feed_forward(64, 200, Activation::Gelu),
        random.feed_forward(64, 130, Activation::Relu),
    ];
    let sublayers = Sublayers::new(context(), layers);
    let x = random.values(2 * 9 * 64, 1.0);
    compare(&gpus, &sublayers, &x, 9, "no attention");
}

/// One query's products are in f32 on the CPU, too, however many the tokens are.
#[test]
fn long_sequences_give_the_bits_of_the_cpu_for_one_token_and_are_close_for_all() {
    let gpus = gpus();
    let mut random = Random(2);
    for tokens in [96, 197, 257, 577] {
        let layers = vec![
            random.attention(128, 2, 64),
            random.feed_forward(128, 512, Activation::QuickGelu),
        ];
        let sublayers = Sublayers::new(context(), layers);
        let x = random.values(tokens * 128, 1.5);
        let one = sublayers.of_token(Wanted { axis: 1, token: 0 });
        for gpu in &gpus {
            let there = Tower::upload(gpu, &one, tokens).unwrap();
            let results = run_there(&there, &x, tokens, 128);
            assert_eq!(bits(&results), bits(&run(&one, &x, tokens)), "{tokens}");
            let there = Tower::upload(gpu, &sublayers, tokens).unwrap();
            let there = run_there(&there, &x, tokens, 128);
            let here = run(&sublayers, &x, tokens);
            let cosine = cosine(&there[0], &here[0]);
            assert!(cosine > 0.9999, "{tokens} tokens: {cosine}");
        }
    }
}

#[test]
fn a_batch_is_its_singles_bit_for_bit() {
    let gpus = gpus();
    let mut random = Random(3);
    let (width, tokens) = (192, 50);
    let layers = vec![
        random.attention(width, 3, 64),
        random.feed_forward(width, 768, Activation::Gelu),
    ];
    let sublayers = Sublayers::new(context(), layers);
    let x = random.values(16 * tokens * width, 1.0);
    for gpu in &gpus {
        let there = Tower::upload(gpu, &sublayers, tokens).unwrap();
        // From small to large and back: buffers grow, graphs are made anew.
        for batch in [1, 5, 16, 2] {
            let x = &x[..batch * tokens * width];
            let singles: Vec<_> = x
                .chunks_exact(tokens * width)
                .flat_map(|one| run_there(&there, one, tokens, width))
                .collect();
            let all = run_there(&there, x, tokens, width);
            assert_eq!(bits(&all), bits(&singles), "{batch}");
        }
    }
}

#[test]
fn extreme_values_and_those_that_are_no_numbers_are_as_on_the_cpu() {
    let gpus = gpus();
    let mut random = Random(4);
    let (width, tokens) = (96, 12);
    let layers = vec![
        random.feed_forward(width, 200, Activation::Gelu),
        random.feed_forward(width, 200, Activation::QuickGelu),
    ];
    let sublayers = Sublayers::new(context(), layers);
    let attention = Sublayers::new(context(), vec![random.attention(width, 2, 48)]);
    let rows = [0.0, 1e-40, 1e-30, 1e30, 3e38, f32::NAN, f32::INFINITY, -1.0];
    let mut x = random.values(tokens * width, 1.0);
    for (row, value) in rows.into_iter().enumerate() {
        x[row * width..(row + 1) * width].fill(value);
        x[row * width + 7] *= 0.5;
    }
    for gpu in &gpus {
        for (sublayers, x) in [(&sublayers, &x[..]), (&attention, &x[..5 * width])] {
            let tokens = x.len() / width;
            let there = Tower::upload(gpu, sublayers, tokens).unwrap();
            let there = run_there(&there, x, tokens, width);
            let here = run(sublayers, x, tokens);
            // Which NaN it is differs.
            let same =
                |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            let at = there[0].iter().zip(&here[0]).position(|pair| !same(pair));
            assert_eq!(at.map(|at| (at, there[0][at], here[0][at])), None);
        }
    }
}

#[test]
fn what_the_kernels_do_not_serve_is_refused_by_name() {
    let gpus = gpus();
    let mut random = Random(6);
    let attention = |random: &mut Random, masked, causal| {
        Body::Attention(Attention {
            qkv: random.linear(192, 64),
            out: random.linear(64, 64),
            heads: 2,
            dim: 32,
            scale: 0.2,
            causal,
            masked,
        })
    };
    let norm = || LayerNorm {
        gamma: vec![1.0; 64],
        beta: vec![0.0; 64],
        epsilon: 1e-5,
    };
    let one = |sublayer| Sublayers::new(context(), vec![Arc::new(sublayer)]);
    let masked = attention(&mut random, true, false);
    let causal = attention(&mut random, false, true);
    let plain = attention(&mut random, false, false);
    for gpu in &gpus {
        for (body, placement, tokens, reason) in [
            (&masked, Placement::Pre, 5, "mask"),
            (&causal, Placement::Pre, 5, "mask"),
            (&plain, Placement::Post, 5, "behind the sum"),
            (&plain, Placement::Pre, 9000, "shared memory"),
        ] {
            let sublayer = Sublayer::new(norm(), placement, body.clone()).unwrap();
            let refused = gpu.place(&one(sublayer), tokens).err().unwrap();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}

#[test]
fn whole_towers_give_the_bits_of_the_cpu() {
    let gpus = gpus();
    for name in [
        "vit.script.onnx",
        "vit.dynamo.onnx",
        "clip-vision.script.onnx",
        "clip-vision.dynamo.onnx",
        "siglip.script.onnx",
        "open-clip.dynamo.onnx",
    ] {
        let (model, symbols) = fixtures::load(name);
        let (model, _) = recognise(model, symbols, &context(), &Options::default()).unwrap();
        let here = Program::new(model.clone()).unwrap();
        let picture = Random(7).values(3 * fixtures::SIZE * fixtures::SIZE, 1.5);
        let shape = [1, 3, fixtures::SIZE, fixtures::SIZE];
        let embed = |program: &Program| {
            let mut outputs = program.run_pictures(&shape, &[&picture]).unwrap();
            let output = outputs.remove(0);
            let plain = output.try_as_plain_ram().unwrap();
            plain.as_slice::<f32>().unwrap().to_vec()
        };
        for gpu in &gpus {
            let there = Program::on(model.clone(), Some(gpu)).unwrap();
            assert_eq!(there.refused(), &[] as &[String], "{name}");
            assert_eq!(bits(&[embed(&there)]), bits(&[embed(&here)]), "{name}");
            assert!(there.is_accelerated(), "{name}: the CPU stepped in");
        }
    }
}

#[test]
fn forks_share_a_gpu_without_recording_each_other() {
    let gpus = gpus();
    let mut random = Random(8);
    let (width, tokens) = (192, 50);
    let layers = vec![
        random.attention(width, 3, 64),
        random.feed_forward(width, 768, Activation::Gelu),
    ];
    let sublayers = Sublayers::new(context(), layers);
    let x = random.values(6 * tokens * width, 1.0);
    let here = run(&sublayers, &x, tokens);
    for gpu in &gpus {
        let towers = [0, 1].map(|_| Tower::upload(gpu, &sublayers, tokens).unwrap());
        // Each batch is recorded while other threads run theirs.
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (tower, x, here) = (&towers[thread % 2], &x, &here);
                scope.spawn(move || {
                    for batch in (1..=6).chain(1..=6) {
                        let x = &x[..batch * tokens * width];
                        let there = run_there(tower, x, tokens, width);
                        assert_eq!(bits(&there), bits(&here[..batch]), "{thread} {batch}");
                    }
                });
            }
        });
        for tower in towers {
            // Growing buffers drop what was recorded; the largest batch stays.
            assert!(tower.recorded() > 0);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_left_as_it_is() {
    let gpus = gpus();
    let mut random = Random(9);
    let layers = vec![random.feed_forward(64, 100, Activation::Relu)];
    let sublayers = Sublayers::new(context(), layers);
    for gpu in &gpus {
        let tower = Tower::upload(gpu, &sublayers, 5).unwrap();
        let x = random.values(5 * 64 - 1, 1.0);
        for batch in [0, 1, 1 << 20] {
            let mut same = x.clone();
            assert!(tower.run(&mut same, Batch { batch, tokens: 5 }).is_err());
            assert_eq!(same, x);
        }
    }
}
