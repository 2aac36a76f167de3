//! Lists of photos to learn from: tar shards, captions as TSV, CSV and JSONL, COCO's JSON, names.

use std::fs;

use vedetta::train::data::{Dataset, Names, Options, photos};

/// The first byte chooses the kind. Photos `a.jpg` and `b.jpg` lie beside the list.
pub fn read(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else {
        return false;
    };
    let name = [
        "list.tar",
        "list.tsv",
        "list.csv",
        "list.jsonl",
        "list.json",
        "nomi.tsv",
        "nomi.csv",
    ][usize::from(kind % 7)];
    let folder = super::folder(&format!("dataset-{}", kind % 7));
    for photo in ["a.jpg", "b.jpg"] {
        fs::write(folder.join(photo), photo).expect("a temporary file");
    }
    let list = folder.join(name);
    fs::write(&list, bytes).expect("a temporary file");
    if name.starts_with("nomi") {
        return Names::read(&list).is_ok();
    }
    let Ok(dataset) = Dataset::open(&list, &Options::default()) else {
        return false;
    };
    for item in dataset.items.iter().take(16) {
        let _ = photos::bytes(&item.source);
    }
    true
}
