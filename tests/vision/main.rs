//! Preprocessing, bundles, encoders and scoring on real files.

#[path = "../support/mod.rs"]
mod support;

mod bundle;
mod calibration;
mod demo_bundle;
mod encoder;
#[cfg(feature = "train")]
mod evaluate;
mod preprocess;
mod score;
mod tokenizer;
