//! One folder per class.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Draft, Names, Source, place};

/// How deep folders may be nested.
const MAX_DEPTH: usize = 16;

/// Reads `root/<class>/…/photo.jpg`. Photos of folders inside a class's folder are the class's,
/// unless `names` lists those folders by themselves.
pub fn read(root: &Path, names: &Names, draft: &mut Draft) -> Result<()> {
    walk(root, "", 0, names, draft)
}

fn walk(folder: &Path, name: &str, depth: usize, names: &Names, draft: &mut Draft) -> Result<()> {
    if depth > MAX_DEPTH {
        draft.skipped.add(name, "folders are nested too deep");
        return Ok(());
    }
    let context = || folder.display().to_string();
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Some(own) = entry.file_name().to_str().map(str::to_owned) else {
            draft
                .skipped
                .add(path.to_string_lossy(), "the name is not UTF-8");
            continue;
        };
        if own.starts_with('.') {
            continue;
        }
        let inner = if name.is_empty() {
            own
        } else {
            format!("{name}/{own}")
        };
        let kind = entry.file_type().with_context(context)?;
        if kind.is_dir() {
            walk(&path, &inner, depth + 1, names, draft)?;
        } else if !place::is_photo(&path) {
            if depth > 0 {
                draft.skipped.add(inner, "neither .jpg nor .png");
            }
        } else if kind.is_symlink() {
            draft
                .skipped
                .add(inner, "a symbolic link may lead anywhere; copy the photo");
        } else if name.is_empty() {
            draft
                .skipped
                .add(inner, "a photo outside of a class's folder");
        } else {
            let class = names.class_of(name).to_owned();
            draft.add(inner, || Source::File(path), Some(class), None)?;
        }
    }
    Ok(())
}
