//! Preprocessing, bundles, encoders and scoring on real files.

#[path = "../support/mod.rs"]
mod support;

mod bundle;
mod calibration;
mod demo_bundle;
mod encoder;
mod preprocess;
#[cfg(feature = "train")]
mod refresh;
mod score;
mod signature;
mod tokenizer;
