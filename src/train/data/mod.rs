//! Photos to learn from and to measure with, as people keep them.
//!
//! | format | what lies there |
//! |---|---|
//! | [`Format::Folders`] | `DIR/<class>/…/photo.jpg`, the class being the folder; Italian names in an optional list |
//! | [`Format::Captions`] | a TSV, CSV or JSONL with the columns `image` and `caption`, photos beside it |
//! | [`Format::Coco`] | JSON with `images` (`id`, `file_name`) and `annotations` (`image_id`, `caption`), as MSCOCO-IT |
//! | [`Format::Shards`] | `*.tar` with `key.jpg` and `key.txt`, `key.json` or a `class` in it, as WebDataset |
//!
//! All become a [`Dataset`]. What is there is hostile: lists and photos are capped, no path leads out
//! of the folder, and what cannot be used is skipped and listed in [`Dataset::skipped`]. Photos stay
//! where they are; [`photos::decode`] reads them.

mod captions;
mod coco;
mod copies;
mod detect;
mod folders;
pub mod names;
pub mod photos;
mod place;
mod shards;
mod split;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::prompts;

pub use names::Names;
pub use split::Split;

/// Most photos of one dataset.
pub const MAX_ITEMS: usize = 4_000_000;

/// Most classes of one dataset.
pub const MAX_CLASSES: usize = 10_000;

/// Most captions that are kept of one photo.
pub const MAX_CAPTIONS: usize = 64;

/// Longest caption, characters; what is longer is cut. More than the tokens of any text tower, which
/// cuts it again.
pub const MAX_CAPTION_CHARS: usize = 1024;

/// Longest list of captions or names, bytes. MSCOCO-IT's training list has 100 MB.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// Skipped entries that are remembered with their reason; beyond, they are only counted.
const MAX_REMEMBERED: usize = 1000;

/// How a dataset is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One folder per class.
    Folders,
    /// A table of images and captions.
    Captions,
    /// One JSON with images and annotations.
    Coco,
    /// Tar files with photo and text side by side.
    Shards,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folders => "a folder per class",
            Self::Captions => "photos with captions",
            Self::Coco => "COCO",
            Self::Shards => "tar shards",
        })
    }
}

/// Where a photo's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of its own.
    File(PathBuf),
    /// A part of a tar file.
    Part {
        /// The tar file.
        shard: PathBuf,
        /// First byte.
        offset: u64,
        /// Length.
        bytes: u64,
    },
}

/// One photo and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Path inside the dataset, `/` between its parts: what people are shown. Unique.
    pub name: String,
    /// Where the photo is.
    pub source: Source,
    /// Position in [`Dataset::classes`].
    pub class: Option<usize>,
    /// What people wrote of it, at most [`MAX_CAPTIONS`] of at most [`MAX_CAPTION_CHARS`].
    pub captions: Vec<String>,
}

/// What photos of one class show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The folder, or what the dataset calls it.
    pub key: String,
    /// The Italian noun that prompts are made of.
    pub noun: String,
}

/// An entry that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The photo or the line of a list.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Entries that are not used: each counted once, however often it is met; the first with their reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips {
    names: HashSet<String>,
    first: Vec<Skipped>,
}

impl Skips {
    /// Adds one; nothing where its name is there already.
    pub fn add(&mut self, name: impl Into<String>, reason: impl fmt::Display) {
        let name = name.into();
        if self.names.insert(name.clone()) && self.first.len() < MAX_REMEMBERED {
            let reason = reason.to_string();
            self.first.push(Skipped { name, reason });
        }
    }

    /// Adds what another pass over the photos found.
    pub fn merge(&mut self, found: &Self) {
        for skip in found.first() {
            self.add(&skip.name, &skip.reason);
        }
        self.names.extend(found.names.iter().cloned());
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// The first thousand.
    pub fn first(&self) -> &[Skipped] {
        &self.first
    }
}

/// A dataset's lists.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// How it is laid out.
    pub format: Format,
    /// Sorted by key; each has at least one photo. Empty where photos have captions only.
    pub classes: Vec<Class>,
    /// Sorted by name; at least one.
    pub items: Vec<Item>,
    /// What is there and not used.
    pub skipped: Skips,
}

/// What to open.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The layout; by default found out.
    pub format: Option<Format>,
    /// Italian names of the classes; by default `names.tsv`, `names.csv`, `nomi.tsv` or `nomi.csv`
    /// in the folder, and without it the folders' names.
    pub names: Option<PathBuf>,
}

impl Dataset {
    /// Reads the lists of the dataset at `path`: a folder, or a list of captions with the photos
    /// beside it.
    ///
    /// # Errors
    /// Nothing usable is there, or a list cannot be read; the message says what was looked for.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let found = detect::detect(path, options.format)?;
        let names = names::find(&found.root, options.names.as_deref())?;
        let mut draft = Draft::default();
        match found.format {
            Format::Folders => folders::read(&found.root, &names, &mut draft)?,
            Format::Captions => captions::read(&found, &mut draft)?,
            Format::Coco => coco::read(&found, &mut draft)?,
            Format::Shards => shards::read(&found, &mut draft)?,
        }
        draft.finish(found.format, &names, path)
    }

    /// Photos per class, in the order of the classes.
    pub fn per_class(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for class in self.items.iter().filter_map(|item| item.class) {
            counts[class] += 1;
        }
        counts
    }

    /// Holds out about `share` of the photos of every class; see [`Split`].
    pub fn split(&self, share: f64, seed: u64) -> Split {
        Split::new(&self.items, share, seed)
    }

    /// Takes out of the held-out photos those that are byte by byte among the others: they would
    /// measure memory. They are listed in `skipped`.
    pub fn drop_copies(&self, split: &mut Split, skipped: &mut Skips) {
        copies::drop_copies(&self.items, split, skipped);
    }
}

/// A dataset while its lists are read.
#[derive(Default)]
struct Draft {
    rows: Vec<Row>,
    by_name: HashMap<String, usize>,
    skipped: Skips,
}

/// One photo, its class by key.
struct Row {
    name: String,
    source: Source,
    class: Option<String>,
    captions: Vec<String>,
}

impl Draft {
    /// Adds a photo, or what more is said of one that is there.
    fn add(
        &mut self,
        name: String,
        source: impl FnOnce() -> Source,
        class: Option<String>,
        caption: Option<&str>,
    ) -> Result<()> {
        let row = match self.by_name.get(&name) {
            Some(row) => *row,
            None => {
                ensure!(
                    self.rows.len() < MAX_ITEMS,
                    "more than {MAX_ITEMS} photos; give a part of them"
                );
                self.by_name.insert(name.clone(), self.rows.len());
                self.rows.push(Row {
                    name,
                    source: source(),
                    class: None,
                    captions: Vec::new(),
                });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[row];
        if row.class.is_none() {
            row.class = class;
        }
        let Some(caption) = caption else {
            return Ok(());
        };
        let named = || {
            let shown: String = caption.chars().take(40).collect();
            format!("caption of {}: {}", row.name, shown.escape_debug())
        };
        match prompts::clean_to(caption, MAX_CAPTION_CHARS) {
            Err(error) => self.skipped.add(named(), error),
            Ok(_) if row.captions.len() == MAX_CAPTIONS => self
                .skipped
                .add(named(), format_args!("it has {MAX_CAPTIONS} already")),
            Ok(caption) if row.captions.contains(&caption) => {}
            Ok(caption) => row.captions.push(caption),
        }
        Ok(())
    }

    /// Orders photos and classes; folders with the same noun are one class.
    fn finish(mut self, format: Format, names: &Names, path: &Path) -> Result<Dataset> {
        self.rows.retain(|row| {
            let says = row.class.is_some() || !row.captions.is_empty();
            if !says {
                self.skipped.add(&row.name, "nothing is said of it");
            }
            says
        });
        self.rows.sort_by(|a, b| a.name.cmp(&b.name));
        let mut keys: Vec<&str> = self
            .rows
            .iter()
            .filter_map(|r| r.class.as_deref())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        ensure!(
            keys.len() <= MAX_CLASSES,
            "{} has more than {MAX_CLASSES} classes; a class is a folder with its photos",
            path.display()
        );
        let mut classes: Vec<Class> = Vec::new();
        let mut by_noun: HashMap<String, usize> = HashMap::new();
        let mut by_key: HashMap<String, usize> = HashMap::new();
        for key in keys {
            let noun = names.noun(key)?;
            let class = *by_noun.entry(noun.to_lowercase()).or_insert_with(|| {
                classes.push(Class {
                    key: key.to_owned(),
                    noun,
                });
                classes.len() - 1
            });
            by_key.insert(key.to_owned(), class);
        }
        for unused in names.keys().filter(|key| !by_key.contains_key(*key)) {
            self.skipped
                .add(unused, "a name for a folder without photos");
        }
        let item = |row: Row| Item {
            class: row.class.and_then(|key| by_key.get(&key).copied()),
            name: row.name,
            source: row.source,
            captions: row.captions,
        };
        let items: Vec<Item> = self.rows.into_iter().map(item).collect();
        let examples: Vec<String> = self
            .skipped
            .first()
            .iter()
            .take(3)
            .map(|s| format!("\n  {}: {}", s.name, s.reason))
            .collect();
        ensure!(
            !items.is_empty(),
            "{} ({format}) has no photo that can be used{}",
            path.display(),
            examples.concat()
        );
        Ok(Dataset {
            format,
            classes,
            items,
            skipped: self.skipped,
        })
    }
}
