//! The float CPU engine: tract, with every shape fixed before optimising.

pub(super) mod graph;
mod image;
mod split;
mod text;

pub use image::TractImageEncoder;
pub use text::TractTextEncoder;

/// Engine name in errors and in `B/info`.
const ENGINE: &str = "tract";
