//! A bundle in which one thing is anything: the archive, a graph, the tokenizer.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use vedetta::bundle::{Bundle, Limits};
use vedetta::encoder;
use vedetta::encoder::ModelInput;

use crate::tiny_bundle;

/// A `.tar.zst`. Bytes that are no zstd frame are taken for the tar file inside of one.
pub fn archive(input: &[u8]) -> bool {
    let path = super::folder("archive").join("bundle.tar.zst");
    let wrapped;
    let bytes = if input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        input
    } else {
        wrapped = zstd_of(input);
        &wrapped
    };
    fs::write(&path, bytes).expect("a temporary file");
    let limits = Limits {
        max_total_bytes: 1 << 20,
        ..Limits::default()
    };
    Bundle::open(&path, &limits).is_ok()
}

/// A zstd frame of raw blocks (RFC 8878, 3.1.1).
pub fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    // No content size, no checksum, a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    let mut blocks = bytes.chunks(1 << 16).peekable();
    if blocks.peek().is_none() {
        frame.extend([1, 0, 0]);
    }
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        let size = u32::try_from(block.len()).expect("at most 64 KiB");
        frame.extend(&(size << 3 | last).to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

/// A graph, loaded as either tower and run.
pub fn onnx(input: &[u8]) -> bool {
    let folder = super::folder("onnx");
    let image = || {
        let mut encoder =
            encoder::load_image(&with(&folder, "image.onnx", input)?, NonZeroUsize::MIN).ok()?;
        encoder
            .encode_images(&[ModelInput::probe(tiny_bundle::SIZE_PX)])
            .ok()
    };
    let text = || {
        let mut encoder = encoder::load_text(&with(&folder, "text.onnx", input)?).ok()?;
        encoder.encode_texts(&["rosso verde"]).ok()
    };
    image().is_some() | text().is_some()
}

/// A tokenizer, and texts through it.
pub fn tokenizer(input: &[u8]) -> bool {
    let folder = super::folder("tokenizer");
    let bundle = with(&folder, "tokenizer.json", input);
    let Some(mut encoder) = bundle.and_then(|bundle| encoder::load_text(&bundle).ok()) else {
        return false;
    };
    ["rosso", "Una mèla ROSSA, n. 12 😀", "\u{301}\u{200d}"]
        .into_iter()
        .filter(|text| encoder.encode_texts(&[text]).is_ok())
        .count()
        > 0
}

/// The tiny bundle with another file in it, hashes and all.
fn with(folder: &Path, name: &str, content: &[u8]) -> Option<Bundle> {
    let mut files = tiny_bundle::files();
    files.insert(name.to_owned(), content.to_vec());
    tiny_bundle::write(folder, &files, &tiny_bundle::manifest(&files));
    Bundle::open(folder, &Limits::default()).ok()
}
