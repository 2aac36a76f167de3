//! Int8 kernels with run-time dispatch: no dependency but `std`, no build flags.
//!
//! ```text
//! f32 rows ── QuantizedRows ──► u8 rows ──┐
//!             (LayerNorm fused)           ├─► linear, linear_add ──► f32 rows ──► attention
//! f32 weights ── PackedMatrix ──► s8 panels ─┘   (bias, activation, residual fused)
//! ```
//!
//! **One result.** Products are exact in integers; every float stage is one generic source over
//! sixteen lanes with a fixed order of operations, fused multiply–adds included. So every instruction
//! set gives the bits of [`Isa::Scalar`], every number of threads gives the same bits, and a batch
//! gives the bits of its single images.
//!
//! **Numbers that are not finite** never panic: a row of activations (or an output channel) with a
//! NaN or an infinity turns all its outputs into NaN, and nothing else.

#[cfg(target_arch = "x86_64")]
mod amx_permission;
mod attention;
mod buffer;
mod context;
mod gemm;
mod isa;
mod lanes;
mod layout;
mod linear;
mod math;
mod norm;
mod order;
mod peak;
mod pool;
mod rows;
#[cfg(test)]
mod tests;

pub use attention::{attention, attention_int8};
pub use buffer::{Bytes, Movable, Owner};
pub use context::Context;
pub use isa::Isa;
pub use layout::{LayoutError, MAX_K, PackedMatrix};
pub use linear::{Token, linear, linear_add, linear_of_token, linear_ordered};
pub use math::Activation;
pub use norm::layer_norm;
pub use order::Order;
pub use peak::multiply;
pub use rows::QuantizedRows;
