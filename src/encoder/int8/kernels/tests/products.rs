//! Products, and whole sequences of stages.

use super::*;

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
        let activation = Activation::ALL[case % 6];
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

/// `[rows, n]` of what lies in panels.
fn of_panels(panels: &[f32], rows: usize, n: usize) -> Vec<f32> {
    (0..rows * n)
        .map(|i| (i / n, i % n))
        .map(|(row, column)| panels[(column / 64 * rows + row) * 64 + column % 64])
        .collect()
}

#[test]
fn a_product_in_panels_has_the_bits_of_that_in_rows() {
    let mut random = Random(17);
    for (rows, n, k) in [(1, 1, 3), (7, 64, 20), (50, 150, 70), (131, 192, 64)] {
        let (x, bias) = (random.values(rows * k), random.values(n));
        let w = PackedMatrix::quantize(&random.values(n * k), n, k);
        for isa in Isa::supported() {
            for threads in [1, 3] {
                let cx = context(isa, threads);
                let mut quantized = QuantizedRows::new();
                quantized.quantize(&cx, &x, rows, k);
                let mut expected = vec![0.5; rows * n];
                linear(&cx, &quantized, &w, &bias, Activation::None, &mut expected);
                let mut panels = vec![0.5; Order::Panels.len(rows, n)];
                linear_ordered(&cx, &quantized, &w, &bias, Order::Panels, &mut panels);
                let got = of_panels(&panels, rows, n);
                assert_same(&got, &expected, &format!("{isa} {rows}×{k}→{n}"));
            }
        }
    }
}

#[test]
#[should_panic(expected = "heads of 48 channels")]
fn heads_on_both_sides_of_a_border_are_refused_in_panels() {
    let cx = context(Isa::detect(), 1);
    let qkv = vec![0.0; Order::Panels.len(5, 3 * 96)];
    let mut out = vec![0.0; 5 * 96];
    attention_int8(&cx, &qkv, Order::Panels, 1, 5, 2, 48, 1.0, None, &mut out);
}

#[test]
fn queries_of_one_token_have_the_bits_of_all_queries() {
    let mut random = Random(11);
    // Borders between columns at the edge of a panel, inside one, and in the first.
    for (columns, n) in [
        (64, 192),
        (80, 240),
        (128, 130),
        (20, 60),
        (0, 70),
        (70, 70),
    ] {
        for (batch, tokens) in [(1, 1), (1, 9), (3, 50)] {
            let (rows, k) = (batch * tokens, 48);
            let (x, bias) = (random.values(rows * k), random.values(n));
            let w = PackedMatrix::quantize(&random.values(n * k), n, k);
            for isa in Isa::supported() {
                for threads in [1, 3] {
                    let cx = context(isa, threads);
                    let mut quantized = QuantizedRows::new();
                    quantized.quantize(&cx, &x, rows, k);
                    let mut all = vec![0.5; rows * n];
                    linear(&cx, &quantized, &w, &bias, Activation::None, &mut all);
                    let token = Token {
                        at: random.below(tokens),
                        of: tokens,
                    };
                    let mut some = vec![0.5; rows * n];
                    let order = Order::Rows;
                    linear_of_token(&cx, &quantized, &w, &bias, columns, token, order, &mut some);
                    let mut panels = vec![0.5; Order::Panels.len(rows, n)];
                    let order = Order::Panels;
                    linear_of_token(
                        &cx,
                        &quantized,
                        &w,
                        &bias,
                        columns,
                        token,
                        order,
                        &mut panels,
                    );
                    assert_same(&of_panels(&panels, rows, n), &some, "panels");
                    let is_open = |i: usize| i % n < columns && i / n % tokens != token.at;
                    for i in (0..rows * n).filter(|&i| is_open(i)) {
                        // What is left out is not even written, but for a panel on both sides.
                        let divided = i % n >= columns / 64 * 64;
                        assert_eq!(some[i], if divided { all[i] } else { 0.5 });
                        some[i] = all[i];
                    }
                    assert_same(&some, &all, &format!("{isa} {columns} of {n}, {token:?}"));
                }
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
            &cx,
            &qkv,
            Order::Rows,
            batch,
            tokens,
            heads,
            dim,
            0.25,
            None,
            true,
            0..tokens,
            &mut out,
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
    attention(
        &cx,
        &[],
        Order::Rows,
        0,
        5,
        2,
        8,
        1.0,
        None,
        false,
        0..5,
        &mut [],
    );
    layer_norm(&cx, &[], 0, 1, &[1.0], &[0.0], 1e-5, &mut []);
}
