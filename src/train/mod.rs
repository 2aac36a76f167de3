//! The trainer's library half.

pub mod text;
