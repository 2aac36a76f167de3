//! train/mod
