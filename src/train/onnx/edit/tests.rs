use super::super::{Dim, Graph, Port, Store, int};
use super::*;
use tract_onnx::prelude::*;

const DIM: usize = 3;

fn weight(n: usize) -> Vec<f32> {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    (0..n).map(|i| ((i * 7 % 5) as f32 - 2.0) * 0.25).collect()
}

fn map() -> Map {
    Map::new(DIM, vec![1.0, 0.5, 0.0, -0.25, 2.0, 0.125, 0.0, 0.3, 0.7]).unwrap()
}

fn finish(graph: Graph) -> Vec<u8> {
    let input = Port::float("x", &[Dim::Open("n"), Dim::Size(2)]);
    let output = Port::float("embedding", &[Dim::Open("n"), Dim::Size(DIM)]);
    graph.finish("tower", &[input], &output).into_bytes()
}

fn run(bytes: &[u8], x: [f32; 2]) -> Vec<f32> {
    let model = tract_onnx::onnx().model_for_read(&mut &bytes[..]).unwrap();
    let model = model.with_input_fact(0, f32::fact([1, 2]).into()).unwrap();
    let plan = model.into_optimized().unwrap().into_runnable().unwrap();
    let x = Tensor::from_shape(&[1, 2], &x).unwrap();
    let out = plan.run(tvec!(x.into())).unwrap();
    out[0]
        .try_as_plain_ram()
        .unwrap()
        .as_slice::<f32>()
        .unwrap()
        .to_vec()
}

fn maps(graph: Graph, expected: Placed) -> ModelProto {
    let before = finish(graph);
    let (model, placed) = with_map(before.clone(), &map()).unwrap();
    let after = model.into_bytes();
    assert_eq!(placed, expected);
    for x in [[1.0, 0.0], [0.3, -2.0]] {
        let wanted = map().apply(&run(&before, x));
        for (found, wanted) in run(&after, x).iter().zip(&wanted) {
            assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }
    }
    ModelProto::decode(&after[..]).unwrap()
}

#[test]
fn a_last_product_takes_the_map_into_its_weights() {
    for store in [Store::Float, Store::Half] {
        let mut graph = Graph::new(store);
        let w = graph.matrix("w", &[2, DIM], &weight(2 * DIM));
        graph.node("MatMul", &["x", &w], "embedding", vec![]);
        let graph = maps(graph, Placed::Folded).graph.unwrap();
        assert_eq!(
            (graph.node.len(), graph.initializer.len()),
            (1, 1),
            "{store:?}"
        );
    }
}

#[test]
fn a_bias_is_mapped_too() {
    let mut graph = Graph::new(Store::Half);
    let w = graph.matrix("w", &[2, DIM], &weight(2 * DIM));
    let b = graph.float("b", &[1, DIM], &[0.5, -1.0, 2.0]);
    graph.node("MatMul", &["x", &w], "product", vec![]);
    graph.node("Add", &["product", &b], "embedding", vec![]);
    maps(graph, Placed::Folded);
    let mut graph = Graph::default();
    let w = graph.float("w", &[2, DIM], &weight(2 * DIM));
    let b = graph.float("b", &[DIM], &[0.5, -1.0, 2.0]);
    graph.node("Gemm", &["x", &w, &b], "embedding", vec![]);
    maps(graph, Placed::Folded);
}

#[test]
fn other_ends_get_a_product_behind_them() {
    let mut graph = Graph::default();
    let w = graph.float("w", &[2, DIM], &weight(2 * DIM));
    graph.node("MatMul", &["x", &w], "product", vec![]);
    graph.node("Relu", &["product"], "embedding", vec![]);
    maps(graph, Placed::Appended);
    let mut graph = Graph::default();
    let w = graph.float("w", &[DIM, 2], &weight(2 * DIM));
    let turned = vec![int("transB", 1)];
    graph.node("Gemm", &["x", &w], "embedding", turned);
    maps(graph, Placed::Appended);
    let mut graph = Graph::default();
    let w = graph.float("refresh.weight", &[2, DIM], &weight(2 * DIM));
    graph.node("MatMul", &["x", &w], "a", vec![]);
    graph.node("MatMul", &["x", &w], "b", vec![]);
    graph.node("Add", &["a", "b"], "embedding", vec![]);
    maps(graph, Placed::Appended);
}

#[test]
fn weights_that_others_use_stay() {
    let mut graph = Graph::default();
    let w = graph.float("w", &[2, DIM], &weight(2 * DIM));
    let back = graph.float("back", &[DIM, 2], &weight(2 * DIM));
    graph.node("MatMul", &["x", &w], "first", vec![]);
    graph.node("MatMul", &["first", &back], "middle", vec![]);
    graph.node("MatMul", &["middle", &w], "embedding", vec![]);
    let graph = maps(graph, Placed::Folded).graph.unwrap();
    assert_eq!(graph.initializer.len(), 3);
}

#[test]
fn a_refreshed_graph_can_be_refreshed_again() {
    let mut graph = Graph::default();
    let w = graph.float("w", &[2, DIM], &weight(2 * DIM));
    graph.node("MatMul", &["x", &w], "product", vec![]);
    graph.node("Tanh", &["product"], "embedding", vec![]);
    let (first, _) = with_map(finish(graph), &map()).unwrap();
    let (second, placed) = with_map(first.into_bytes(), &map()).unwrap();
    assert_eq!(placed, Placed::Folded);
    let graph = ModelProto::decode(&second.into_bytes()[..])
        .unwrap()
        .graph
        .unwrap();
    assert_eq!((graph.node.len(), graph.initializer.len()), (3, 2));
}

#[test]
fn what_is_no_tower_is_refused() {
    assert!(with_map(b"hello".to_vec(), &map()).is_err());
    assert!(with_map(Vec::new(), &map()).is_err());
    let mut graph = Graph::default();
    graph.node("Relu", &["x"], "y", vec![]);
    let output = Port::float("y", &[Dim::Open("n")]);
    let bytes = graph.finish("g", &[], &output).into_bytes();
    assert!(with_map(bytes, &map()).is_err());
}
