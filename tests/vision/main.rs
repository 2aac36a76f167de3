//! Preprocessing, bundles, encoders and scoring on real files.

#[path = "../support/mod.rs"]
mod support;

mod bundle;
mod demo_bundle;
mod encoder;
mod preprocess;
mod score;
mod signature;
mod tokenizer;
