//! Int8 transformers on an NVIDIA GPU.
//!
//! ```text
//!  picture ──► patches ──► class token, places ──► sublayers … ──► one token ──► projection
//!                GPU              CPU              GPU, one graph                     CPU
//! ```
//!
//! The towers are those of [`int8`](super::int8): the same file, the same recognition, the same program.
//! Only its fused operators, [`Patches`](super::int8::op::Patches) and
//! [`Sublayers`](super::int8::op::Sublayers), nearly all of the work, move to the GPU. The kernels (`kernels.cu`) give the bits of
//! the CPU's, but for attention over many tokens, which is exact here where the CPU's products are in
//! int8. A GPU that fails leaves the work to the CPU for as long as the program runs.
//!
//! Nothing of CUDA is needed to build this, and the driver alone to run it. The kernels are committed as
//! PTX, made by `ptx.py`: the driver compiles them for its GPU, and keeps the result for the next start.

mod gpu;
mod layers;
mod patches;
mod tower;

pub use gpu::Gpu;

#[cfg(test)]
mod tests;
