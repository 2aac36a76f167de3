//! Transformer encoders in int8 on the CPU.

pub mod kernels;
