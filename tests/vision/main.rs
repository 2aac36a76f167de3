//! Preprocessing, bundles, encoders and scoring on real files.

#[path = "../support/mod.rs"]
mod support;

mod ahead;
mod bundle;
#[cfg(feature = "train")]
mod calibrate;
mod calibration;
mod demo_bundle;
mod encoder;
#[cfg(feature = "train")]
mod evaluate;
mod preprocess;
mod reduced;
#[cfg(feature = "train")]
mod refresh;
mod score;
mod signature;
mod tokenizer;
#[cfg(feature = "train")]
mod walk;
