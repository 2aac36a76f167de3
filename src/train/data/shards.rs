//! Tar files with a photo and its text side by side, as WebDataset keeps them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tar::{Archive, EntryType};

use super::detect::Found;
use super::{Draft, MAX_ITEMS, Source, place};
use crate::photo;

/// Longest text beside a photo, bytes.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// What stands beside one photo.
#[derive(Default)]
struct Sample {
    photo: Option<(String, Source)>,
    class: Option<String>,
    captions: Vec<String>,
}

/// Reads the directories of all tar files; photos are read from where they lie.
pub fn read(found: &Found, draft: &mut Draft) -> Result<()> {
    for shard in &found.lists {
        read_one(shard, draft).with_context(|| format!("{}: no tar file", shard.display()))?;
    }
    Ok(())
}

fn read_one(shard: &Path, draft: &mut Draft) -> Result<()> {
    let shown = shard.file_name().unwrap_or_default().to_string_lossy();
    let file = File::open(shard)?;
    let mut order: Vec<String> = Vec::new();
    let mut samples: HashMap<String, Sample> = HashMap::new();
    let mut archive = Archive::new(BufReader::new(file));
    // Raw: without it the crate reads long-name entries of any size into memory.
    for entry in entries(&mut archive)? {
        let mut entry = entry?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.header().path_bytes()).into_owned();
        let Ok(name) = place::inside(&name) else {
            draft.skipped.add(
                format!("{shown}: {}", name.escape_debug()),
                "the path is not legal",
            );
            continue;
        };
        let folder = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[folder..].find('.').map(|dot| folder + dot) else {
            continue;
        };
        let (key, extension) = (&name[..dot], name[dot + 1..].to_ascii_lowercase());
        ensure!(samples.len() <= MAX_ITEMS, "more than {MAX_ITEMS} photos");
        let sample = samples.entry(key.to_owned()).or_insert_with(|| {
            order.push(key.to_owned());
            Sample::default()
        });
        let bytes = entry.size();
        match extension.as_str() {
            "jpg" | "jpeg" | "png" if bytes <= photo::MAX_FILE_BYTES => {
                let source = Source::Part {
                    shard: shard.to_owned(),
                    offset: entry.raw_file_position(),
                    bytes,
                };
                sample.photo = Some((format!("{shown}/{name}"), source));
            }
            "txt" | "caption" | "cls" | "json" if bytes <= MAX_TEXT_BYTES => {
                let mut text = String::new();
                if entry.read_to_string(&mut text).is_err() {
                    draft
                        .skipped
                        .add(format!("{shown}/{name}"), "the text is not UTF-8");
                    continue;
                }
                sample.said(&extension, text.trim());
            }
            _ => draft.skipped.add(
                format!("{shown}/{name}"),
                "neither a photo, nor text, nor short enough",
            ),
        }
    }
    for key in order {
        let Some(sample) = samples.remove(&key) else {
            continue;
        };
        let Some((name, source)) = sample.photo else {
            draft
                .skipped
                .add(format!("{shown}/{key}"), "no photo beside it");
            continue;
        };
        let first = || source.clone();
        draft.add(name.clone(), first, sample.class, None)?;
        for caption in &sample.captions {
            draft.add(name.clone(), || source.clone(), None, Some(caption))?;
        }
    }
    Ok(())
}

fn entries<R: Read + Seek>(archive: &mut Archive<R>) -> std::io::Result<tar::Entries<'_, R>> {
    Ok(archive.entries_with_seek()?.raw(true))
}

impl Sample {
    /// What a file of this extension says: a caption per line, a class, or both in JSON.
    fn said(&mut self, extension: &str, text: &str) {
        let caption = |c: &str| c.trim().to_owned();
        match extension {
            "cls" => self.class = Some(text.to_owned()).filter(|class| !class.is_empty()),
            "json" => {
                let Ok(value) = serde_json::from_str::<Value>(text) else {
                    return;
                };
                if let Some(class) = value.get("class").and_then(Value::as_str) {
                    self.class = Some(class.to_owned());
                }
                let one = value.get("caption").and_then(Value::as_str);
                let many = value.get("captions").and_then(Value::as_array);
                let many = many.into_iter().flatten().filter_map(Value::as_str);
                self.captions
                    .extend(one.into_iter().chain(many).map(caption));
            }
            _ => self
                .captions
                .extend(text.lines().map(caption).filter(|c| !c.is_empty())),
        }
    }
}
