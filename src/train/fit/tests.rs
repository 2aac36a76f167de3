//! Proofs of the learning itself.

mod losses;
mod sessions;
mod towers;
