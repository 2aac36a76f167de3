//! What the parsers start from: the committed files, and what can be made here at any time.

use std::path::{Path, PathBuf};

use tract_onnx::prelude::*;
use vedetta::bundle::{Bundle, Limits, pack};
use vedetta::encoder::int8;

use crate::tiny_bundle;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/seeds")
        .join(name)
}

/// The seeds of a parser, in name order.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder(name)).expect("the folder of seeds");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a seed"))
        .collect()
}

/// Writes the seeds that are made of a bundle; `make_seeds.py` makes the others.
#[test]
#[ignore = "only after a format changed: cargo test --test fuzz write_seeds -- --ignored"]
fn write_seeds() {
    let files = tiny_bundle::files();
    let scratch = tempfile::tempdir().expect("a folder");
    tiny_bundle::write_good(scratch.path());
    let manifest = std::fs::read(scratch.path().join("bundle.toml")).expect("the manifest");
    let bundle = Bundle::open(scratch.path(), &Limits::default()).expect("a good bundle");
    let mut packed = Vec::new();
    pack(&bundle, &mut packed).expect("memory takes it");
    let graph = tract_onnx::onnx()
        .model_for_read(&mut &files["image.onnx"][..])
        .and_then(|model| {
            model
                .with_input_fact(0, f32::fact([1, 3, 32, 32]).into())?
                .into_typed()
        })
        .expect("the tiny graph");
    let mut tower = Vec::new();
    int8::file::write(&graph, &mut tower).expect("memory takes it");
    for (parser, name, content) in [
        ("manifest", "tiny", &manifest),
        ("archive", "packed", &packed),
        ("archive", "tar", &tar_of(&manifest, &files)),
        ("onnx", "image", &files["image.onnx"]),
        ("onnx", "text", &files["text.onnx"]),
        ("tokenizer", "wordlevel", &files["tokenizer.json"]),
        ("packed", "plain", &tower),
    ] {
        std::fs::create_dir_all(folder(parser)).expect("a folder");
        std::fs::write(folder(parser).join(name), content).expect("a seed");
    }
}

fn tar_of(manifest: &[u8], files: &tiny_bundle::Files) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let manifest = [("bundle.toml", manifest)];
    let files = files
        .iter()
        .map(|(name, content)| (name.as_str(), &content[..]));
    for (name, content) in manifest.into_iter().chain(files) {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content)
            .expect("memory takes it");
    }
    tar.into_inner().expect("memory takes it")
}
