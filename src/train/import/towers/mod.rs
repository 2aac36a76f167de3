//! The towers of the known families as ONNX graphs: weights in, nodes out. Weights go by the names
//! that `transformers` has for them, behind `vision.` or `text.`.

pub mod bert;
pub mod clip_text;
pub mod encoder;
pub mod siglip;
pub mod vit;
