//! A bundle is a model: a directory (or the same packed as `.tar.zst`) with a manifest and its files.

pub mod manifest;
