//! The packed layout, and what is refused.

use super::*;

fn parts(matrix: &PackedMatrix) -> (Vec<u8>, Vec<f32>, Vec<i32>) {
    (
        matrix.packed().to_vec(),
        matrix.scales().to_vec(),
        matrix.column_sums().to_vec(),
    )
}

#[test]
fn weights_survive_to_half_a_step() {
    let (n, k) = (70, 13);
    let weights: Vec<f32> = (0..n * k)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0)
        .collect();
    let matrix = PackedMatrix::quantize(&weights, n, k);
    for (i, (back, w)) in matrix.dequantize().iter().zip(&weights).enumerate() {
        let half = matrix.scales()[i / k] * 0.501;
        assert!((back - w).abs() <= half, "{back} for {w}");
    }
    let codes_of_70: i32 = (0..k)
        .map(|i| i32::from(matrix.packed()[offset(69, i, k)].cast_signed()))
        .sum();
    assert_eq!(matrix.column_sums()[69], codes_of_70);
}

#[test]
fn the_layout_is_panels_of_64_channels_by_groups_of_4_inputs() {
    let k = 65;
    assert_eq!(offset(0, 1, k), 1);
    assert_eq!(offset(1, 0, k), 4);
    assert_eq!(offset(0, 4, k), 256);
    assert_eq!(offset(64, 0, k), 64 * 128);
}

#[test]
fn channels_of_zeros_and_of_denormals_have_scale_one() {
    let matrix = PackedMatrix::quantize(&[0.0, -0.0, 1e-44, -1e-40], 2, 2);
    assert_eq!(matrix.scales(), &[1.0, 1.0]);
    assert!(matrix.packed().iter().all(|&w| w == 0));
}

#[test]
fn a_channel_that_is_not_finite_has_scale_nan() {
    let matrix = PackedMatrix::quantize(&[1.0, f32::INFINITY, f32::NAN, 1.0, 1.0, 2.0], 3, 2);
    assert!(matrix.scales()[0].is_nan() && matrix.scales()[1].is_nan());
    assert!((matrix.scales()[2] - 2.0 / 127.0).abs() < 1e-9);
}

#[test]
fn parts_make_the_same_matrix_and_wrong_parts_none() {
    let matrix = PackedMatrix::quantize(&[1.0, -2.0, 3.0, 4.0, 5.0, -6.0], 2, 3);
    let (packed, scales, sums) = parts(&matrix);
    let make = |packed: &[u8], scales: &[f32], sums: &[i32], n, k| {
        let bytes = Bytes::copied(packed);
        PackedMatrix::from_parts(n, k, bytes, scales.to_vec(), sums.to_vec())
    };
    let same = make(&packed, &scales, &sums, 2, 3).unwrap();
    assert_eq!(parts(&same), parts(&matrix));
    let length = |part, found, expected| LayoutError::Length {
        part,
        found,
        expected,
    };
    let refused = |result: Result<PackedMatrix, LayoutError>| result.unwrap_err();
    assert_eq!(
        refused(make(&packed[1..], &scales, &sums, 2, 3)),
        length("packed bytes", 4095, 4096)
    );
    assert_eq!(
        refused(make(&packed, &scales[1..], &sums, 2, 3)),
        length("scales", 1, 2)
    );
    assert_eq!(
        refused(make(&packed, &scales, &[], 2, 3)),
        length("column sums", 0, 2)
    );
    assert_eq!(
        refused(make(&packed, &scales, &[sums[0], sums[1] + 1], 2, 3)),
        LayoutError::ColumnSum { channel: 1 }
    );
    assert_eq!(
        refused(make(&packed, &[1.0, -1.0], &sums, 2, 3)),
        LayoutError::Scale { channel: 1 }
    );
    let mut wrong = packed.clone();
    wrong[0] = 0x80;
    assert_eq!(
        refused(make(&wrong, &scales, &sums, 2, 3)),
        LayoutError::Weight
    );
    for (n, k) in [
        (0, 3),
        (2, 0),
        (2, MAX_K + 1),
        (usize::MAX, 3),
        (usize::MAX / 64, 64),
    ] {
        assert_eq!(
            refused(make(&packed, &scales, &sums, n, k)),
            LayoutError::Shape { n, k }
        );
    }
}
