//! The parsers as fuzz targets.

pub mod parsers;
#[path = "../support/tiny_bundle.rs"]
pub mod tiny_bundle;

pub use libfuzzer_sys;

/// A fuzz target that feeds the parser of this name. A panic that the parser catches by design (in
/// an engine, a JPEG decoder) is none: only what comes out of it ends the run.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: std::panic::set_hook(Box::new(|_| {})),
            |input: &[u8]| {
                ($crate::parsers::named($name).read)(input);
            }
        );
    };
}
