//! Photos that people give, JPEG with EXIF or PNG, and those of a folder that is replayed.

use std::fs;
use std::time::Duration;

use vedetta::capture::replay::ReplaySource;
use vedetta::capture::{FrameSource, Next};
use vedetta::decode::decode;
use vedetta::photo;

pub fn read(input: &[u8]) -> bool {
    let folder = super::folder("photo");
    fs::write(folder.join("a.png"), input).expect("a temporary file");
    let mut replayed = ReplaySource::open(&folder, 1000.0, false).expect("a folder with a photo");
    if let Ok(Next::Frame(frame)) = replayed.next_frame(Duration::from_secs(1)) {
        let _ = decode(&frame);
    }
    photo::decode(input).is_ok()
}
