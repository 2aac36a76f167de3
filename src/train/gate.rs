//! Keeps the head's trained branch to what it was trained on.
//!
//! That branch knows groceries only; on anything else it gives some grocery's embedding, longer than
//! the branch of everyday names beside it. The tower's own classifier tells them apart without
//! photos of everything else: with `p` its probabilities for an image and `m` their mean over the
//! grocery photos, `r = Σ p·m·1000` says how much likelier the image is among groceries than among
//! all classes alike. The trained branch is multiplied by `g = r² / (r² + τ²)`, where `τ` is the `r`
//! that one grocery photo in 500 does not reach.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use prost::Message;
use rayon::prelude::*;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::*;

use super::grocery::{Photo, decode};
use super::onnx::Model;
use super::texts::EVERYDAY;
use crate::bundle::manifest::Image;
use crate::config::Shape;
use crate::preprocess::Preprocessor;

/// Names that [`super::head::Head::write`] gives.
const PROBABILITIES: &str = "classifier.softmax";
const TRAINED: &str = "output.sum";
const EMBEDDING: &str = "embedding";

/// The gate's own names.
const WEIGHT: &str = "gate.weight";
const ONE: &str = "gate.one";
const GATED: &str = "output.gated";

/// Share of the grocery photos with less than half of their trained branch.
const MISSED: f64 = 1.0 / 500.0;

/// `p` of every photo: rows of 1000 probabilities, by the image tower `onnx` behind the daemon's own
/// preprocessing.
///
/// # Errors
/// A tower without a classifier, or a photo that cannot be read.
pub fn probabilities(onnx: &[u8], image: &Image, photos: &[Photo]) -> Result<Vec<Vec<f32>>> {
    let size = image.size_px;
    let shape = InferenceFact::dt_shape(f32::datum_type(), [1, 3, size, size]);
    let mut model = tract_onnx::onnx()
        .model_for_read(&mut &onnx[..])?
        .with_input_fact(0, shape)?;
    model.select_outputs_by_name([PROBABILITIES])?;
    let model = model.into_optimized()?.into_runnable()?;
    let preprocessor = Preprocessor::new(image);
    let bar = super::demo::progress("what the classifier takes groceries for");
    bar.set_length(photos.len() as u64);
    let done = AtomicUsize::new(0);
    let rows = photos
        .par_iter()
        .map(|photo| {
            let input = preprocessor.prepare(&decode(&photo.path)?, &Shape::Full)?;
            let input =
                tract_onnx::prelude::Tensor::from_shape(&[1, 3, size, size], &input.values)?;
            let output = model.run(tvec![input.into()])?;
            bar.inc(1);
            if done.fetch_add(1, Ordering::Relaxed).is_multiple_of(500) {
                log::info!("{} of {} photos", bar.position(), photos.len());
            }
            let values = output[0].to_plain_array_view::<f32>()?;
            Ok(values.iter().copied().collect())
        })
        .collect();
    bar.finish_and_clear();
    rows
}

/// Weights `w = 1000·m/τ`, so that `r/τ = Σ p·w`, from the rows of [`probabilities`].
///
/// # Errors
/// No rows, or rows of another length than the classifier's.
pub fn weights(rows: &[Vec<f32>]) -> Result<Vec<f32>> {
    ensure!(
        !rows.is_empty() && rows.iter().all(|row| row.len() == EVERYDAY),
        "probabilities of {EVERYDAY} classes are needed"
    );
    let mut mean = vec![0.0f64; EVERYDAY];
    for row in rows {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, p)| *m += f64::from(*p));
    }
    // r without its constant factor, which cancels out against τ.
    let ratio = |row: &Vec<f32>| -> f64 {
        let terms = row.iter().zip(&mean);
        terms.map(|(p, m)| f64::from(*p) * m).sum()
    };
    let mut ratios: Vec<f64> = rows.iter().map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among a few thousand photos"
    )]
    let place = (ratios.len() as f64 * MISSED) as usize;
    let least = ratios[place];
    ensure!(least > 0.0, "a photo that the classifier has no opinion on");
    #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
    Ok(mean.iter().map(|m| (m / least) as f32).collect())
}

/// Puts the gate with these `weights` into an image tower written by [`super::head::Head::write`];
/// one that is there gets the new weights.
///
/// # Errors
/// Another graph.
pub fn insert(onnx: &[u8], weights: &[f32]) -> Result<Model> {
    ensure!(weights.len() == EVERYDAY, "a weight for every class");
    let mut model = ModelProto::decode(onnx).context("no ONNX file")?;
    let mut graph = model.graph.take().context("an ONNX file without a graph")?;
    graph.initializer.retain(|t| t.name != WEIGHT);
    graph.initializer.push(tensor(WEIGHT, &[1000, 1], weights));
    if !gives(&graph, GATED) {
        ensure!(
            gives(&graph, PROBABILITIES),
            "the image tower has no classifier: {PROBABILITIES} is missing"
        );
        let last = graph.node.iter().position(|node| {
            node.op_type == "Add"
                && node.output == [EMBEDDING]
                && node.input.iter().any(|name| name == TRAINED)
        });
        let last = last.context("the image tower does not end in the sum of two branches")?;
        for name in graph.node[last].input.iter_mut().filter(|n| *n == TRAINED) {
            GATED.clone_into(name);
        }
        graph.initializer.push(tensor(ONE, &[], &[1.0]));
        let gate = [
            node("MatMul", &[PROBABILITIES, WEIGHT], "gate.ratio"),
            node("Mul", &["gate.ratio", "gate.ratio"], "gate.square"),
            node("Add", &["gate.square", ONE], "gate.sum"),
            node("Div", &["gate.square", "gate.sum"], "gate"),
            node("Mul", &[TRAINED, "gate"], GATED),
        ];
        graph.node.splice(last..last, gate);
    }
    Ok(Model::from_parts(model, graph))
}

fn gives(graph: &GraphProto, name: &str) -> bool {
    graph.node.iter().any(|node| node.output == [name])
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        name: output.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::onnx::{Dim, Graph, Port};

    /// Probabilities go in, the trained branch is `[3, 0]`, the everyday branch `[0, 1]`.
    fn tower() -> Vec<u8> {
        let mut graph = Graph::default();
        let scale = graph.float("scale", &[], &[1.0]);
        graph.node("Mul", &["pixel_values", &scale], PROBABILITIES, vec![]);
        let none = graph.float("none", &[EVERYDAY, 2], &vec![0.0; 2 * EVERYDAY]);
        let zero = graph.node("MatMul", &[PROBABILITIES, &none], "zero", vec![]);
        for (branch, values) in [(TRAINED, [3.0, 0.0]), ("everyday", [0.0, 1.0])] {
            let values = graph.float(&format!("{branch}.values"), &[1, 2], &values);
            graph.node("Add", &[&zero, &values], branch, vec![]);
        }
        graph.node("Add", &[TRAINED, "everyday"], EMBEDDING, vec![]);
        let shape = |size| [Dim::Open("n"), Dim::Size(size)];
        let input = Port::float("pixel_values", &shape(EVERYDAY));
        let output = Port::float(EMBEDDING, &shape(2));
        graph.finish("tower", &[input], &output).into_bytes()
    }

    fn one_hot(class: usize) -> Vec<f32> {
        (0..EVERYDAY)
            .map(|c| f32::from(u8::from(c == class)))
            .collect()
    }

    fn run(onnx: &[u8], row: &[f32]) -> Vec<f32> {
        let model = tract_onnx::onnx()
            .model_for_read(&mut &onnx[..])
            .and_then(|m| {
                m.with_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), [1, 1000]))
            })
            .and_then(|m| m.into_optimized()?.into_runnable())
            .unwrap();
        let input = tract_onnx::prelude::Tensor::from_shape(&[1, 1000], row).unwrap();
        let output = model.run(tvec![input.into()]).unwrap();
        let values = output[0].to_plain_array_view::<f32>().unwrap();
        values.iter().copied().collect()
    }

    #[test]
    fn what_no_grocery_is_taken_for_loses_the_trained_branch() {
        // 1000 photos of class 4, one of class 9: one in 500 may be missed.
        let mut rows = vec![one_hot(4); 1000];
        rows.push(one_hot(9));
        let weights = weights(&rows).unwrap();
        let gated = insert(&tower(), &weights).unwrap().into_bytes();
        assert_eq!(run(&gated, &one_hot(7)), [0.0, 1.0]);
        let half = run(&gated, &one_hot(4));
        assert!((half[0] - 1.5).abs() < 1e-5 && half[1] == 1.0, "{half:?}");
        let rare = run(&gated, &one_hot(9));
        assert!(rare[0] < 0.01, "{rare:?}");
    }

    #[test]
    fn a_second_gate_takes_the_place_of_the_first() {
        let shut = insert(&tower(), &vec![0.0; EVERYDAY]).unwrap().into_bytes();
        assert_eq!(run(&shut, &one_hot(4)), [0.0, 1.0]);
        let open = insert(&shut, &vec![1e6; EVERYDAY]).unwrap().into_bytes();
        assert_eq!(run(&open, &one_hot(4)), [3.0, 1.0]);
    }

    #[test]
    fn another_tower_is_refused() {
        let mut graph = Graph::default();
        let one = graph.float("one", &[], &[1.0]);
        graph.node("Add", &["pixel_values", &one], EMBEDDING, vec![]);
        let port = |name| Port::float(name, &[Dim::Size(1)]);
        let bytes = graph.finish("tower", &[port("pixel_values")], &port(EMBEDDING));
        let error = insert(&bytes.into_bytes(), &vec![0.0; EVERYDAY]).err();
        assert!(error.is_some_and(|e| e.to_string().contains(PROBABILITIES)));
        assert!(weights(&[]).is_err());
    }
}
