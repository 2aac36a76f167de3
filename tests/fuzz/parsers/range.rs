//! The header `Content-Range` of a server that a download is continued from.

use vedetta::update::content_range;

pub fn read(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| content_range(text).is_some())
}
