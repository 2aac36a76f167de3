//! Convolutional image towers in f32: MobileNet, EfficientNet-Lite and what is built like them.
//!
//! `recognise` finds the convolutions in tract's graph and hands them to `program`, which packs
//! their weights for `kernels`, fuses each expansion, depthwise filter and projection into one step
//! and gives every value a place in memory; `run` runs that, and `op` makes it an operator of
//! tract's graph.

mod extract;
pub(super) mod kernels;
mod network;
mod op;
mod packed;
mod place;
mod program;
pub(super) mod recognise;
mod run;
mod stage;
pub(super) mod threads;

#[cfg(test)]
mod tests;
