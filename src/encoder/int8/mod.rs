//! Transformer encoders in int8 on the CPU.
//!
//! ```text
//!            image.onnx, text.onnx                     image.int8, text.int8
//!                     │ tract: typed graph                       │ mapped
//!                     ▼                                          │
//!   recognise   sublayers and patches found by structure         │
//!                     │ kernels: weights quantized and packed    │
//!                     ▼                                          ▼
//!   tower       typed graph with fused operators  ──── file ────►│
//!                     │ shapes fixed                             │
//!                     ▼                                          ▼
//!   program     float part ─ sublayers (whole batch) ─ float part
//! ```
//!
//! * [`kernels`]: products, normalisation, attention on u8 · s8, one result on every CPU;
//! * [`sublayer`], [`patches`]: what is fused, built from kernels; [`table`]: embeddings by id;
//! * [`op`], [`lookup`]: the same as operators of tract;
//! * [`recognise`]: finds them in a graph, and reports what it leaves to tract;
//! * [`tower`], [`program`]: a tower before and after its shapes are fixed; `one_token`: what of it is
//!   computed for the class token alone;
//! * [`file`](mod@file): packed towers.
//!
//! Activations are quantized per token at run time, weights per output channel ahead of it;
//! embedding tables per row; normalisation, softmax, pooling and the last projection stay float.

pub mod file;
mod image;
pub mod kernels;
pub mod lookup;
mod one_token;
pub mod op;
pub mod patches;
pub mod program;
pub mod recognise;
pub mod sublayer;
pub mod table;
mod text;
pub mod tower;

pub use image::Int8ImageEncoder;
pub use text::Int8TextEncoder;

#[cfg(test)]
mod tests;
