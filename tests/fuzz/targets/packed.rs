//! A packed int8 tower: any bytes are read or refused, nothing outside the file is touched.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vedetta::bundle::Shared;

fuzz_target!(|bytes: &[u8]| {
    let file: Shared = Arc::new(bytes.to_vec());
    let _ = vedetta::encoder::int8::file::check(&file);
});
