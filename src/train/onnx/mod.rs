//! Reading and writing ONNX with tract's protobuf types.

pub mod edit;
pub mod graph;
pub mod layers;
pub mod lite0;
pub mod read;

pub use graph::{Dim, Graph, Model, Port, Store, float, int, ints, signed, tensor};
pub use lite0::{Pretrained, read_lite0, write_lite0};
pub use read::Weights;
