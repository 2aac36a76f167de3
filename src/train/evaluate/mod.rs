//! Measures a bundle through the daemon's own preprocessing and engine: what is evaluated is what
//! runs.
//!
//! | measurement | question |
//! |---|---|
//! | [`frames`] | how well do labels do on frames of one's own, and at which thresholds? |
//! | [`zero_shot`] | CLIP-Italian's protocol on ImageNet's classes with Italian names |
//! | [`retrieval`] | CLIP-Italian's protocol on MSCOCO-IT: each caption among all images |
//! | [`grocery`] | the demo bundle on the grocery photos it was made from |
//!
//! [`metrics`] has the formulas; [`write()`] puts results into the bundle's manifest.

pub mod frames;
pub mod grocery;
pub mod metrics;
pub mod picture;
pub mod retrieval;
mod write;
pub mod zero_shot;

pub use write::write;
