//! A packed int8 tower: any bytes are read or refused, nothing outside the file is touched.

use std::sync::Arc;

use vedetta::bundle::Shared;

pub fn read(input: &[u8]) -> bool {
    let file: Shared = Arc::new(input.to_vec());
    vedetta::encoder::int8::file::check(&file).is_ok()
}
