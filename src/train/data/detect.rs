//! Which of the layouts a folder has.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{Format, captions, coco, names};

/// A dataset's place.
pub struct Found {
    /// The layout.
    pub format: Format,
    /// The folder with the photos, canonical.
    pub root: PathBuf,
    /// Lists or tar files, sorted; none with [`Format::Folders`].
    pub lists: Vec<PathBuf>,
}

/// Looks at `path`, a folder or a list; `wanted` is believed where it is given.
pub fn detect(path: &Path, wanted: Option<Format>) -> Result<Found> {
    let path = fs::canonicalize(path).with_context(|| {
        let path = path.display();
        format!("{path}: give a folder with photos, or a list of captions")
    })?;
    if path.is_file() {
        let format = match wanted {
            Some(format) => format,
            None => of_list(&path)?,
        };
        ensure!(
            format != Format::Folders,
            "{} is a file; a folder per class is asked for",
            path.display()
        );
        let root = path.parent().unwrap_or(&path).to_owned();
        return Ok(Found {
            format,
            root,
            lists: vec![path],
        });
    }
    let files = files(&path)?;
    let found = |format| {
        let lists = match format {
            Format::Folders => Vec::new(),
            Format::Shards => with_extension(&files, &["tar"]),
            Format::Captions => with_extension(&files, &captions::EXTENSIONS)
                .into_iter()
                .filter(|list| captions::has_columns(list))
                .collect(),
            Format::Coco => annotations(&path, &files),
        };
        Found {
            format,
            root: path.clone(),
            lists,
        }
    };
    if let Some(format) = wanted {
        let found = found(format);
        ensure!(
            format == Format::Folders || !found.lists.is_empty(),
            "{} holds no {}",
            path.display(),
            looked_for(format)
        );
        return Ok(found);
    }
    for format in [Format::Shards, Format::Captions, Format::Coco] {
        let found = found(format);
        if !found.lists.is_empty() {
            return Ok(found);
        }
    }
    Ok(found(Format::Folders))
}

fn looked_for(format: Format) -> &'static str {
    match format {
        Format::Folders => "folder with photos",
        Format::Captions => {
            ".tsv, .csv or .jsonl with the columns `image` and `caption` in its first line"
        }
        Format::Coco => ".json with `images` and `annotations`, itself or in annotations/",
        Format::Shards => ".tar",
    }
}

fn of_list(path: &Path) -> Result<Format> {
    match extension(path).as_str() {
        "json" => Ok(Format::Coco),
        "tar" => Ok(Format::Shards),
        other if captions::EXTENSIONS.contains(&other) => Ok(Format::Captions),
        _ => bail!(
            "{} is no list of captions: .tsv, .csv, .jsonl, COCO's .json or a .tar",
            path.display()
        ),
    }
}

/// COCO's lists: in the folder, or in `annotations/`.
fn annotations(path: &Path, files_here: &[PathBuf]) -> Vec<PathBuf> {
    let mut candidates = with_extension(files_here, &["json"]);
    if let Ok(more) = files(&path.join("annotations")) {
        candidates.extend(with_extension(&more, &["json"]));
    }
    candidates.retain(|list| coco::has_keys(list));
    candidates
}

fn extension(path: &Path) -> String {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.unwrap_or_default().to_ascii_lowercase()
}

fn with_extension(files: &[PathBuf], wanted: &[&str]) -> Vec<PathBuf> {
    let fits =
        |path: &&PathBuf| wanted.contains(&extension(path).as_str()) && !names::is_list(path);
    files.iter().filter(fits).cloned().collect()
}

/// Plain files of a folder, hidden ones left out, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry.with_context(|| folder.display().to_string())?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
