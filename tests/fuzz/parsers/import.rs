//! What lies beside the weights of a checkpoint: configuration, preparation of pictures, tokenizer, model
//! card, index of shards.

use std::fs;
use std::path::Path;

use serde_json::Value;
use vedetta::train::import::card::Card;
use vedetta::train::import::checkpoint::Checkpoint;
use vedetta::train::import::config::{self, Kind};
use vedetta::train::import::family::{Family, read_config};
use vedetta::train::import::{open_clip, preprocessor, tokenizer};

/// The first byte chooses the file.
pub fn read(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else {
        return false;
    };
    let (name, read): (_, fn(&Path) -> bool) = [
        ("config.json", configuration as fn(&Path) -> bool),
        ("preprocessor_config.json", preparation),
        ("tokenizer.json", words),
        ("vocab.txt", words),
        ("README.md", card),
        ("model.safetensors.index.json", shards),
    ][usize::from(kind % 6)];
    let folder = super::folder(&format!("import-{}", kind % 6));
    fs::write(folder.join(name), bytes).expect("a temporary file");
    read(&folder)
}

fn configuration(folder: &Path) -> bool {
    let Ok(config) = read_config(folder) else {
        return false;
    };
    let part = |name: &str| config.get(name).cloned().unwrap_or(Value::Null);
    for kind in [Kind::ClipVision, Kind::SiglipVision] {
        let _ = config::vision(&part("vision_config"), "vision_config", kind).map(|v| v.grid());
    }
    for kind in [Kind::ClipText, Kind::Bert, Kind::SiglipText] {
        let _ = config::text(&part("text_config"), "text_config", kind);
    }
    let _ = config::projection(&config);
    let _ = open_clip::sizes(&config);
    let _ = open_clip::preprocessing(&config);
    Family::of(&config).is_ok()
}

fn preparation(folder: &Path) -> bool {
    preprocessor::read(folder, 32, &preprocessor::CLIP).is_ok()
}

fn words(folder: &Path) -> bool {
    tokenizer::read(folder, 500).is_ok()
}

fn card(folder: &Path) -> bool {
    let card = Card::read(folder, "prova", None, Vec::new());
    card.is_ok_and(|card| card.note().is_none())
}

/// The one file that a good index can name holds a tensor `w`.
fn shards(folder: &Path) -> bool {
    let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let shard = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    fs::write(folder.join("a.safetensors"), shard).expect("a temporary file");
    Checkpoint::open(&folder.join("model.safetensors.index.json")).is_ok()
}
