//! Checkpoints of the trainer: safetensors, Flax' MessagePack, PyTorch's zip with a pickle in it.

use std::fs;
use std::path::Path;

use vedetta::train::import::checkpoint::Checkpoint;

/// The first byte chooses the format. A PyTorch checkpoint that is no zip is taken for the pickle
/// inside of one.
pub fn read(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else {
        return false;
    };
    let folder = super::folder("checkpoint");
    let name = [
        "model.safetensors",
        "flax_model.msgpack",
        "pytorch_model.bin",
    ][usize::from(kind % 3)];
    let path = folder.join(name);
    if kind % 3 == 2 && !bytes.starts_with(b"PK") {
        fs::write(&path, zip_of(bytes)).expect("a temporary file");
    } else {
        fs::write(&path, bytes).expect("a temporary file");
    }
    read_all(&path)
}

fn read_all(path: &Path) -> bool {
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return false;
    };
    for stored in checkpoint.tensors().values().take(64) {
        let _ = checkpoint.read(stored);
    }
    true
}

/// What `torch.save` writes around a pickle, with one storage of eight bytes.
fn zip_of(pickle: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("a/data.pkl", pickle), ("a/data/0", &[0; 8][..])] {
        zip.start_file(name, stored).expect("memory takes it");
        zip.write_all(content).expect("memory takes it");
    }
    zip.finish().expect("memory takes it").into_inner()
}
