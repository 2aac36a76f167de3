use proptest::prelude::*;

use super::*;

fn axis(start: f64, length: f64, output: usize, samples: usize) -> Axis {
    Axis {
        start,
        length,
        output,
        first: 0,
        count: output,
        samples,
    }
}

/// The convolution, in floating point.
fn exact(samples: &[u8], axis: Axis, filter: Resize) -> Vec<f64> {
    let scale = axis.length / to_f64(axis.output);
    let filter_scale = scale.max(1.0);
    let (low, high) = (axis.start.floor(), (axis.start + axis.length).ceil());
    let value = |position: usize| {
        let center = axis.start + (to_f64(position) + 0.5) * scale;
        let support = radius(filter) * filter_scale;
        let (mut sum, mut total) = (0.0, 0.0);
        for (x, sample) in samples.iter().enumerate() {
            let x = to_f64(x);
            let is_near = (x + 0.5 - center).abs() < support + 0.5;
            if is_near
                && x >= low
                && x < high
                && x >= (center - support + 0.5).floor()
                && x < (center + support + 0.5).floor()
            {
                let weight = kernel(filter, (x - center + 0.5) / filter_scale);
                sum += weight * f64::from(*sample);
                total += weight;
            }
        }
        sum / total
    };
    (0..axis.output).map(value).collect()
}

fn resize(samples: &[u8], stride: usize, horizontal: Axis, vertical: Axis) -> Vec<f32> {
    let filter = Resize::Bicubic;
    let (columns, lines) = (
        Weights::new(horizontal, filter),
        Weights::new(vertical, filter),
    );
    let mut rows = Rows::new(Source { samples, stride }, &columns, &lines);
    let mut out = vec![0.0; horizontal.count * vertical.count];
    for (position, out) in out.chunks_mut(horizontal.count).enumerate() {
        rows.row(position, out);
    }
    out
}

proptest! {
    #[test]
    fn a_row_is_the_exact_convolution(
        samples in prop::collection::vec(any::<u8>(), 2..200),
        start in 0.0..0.9_f64,
        output in 1_usize..70,
    ) {
        let length = to_f64(samples.len()) - 1.0;
        let along = axis(start, length, output, samples.len());
        let once = axis(0.0, 1.0, 1, 1);
        let got = resize(&samples, samples.len(), along, once);
        for (got, want) in got.iter().zip(exact(&samples, along, Resize::Bicubic)) {
            prop_assert!((f64::from(*got) - want).abs() < 0.2, "{} for {}", got, want);
        }
        // The same from top to bottom.
        let down = resize(&samples, 1, once, along);
        for (down, along) in down.iter().zip(&got) {
            prop_assert!((down - along).abs() < 0.05, "{} for {}", down, along);
        }
    }

    #[test]
    fn vectors_give_the_same_bits(
        (width, height) in (1_usize..90, 1_usize..40),
        (output_width, output_height) in (1_usize..50, 1_usize..30),
        start in 0.0..0.9_f64,
        seed: u64,
    ) {
        let samples: Vec<u8> = noise(seed).take(width * height).collect();
        let length = |samples: usize| (to_f64(samples) - start).max(0.1);
        let filter = Resize::Bicubic;
        let columns = Weights::new(axis(start, length(width), output_width, width), filter);
        let lines = Weights::new(axis(start, length(height), output_height, height), filter);
        let source = Source { samples: &samples, stride: width };
        let mut rows = Rows::new(source, &columns, &lines);
        let (mut fast, mut slow) = (vec![0.0; output_width], vec![1.0; output_width]);
        for position in 0..output_height {
            rows.row(position, &mut fast);
            rows.portable_row(position, &mut slow);
            prop_assert_eq!(&fast, &slow);
        }
    }

    #[test]
    fn vectors_give_the_same_values(
        is_grey: bool,
        codes in prop::collection::vec(prop::collection::vec(-40.0..300.0_f32, 37), 3),
        chroma in (-0.8..1.8_f32, -0.8..1.8_f32),
    ) {
        let to_values = ToValues { chroma: chroma.into(), black: -1.8, unit: 0.015 };
        let (mut fast, mut slow) = ([0.0; 37], [1.0; 37]);
        let codes = if is_grey { &codes[..1] } else { &codes[..] };
        to_values.row(codes, &mut fast);
        to_values.values(codes, &mut slow);
        prop_assert_eq!(fast, slow);
    }
}

/// Bytes of a linear congruential generator (Knuth, MMIX).
fn noise(mut state: u64) -> impl Iterator<Item = u8> {
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
}

#[test]
fn a_flat_plane_stays_flat_to_the_last_bit() {
    for code in [0, 1, 127, 255] {
        let samples = vec![code; 97 * 61];
        let out = resize(
            &samples,
            97,
            axis(0.5, 95.5, 33, 97),
            axis(0.0, 61.0, 20, 61),
        );
        assert!(out.iter().all(|value| *value == f32::from(code)), "{code}");
    }
}

#[test]
fn nothing_outside_of_the_input_is_read() {
    // 255 everywhere but in columns 10 to 29 and rows 5 to 24.
    let mut samples = vec![255; 40 * 30];
    for y in 5..25 {
        samples[y * 40 + 10..y * 40 + 30].fill(7);
    }
    let out = resize(
        &samples,
        40,
        axis(10.0, 20.0, 8, 40),
        axis(5.0, 20.0, 9, 30),
    );
    assert!(out.iter().all(|value| *value == 7.0));
}
