//! Transformer encoders in int8 on the CPU.

pub mod file;
mod image;
pub mod kernels;
pub mod op;
pub mod patches;
pub mod program;
pub mod recognise;
pub mod sublayer;
mod text;
pub mod tower;

pub use image::Int8ImageEncoder;
pub use text::Int8TextEncoder;

#[cfg(test)]
mod tests;
