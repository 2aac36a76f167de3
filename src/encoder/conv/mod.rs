//! Convolutional image towers in f32: MobileNet, EfficientNet-Lite and what is built like them.
//!
//! [`recognise`] finds the convolutions in tract's graph and hands them to [`program`], which packs
//! their weights for [`kernels`], fuses each expansion, depthwise filter and projection into one step
//! and gives every value a place in memory; [`run`] runs that, and [`op`] makes it an operator of
//! tract's graph.

mod extract;
pub mod kernels;
mod network;
pub mod op;
mod packed;
mod place;
mod program;
pub mod recognise;
mod run;
mod stage;
pub(in crate::encoder) mod threads;

#[cfg(test)]
mod tests;
