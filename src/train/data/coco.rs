//! COCO's captions in one JSON, as MSCOCO-IT has them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::detect::Found;
use super::{Draft, MAX_LIST_BYTES, Source, place};

/// How much of a list is looked at to tell what it is, bytes.
const LOOK_BYTES: u64 = 1 << 16;

/// Folders directly below the dataset's that are searched for photos.
const MAX_FOLDERS: usize = 64;

#[derive(Deserialize)]
struct List {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    caption: Option<String>,
}

/// Whether a JSON begins as COCO's do.
pub fn has_keys(list: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(list).and_then(|file| file.take(LOOK_BYTES).read_to_end(&mut head));
    let head = String::from_utf8_lossy(&head);
    read.is_ok()
        && head.trim_start().starts_with('{')
        && (head.contains("\"images\"") || head.contains("\"annotations\""))
}

/// Reads every list. Photos lie beside it, in `images/`, or in any folder directly below.
pub fn read(found: &Found, draft: &mut Draft) -> Result<()> {
    let folders = folders(&found.root);
    for list in &found.lists {
        let file = File::open(list).with_context(|| list.display().to_string())?;
        let length = file.metadata().map_or(0, |m| m.len());
        ensure!(
            length <= MAX_LIST_BYTES,
            "{} is longer than {MAX_LIST_BYTES} bytes; split it",
            list.display()
        );
        let reader = BufReader::new(file.take(MAX_LIST_BYTES));
        let content: List = serde_json::from_reader(reader)
            .with_context(|| format!("{}: no list of COCO captions", list.display()))?;
        read_one(&found.root, &folders, content, draft)?;
    }
    Ok(())
}

fn read_one(root: &Path, folders: &[String], list: List, draft: &mut Draft) -> Result<()> {
    let mut photos: HashMap<u64, (String, PathBuf)> = HashMap::new();
    for image in list.images {
        match locate(root, folders, &image.file_name) {
            Ok(found) => drop(photos.insert(image.id, found)),
            Err(reason) => {
                let shown: String = image.file_name.chars().take(80).collect();
                draft.skipped.add(shown.escape_debug().to_string(), reason);
            }
        }
    }
    for annotation in list.annotations {
        let (Some((name, path)), Some(caption)) =
            (photos.get(&annotation.image_id), &annotation.caption)
        else {
            continue;
        };
        let source = || Source::File(path.clone());
        draft.add(name.clone(), source, None, Some(caption))?;
    }
    Ok(())
}

fn folders(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut folders: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    folders.sort();
    folders.truncate(MAX_FOLDERS);
    folders
}

fn locate(
    root: &Path,
    folders: &[String],
    listed: &str,
) -> Result<(String, PathBuf), &'static str> {
    let name = place::inside(listed)?;
    let first = place::file(root, &name);
    if let Ok(path) = first {
        return Ok((name, path));
    }
    for folder in folders {
        let inner = format!("{folder}/{name}");
        if let Ok(path) = place::file(root, &inner) {
            return Ok((inner, path));
        }
    }
    first.map(|path| (name, path))
}
