//! Italian names of classes: a list of folder and name, or the folder's own name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::MAX_CLASSES;
use crate::prompts;

/// File names that are looked for.
const FILES: [&str; 4] = ["names.tsv", "names.csv", "nomi.tsv", "nomi.csv"];

/// Longest list of names, bytes.
const MAX_BYTES: u64 = 4 << 20;

/// What the heading's first column may be called.
const FOLDER: [&str; 4] = ["folder", "cartella", "class", "classe"];

/// Nouns by folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<String, String>);

impl Names {
    /// Reads a TSV, or a CSV where the name ends so: folder, name, one per line, with or without a
    /// heading. A folder may be a path (`frutta/mele`).
    ///
    /// # Errors
    /// A file that cannot be read, or a line that does not fit, with its number.
    pub fn read(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .with_context(context)?;
        ensure!(
            bytes.len() as u64 <= MAX_BYTES,
            "{} is longer than {MAX_BYTES} bytes",
            path.display()
        );
        let comma = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .quoting(comma)
            .delimiter(if comma { b',' } else { b'\t' })
            .from_reader(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes));
        let mut names = BTreeMap::new();
        for (row, record) in reader.records().enumerate() {
            let place = || format!("{}, line {}", path.display(), row + 1);
            let record = record.with_context(place)?;
            let [folder, name] = [0, 1].map(|i| record.get(i).unwrap_or("").trim());
            if folder.is_empty() && name.is_empty() || folder.starts_with('#') {
                continue;
            }
            if row == 0 && FOLDER.contains(&folder.to_lowercase().as_str()) {
                continue;
            }
            let separator = if comma { "a comma" } else { "a tab" };
            ensure!(
                record.len() == 2,
                "{}: a folder and its Italian name are expected, {separator} between them",
                place()
            );
            let noun = prompts::clean(name).with_context(place)?;
            let folder = super::place::inside(folder)
                .map_err(|reason| anyhow::anyhow!("{}: {folder:?}: {reason}", place()))?;
            if let Some(before) = names.insert(folder.clone(), noun) {
                bail!("{}: {folder} has a name already, {before:?}", place());
            }
            ensure!(
                names.len() <= MAX_CLASSES,
                "{} names more than {MAX_CLASSES} folders",
                path.display()
            );
        }
        Ok(Self(names))
    }

    /// The folders that are named.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The noun of a class.
    ///
    /// # Errors
    /// The folder is not listed and its own name cannot be a prompt.
    pub fn noun(&self, key: &str) -> Result<String> {
        if let Some(noun) = self.0.get(key) {
            return Ok(noun.clone());
        }
        let last = key.rsplit('/').next().unwrap_or(key);
        prompts::clean(&last.replace(['-', '_'], " ")).with_context(|| {
            format!("the folder {key:?} needs an Italian name: list it in names.tsv")
        })
    }

    /// The class of a photo in `folder` (a path inside the dataset): the longest part that is
    /// listed, else the first folder.
    pub fn class_of<'a>(&self, folder: &'a str) -> &'a str {
        let mut part = folder;
        loop {
            if self.0.contains_key(part) {
                return part;
            }
            match part.rsplit_once('/') {
                Some((above, _)) => part = above,
                None => return part,
            }
        }
    }
}

/// Whether a file is a list of names by its own name.
pub(super) fn is_list(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| FILES.contains(&name))
}

/// The list that is given, or that lies in the folder; empty without one.
pub(super) fn find(root: &Path, given: Option<&Path>) -> Result<Names> {
    let lies = || {
        FILES
            .iter()
            .map(|name| root.join(name))
            .find(|p| p.is_file())
    };
    match given.map(PathBuf::from).or_else(lies) {
        Some(path) => Names::read(&path),
        None => Ok(Names::default()),
    }
}
