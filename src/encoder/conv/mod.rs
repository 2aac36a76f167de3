//! Convolutional towers of ours.

pub mod kernels;
pub mod network;
mod packed;
mod place;
pub mod program;
pub mod run;
mod stage;
pub mod threads;
