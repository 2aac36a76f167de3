//! The host-side trainer.

fn main() {}
