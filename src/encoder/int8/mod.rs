//! Transformer encoders in int8 on the CPU.

pub mod kernels;
pub mod op;
pub mod recognise;
pub mod sublayer;
