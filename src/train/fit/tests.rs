//! Proofs of the learning itself.

mod distillation;
mod losses;
mod sessions;
mod taught;
mod towers;
