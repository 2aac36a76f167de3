//! A checkpoint in several files, with `….index.json` saying what is where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Checkpoint, MAX_JSON_BYTES, format_of, plain_name, read_text};
use super::{Format, safetensors, torch};

/// Most files of a checkpoint.
const MAX_SHARDS: usize = 512;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn open(checkpoint: &mut Checkpoint, path: &Path) -> Result<()> {
    let text = read_text(path, MAX_JSON_BYTES)?;
    let index: Index = serde_json::from_str(&text).context("is no index of shards")?;
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    ensure!(shards.len() <= MAX_SHARDS, "more than {MAX_SHARDS} files");
    for shard in shards {
        ensure!(
            plain_name(shard),
            "{shard:?} is no name of a file beside the index"
        );
        let file = path.with_file_name(shard);
        let context = || format!("shard {shard}");
        let index_of = match format_of(shard)? {
            Format::Safetensors => safetensors::index,
            Format::Torch => torch::index,
            _ => bail!("shard {shard} is neither a .safetensors nor a .bin file"),
        };
        let before: BTreeSet<String> = checkpoint.tensors.keys().cloned().collect();
        checkpoint.add(&file, index_of).with_context(context)?;
        let added = checkpoint
            .tensors
            .keys()
            .filter(|name| !before.contains(*name));
        for name in added {
            ensure!(
                index.weight_map.get(name) == Some(shard),
                "tensor {name} is in {shard}, where the index does not have it"
            );
        }
    }
    for (name, shard) in &index.weight_map {
        ensure!(
            checkpoint.tensors.contains_key(name),
            "tensor {name} is missing from {shard}"
        );
    }
    Ok(())
}
