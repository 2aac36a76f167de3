//! Keeps the head to what it was trained on.
//!
//! Its trained branch knows groceries only; on anything else it gives some grocery's embedding, longer
//! than the branch of everyday names beside it. The tower's own classifier tells them apart without
//! photos of everything else: with `p` its probabilities for an image and `m` their mean over the
//! grocery photos, `r = Σ p·m·1000` says how much likelier the image is among groceries than among
//! all classes alike. With `g = r² / (r² + τ²)`, where `τ` is the `r` that one grocery photo in 500 does
//! not reach, the embedding is
//!
//! ```text
//! g · trained + (1 − g) · beyond
//! ```
//!
//! `trained` is what the head was trained to give. `beyond` is a convex combination of names, too, but
//! made for what no photo was there for ([`names`]): a mixture of many names is near whatever name lies
//! in the middle of all, so half of the names' mean is taken off each and the classifier's opinion is
//! sharpened to its square; and a class stands for the short names it shares with others as well.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use candle_core::Tensor as Table;
use prost::Message;
use rayon::prelude::*;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::*;

use super::grocery::{Photo, decode};
use super::head::everyday_names;
use super::onnx::{self, Model, Store};
use super::targets::{Bank, EVERYDAY, select, unit_rows};
use crate::bundle::manifest::Image;
use crate::config::Shape;
use crate::preprocess::Preprocessor;

/// Names that [`super::head::Head::write`] gives.
const LOGITS: &str = "classifier.sum";
const PROBABILITIES: &str = "classifier.softmax";
const EMBEDDING: &str = "embedding";

/// The gate's own names.
const WEIGHT: &str = "gate.weight";
const ONE: &str = "gate.one";
const SHARPNESS: &str = "beyond.sharpness";
const NAMES: &str = "beyond.names";

/// What the logits are multiplied by before the names are mixed.
const SHARPER: f32 = 2.0;
/// Share of the names' mean that is taken off every name.
const CENTRED: f64 = 0.5;

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

/// What stands for each ImageNet class beyond the groceries, `[1000, D]`: the mean of its own names and,
/// with the same weight, of the short ones it shares with others (a dingo is *un dingo* and *un cane*),
/// as unit vectors, less a share of the mean of all. `texts [N, D]` are the embeddings of the bank's
/// rows.
///
/// # Errors
/// candle's.
pub fn names(bank: &Bank, texts: &Table) -> Result<Table> {
    let own = everyday_names(bank, texts)?;
    let mut rows = Vec::with_capacity(EVERYDAY);
    for id in 0..EVERYDAY {
        let mut row = own.narrow(0, id, 1)?;
        if !bank.basic_rows(id).is_empty() {
            row = (row + select(texts, bank.basic_rows(id))?.mean_keepdim(0)?)?;
        }
        rows.push(row);
    }
    let names = unit_rows(&Table::cat(&rows, 0)?)?;
    let centre = (names.mean_keepdim(0)? * CENTRED)?;
    Ok(names.broadcast_sub(&centre)?)
}

/// Puts the gate with these `weights` and [`names`] `[1000, D]`, row-major, into an image tower written
/// by [`super::head::Head::write`].
///
/// # Errors
/// Another graph, or one that has a gate.
pub fn insert(onnx: &[u8], weights: &[f32], names: &[f32]) -> Result<Model> {
    ensure!(
        weights.len() == EVERYDAY && !names.is_empty() && names.len().is_multiple_of(EVERYDAY),
        "a weight and a name for every class"
    );
    let mut model = ModelProto::decode(onnx).context("no ONNX file")?;
    let mut graph = model.graph.take().context("an ONNX file without a graph")?;
    for needed in [LOGITS, PROBABILITIES] {
        ensure!(
            gives(&graph, needed),
            "the image tower has no classifier: {needed} is missing"
        );
    }
    let last = graph.node.iter_mut().find(|node| {
        node.op_type == "Add"
            && node.output == [EMBEDDING]
            && node.input.iter().any(|name| name == "everyday")
    });
    let last = last.context("the image tower does not end in the sum of two branches")?;
    last.name = "trained".to_owned();
    last.output = vec![last.name.clone()];
    let stored = format!("{NAMES}.f16");
    let dims = [EVERYDAY, names.len() / EVERYDAY];
    graph.initializer.extend([
        float(WEIGHT, &[EVERYDAY, 1], weights),
        float(ONE, &[], &[1.0]),
        float(SHARPNESS, &[], &[SHARPER]),
        onnx::tensor(&stored, &dims, DataType::Float16, Store::Half.bytes(names)),
    ]);
    graph.node.extend([
        node("MatMul", &[PROBABILITIES, WEIGHT], "gate.ratio"),
        node("Mul", &["gate.ratio", "gate.ratio"], "gate.square"),
        node("Add", &["gate.square", ONE], "gate.sum"),
        node("Div", &["gate.square", "gate.sum"], "gate"),
        node("Mul", &[LOGITS, SHARPNESS], "beyond.logits"),
        with(
            node("Softmax", &["beyond.logits"], "beyond.softmax"),
            "axis",
            -1,
        ),
        with(
            node("Cast", &[&stored], NAMES),
            "to",
            DataType::Float as i64,
        ),
        node("MatMul", &["beyond.softmax", NAMES], "beyond"),
        node("Sub", &["trained", "beyond"], "gate.difference"),
        node("Mul", &["gate.difference", "gate"], "gate.share"),
        node("Add", &["beyond", "gate.share"], EMBEDDING),
    ]);
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

fn float(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    onnx::tensor(name, dims, DataType::Float, Store::Float.bytes(values))
}

fn with(mut node: NodeProto, attribute: &str, value: i64) -> NodeProto {
    node.attribute.push(onnx::int(attribute, value));
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::onnx::{Dim, Graph, Port};

    /// Probabilities go in and are the logits, too; the trained branch is `[3, 0]`, the everyday branch
    /// `[0, 1]`.
    fn tower() -> Vec<u8> {
        let mut graph = Graph::default();
        let scale = graph.float("scale", &[], &[1.0]);
        graph.node("Mul", &["pixel_values", &scale], LOGITS, vec![]);
        graph.node("Mul", &[LOGITS, &scale], PROBABILITIES, vec![]);
        let none = graph.float("none", &[EVERYDAY, 2], &vec![0.0; 2 * EVERYDAY]);
        let zero = graph.node("MatMul", &[PROBABILITIES, &none], "zero", vec![]);
        for (branch, values) in [("output.sum", [3.0, 0.0]), ("everyday", [0.0, 1.0])] {
            let values = graph.float(&format!("{branch}.values"), &[1, 2], &values);
            graph.node("Add", &[&zero, &values], branch, vec![]);
        }
        graph.node("Add", &["output.sum", "everyday"], EMBEDDING, vec![]);
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

    /// Every class is called `[0, −1]`.
    fn down() -> Vec<f32> {
        [0.0, -1.0].repeat(EVERYDAY)
    }

    fn near(got: &[f32], expected: [f32; 2]) {
        let near = got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 2e-3);
        assert!(near, "{got:?}, not {expected:?}");
    }

    #[test]
    fn what_no_grocery_is_taken_for_loses_the_trained_branch() {
        // 1000 photos of class 4, one of class 9: one in 500 may be missed.
        let mut rows = vec![one_hot(4); 1000];
        rows.push(one_hot(9));
        let weights = weights(&rows).unwrap();
        let gated = insert(&tower(), &weights, &down()).unwrap().into_bytes();
        near(&run(&gated, &one_hot(7)), [0.0, -1.0]);
        near(&run(&gated, &one_hot(4)), [1.5, 0.0]);
        let rare = run(&gated, &one_hot(9));
        assert!(rare[0] < 0.01, "{rare:?}");
    }

    #[test]
    fn an_open_gate_lets_through_what_was_trained() {
        let open = insert(&tower(), &vec![1e6; EVERYDAY], &down()).unwrap();
        near(&run(&open.into_bytes(), &one_hot(4)), [3.0, 1.0]);
    }

    #[test]
    fn names_are_mixed_by_the_square_of_the_opinion() {
        let mut names = vec![0.0; 2 * EVERYDAY];
        names[0] = 1.0;
        let shut = insert(&tower(), &vec![0.0; EVERYDAY], &names).unwrap();
        let shut = shut.into_bytes();
        let mut logits = vec![-50.0; EVERYDAY];
        (logits[0], logits[1]) = (3f32.ln(), 0.0);
        near(&run(&shut, &logits), [0.9, 0.0]);
    }

    #[test]
    fn there_is_one_gate() {
        let once = insert(&tower(), &vec![0.0; EVERYDAY], &down()).unwrap();
        assert!(insert(&once.into_bytes(), &vec![0.0; EVERYDAY], &down()).is_err());
    }

    #[test]
    fn another_tower_is_refused() {
        let mut graph = Graph::default();
        let one = graph.float("one", &[], &[1.0]);
        graph.node("Add", &["pixel_values", &one], EMBEDDING, vec![]);
        let port = |name| Port::float(name, &[Dim::Size(1)]);
        let bytes = graph.finish("tower", &[port("pixel_values")], &port(EMBEDDING));
        let error = insert(&bytes.into_bytes(), &vec![0.0; EVERYDAY], &down()).err();
        assert!(error.is_some_and(|e| e.to_string().contains("classifier")));
        assert!(weights(&[]).is_err());
    }
}
