//! Quantized rows and LayerNorm.

use super::*;

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
            let mut gathered = QuantizedRows::new();
            gathered.gather(&context(isa, 2), rows, k, |row, values| {
                values.copy_from_slice(&x[row * k..(row + 1) * k]);
            });
            assert_eq!(codes(&gathered), codes(&got), "{isa} k {k}, gathered");
            assert_same(gathered.scales(), got.scales(), isa.name());
            assert_eq!(gathered.zeros(), got.zeros(), "{isa} k {k}, gathered");
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
        let order = Order::Rows;
        attention(
            &cx,
            &x,
            order,
            1,
            4,
            1,
            13,
            1.0,
            None,
            false,
            0..4,
            &mut out,
        );
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
