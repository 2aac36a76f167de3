//! The trainer's library half: how bundles are made, refreshed and measured.
//!
//! ```text
//! teacher (Python) ─► texts.tsv, teacher.npy ─► space ─► space.safetensors ─► text tower
//!                                                                                │ student_texts
//! photos ─► augment ─► efficientnet (frozen │ tuned) ─► head ◄── everyday anchors ◄┘
//!                                     └─► onnx ─► pack ─► models/demo ─► evaluate
//!
//! public checkpoint ─► import ─► a float bundle
//! own photos ─► data ─► fit ─► a float bundle refreshed, with a report
//! teacher, a smaller student ─► distill ─► a float bundle
//! frames sorted by label ─► calibrate ─► thresholds
//! bundle ─► release (sign) ─► NAME.tar.zst, NAME.tar.zst.minisig
//! ```
//!
//! The demo's image tower is written out by hand ([`efficientnet`]): one image's activations are gone
//! through layer by layer in channel-last order, which a CPU likes better than a general graph.
//! The head and the shared space are small enough for candle's automatic differentiation.

pub mod anchors;
pub mod augment;
pub mod calibrate;
pub mod contrast;
pub mod convolution;
pub mod data;
pub mod demo;
pub mod descent;
pub mod distill;
pub mod efficientnet;
pub mod embed;
pub mod evaluate;
pub mod fit;
pub mod fitting;
pub mod frames;
pub mod gate;
pub mod grocery;
pub mod head;
pub mod import;
pub mod onnx;
pub mod optimizer;
pub mod pack;
pub mod quantize;
pub mod release;
pub mod report;
pub mod sign;
pub mod space;
pub mod targets;
pub mod text;
pub mod texts;
pub mod tower;
pub mod tune;
