use super::*;
use crate::train::text::tower::{Batch, Shape};
use tract_onnx::prelude::*;

fn tower() -> Tower {
    Tower::new(
        Shape {
            vocabulary: 40,
            width: EMBEDDING_DIM,
            layers: 2,
            heads: 4,
            hidden: 48,
        },
        11,
    )
    .unwrap()
}

/// Runs the file in tract at one fixed shape.
fn run(bytes: &[u8], sequences: &[&[u32]], length: usize) -> Vec<f32> {
    let n = sequences.len();
    let mut model = tract_onnx::onnx().model_for_read(&mut &bytes[..]).unwrap();
    for input in 0..2 {
        model
            .set_input_fact(
                input,
                InferenceFact::dt_shape(i64::datum_type(), tvec![n, length]),
            )
            .unwrap();
    }
    let model = model.into_optimized().unwrap().into_runnable().unwrap();
    let (mut ids, mut mask) = (vec![0_i64; n * length], vec![0_i64; n * length]);
    for (row, sequence) in sequences.iter().enumerate() {
        for (column, id) in sequence.iter().enumerate() {
            ids[row * length + column] = i64::from(*id);
            mask[row * length + column] = 1;
        }
    }
    let tensor =
        |values: &[i64]| tract_onnx::prelude::Tensor::from_shape(&[n, length], values).unwrap();
    let out = model
        .run(tvec![tensor(&ids).into(), tensor(&mask).into()])
        .unwrap();
    out[0]
        .to_plain_array_view::<f32>()
        .unwrap()
        .iter()
        .copied()
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn tract_computes_what_candle_trained() {
    let tower = tower();
    let bytes = to_onnx(&tower).unwrap();
    let sequences: [&[u32]; 3] = [&[2, 5, 6, 7, 3], &[2, 9, 3], &[2, 30, 31, 32, 33, 34, 3]];
    let candle: Vec<f32> = tower
        .forward(&Batch::new(&sequences, 0).unwrap())
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap();
    let tract = run(&bytes, &sequences, 7);
    for (a, b) in candle
        .chunks_exact(EMBEDDING_DIM)
        .zip(tract.chunks_exact(EMBEDDING_DIM))
    {
        let cosine = cosine(a, b);
        assert!(cosine > 0.9999, "half weights and byte rows leave {cosine}");
    }
}

#[test]
fn padding_changes_nothing_in_the_exported_file() {
    let bytes = to_onnx(&tower()).unwrap();
    let alone = run(&bytes, &[&[2, 9, 11, 3]], 4);
    let padded = run(&bytes, &[&[2, 9, 11, 3]], MAX_TOKENS);
    for (a, b) in alone.iter().zip(&padded) {
        assert!((a - b).abs() < 1e-5, "{a} against {b}");
    }
}

#[test]
fn the_file_loads_with_open_batch_and_length() {
    let bytes = to_onnx(&tower()).unwrap();
    let model = tract_onnx::onnx()
        .model_for_read(&mut &bytes[..])
        .unwrap()
        .into_optimized()
        .unwrap()
        .into_runnable()
        .unwrap();
    for (n, t) in [(1, 3), (4, 9)] {
        let ids = tract_onnx::prelude::Tensor::from_shape(&[n, t], &vec![5_i64; n * t]).unwrap();
        let mask = tract_onnx::prelude::Tensor::from_shape(&[n, t], &vec![1_i64; n * t]).unwrap();
        let out = model.run(tvec![ids.into(), mask.into()]).unwrap();
        assert_eq!(out[0].shape(), [n, EMBEDDING_DIM]);
    }
}

#[test]
fn a_byte_a_weight_keeps_a_row_within_half_a_step() {
    let row: Vec<f32> = (0..EMBEDDING_DIM)
        .map(|i| (i as f32 * 0.37).sin() * 0.08)
        .collect();
    let (bytes, scales) = quantize_rows(&row, EMBEDDING_DIM);
    for (v, b) in row.iter().zip(bytes) {
        assert!((v - f32::from(b.cast_signed()) * scales[0]).abs() <= scales[0] * 0.501);
    }
}
