//! Imported checkpoints, run by the daemon's own engine, agree with `transformers`.
//!
//! `tests/fixtures/import/make.py` makes the checkpoints and the references.
#![cfg(feature = "train")]

mod distill;
mod hub;
mod parity;
mod quantize;
mod refresh;
