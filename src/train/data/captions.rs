//! A table of images and captions: TSV, CSV or one JSON object per line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::detect::Found;
use super::{Draft, MAX_LIST_BYTES, Source, place};

/// File names end so.
pub const EXTENSIONS: [&str; 4] = ["tsv", "csv", "jsonl", "ndjson"];

/// Longest line, bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// What the columns may be called, letter case aside.
const IMAGE: [&str; 6] = ["image", "immagine", "file", "file_name", "path", "photo"];
const CAPTION: [&str; 6] = [
    "caption",
    "captions",
    "didascalia",
    "text",
    "testo",
    "sentence",
];
const CLASS: [&str; 3] = ["class", "classe", "label"];

/// Where a row's fields are.
struct Columns {
    image: usize,
    captions: Vec<usize>,
    class: Option<usize>,
}

impl Columns {
    fn of(heading: &csv::StringRecord) -> Option<Self> {
        let names: Vec<String> = heading.iter().map(|n| n.trim().to_lowercase()).collect();
        let at = |wanted: &[&str]| names.iter().position(|n| wanted.contains(&n.as_str()));
        let caption = |name: &String| {
            let numbered = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
            CAPTION.contains(&numbered)
        };
        let captions = (0..names.len()).filter(|i| caption(&names[*i])).collect();
        let (image, class) = (at(&IMAGE)?, at(&CLASS));
        let columns = Self {
            image,
            captions,
            class,
        };
        (!columns.captions.is_empty() || class.is_some()).then_some(columns)
    }
}

/// Whether the first line says that this is such a table.
pub fn has_columns(list: &Path) -> bool {
    let mut line = Vec::new();
    let first = File::open(list).and_then(|file| {
        let mut file = BufReader::new(file.take(MAX_LINE_BYTES));
        file.read_until(b'\n', &mut line)
    });
    if first.is_err() {
        return false;
    }
    if !is_json(list) {
        let heading = table(list, &line[..]).records().next();
        return matches!(heading, Some(Ok(heading)) if Columns::of(&heading).is_some());
    }
    let row = serde_json::from_slice(&line).ok();
    row.is_some_and(|row: Value| field(&row, &IMAGE).is_some())
}

/// Reads every list; photos lie beside it, or in `images/`.
pub fn read(found: &Found, draft: &mut Draft) -> Result<()> {
    for list in &found.lists {
        let file = File::open(list).with_context(|| list.display().to_string())?;
        let length = file.metadata().map_or(0, |m| m.len());
        ensure!(
            length <= MAX_LIST_BYTES,
            "{} is longer than {MAX_LIST_BYTES} bytes; split it",
            list.display()
        );
        let mut rows = Rows {
            root: &found.root,
            draft,
        };
        let file = BufReader::new(file.take(MAX_LIST_BYTES));
        if is_json(list) {
            rows.json(list, file)?;
        } else {
            rows.table(list, file)?;
        }
    }
    Ok(())
}

fn is_json(list: &Path) -> bool {
    let extension = list.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| e.to_ascii_lowercase().contains("json"))
}

fn table<R: Read>(list: &Path, reader: R) -> csv::Reader<R> {
    let comma = list
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .quoting(comma)
        .delimiter(if comma { b',' } else { b'\t' })
        .from_reader(reader)
}

fn field<'a>(row: &'a Value, names: &[&str]) -> Option<&'a Value> {
    let object = row.as_object()?;
    let found = object
        .iter()
        .find(|(name, _)| names.contains(&name.to_lowercase().as_str()));
    found.map(|(_, value)| value)
}

struct Rows<'a> {
    root: &'a Path,
    draft: &'a mut Draft,
}

impl Rows<'_> {
    fn table(&mut self, list: &Path, reader: impl Read) -> Result<()> {
        let mut columns = None;
        for (row, record) in table(list, reader).records().enumerate() {
            let place = format!("{}, line {}", file_name(list), row + 1);
            let record = match record {
                Ok(record) => record,
                Err(error) if error.is_io_error() => return Err(error.into()),
                Err(error) => {
                    self.draft.skipped.add(place, error);
                    continue;
                }
            };
            let Some(columns) = &columns else {
                let Some(found) = Columns::of(&record) else {
                    bail!("{place}: the first line has to name the columns `image` and `caption`");
                };
                columns = Some(found);
                continue;
            };
            let Some(image) = record.get(columns.image) else {
                self.draft.skipped.add(place, "no column `image`");
                continue;
            };
            let captions = columns.captions.iter().filter_map(|i| record.get(*i));
            let captions: Vec<&str> = captions.filter(|c| !c.trim().is_empty()).collect();
            let class = columns.class.and_then(|i| record.get(i));
            self.row(&place, image, &captions, class)?;
        }
        Ok(())
    }

    fn json(&mut self, list: &Path, mut reader: impl BufRead) -> Result<()> {
        for row in 1.. {
            let place = format!("{}, line {row}", file_name(list));
            let mut line = Vec::new();
            let read = reader
                .by_ref()
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line);
            if read.with_context(|| list.display().to_string())? == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let row: Value = match serde_json::from_slice(&line) {
                Ok(row) => row,
                Err(error) => {
                    self.draft.skipped.add(place, error);
                    continue;
                }
            };
            let Some(image) = field(&row, &IMAGE).and_then(Value::as_str) else {
                self.draft.skipped.add(place, "no `image`");
                continue;
            };
            let captions: Vec<&str> = match field(&row, &CAPTION) {
                Some(Value::String(caption)) => vec![caption],
                Some(Value::Array(captions)) => captions.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            };
            let class = field(&row, &CLASS).and_then(Value::as_str);
            self.row(&place, image, &captions, class)?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        place: &str,
        image: &str,
        captions: &[&str],
        class: Option<&str>,
    ) -> Result<()> {
        let (name, path) = match locate(self.root, image) {
            Ok(found) => found,
            Err(reason) => {
                let shown: String = image.chars().take(80).collect();
                let name = format!("{place}: {}", shown.escape_debug());
                self.draft.skipped.add(name, reason);
                return Ok(());
            }
        };
        let class = class.map(str::trim).filter(|c| !c.is_empty());
        let class = class.map(str::to_owned);
        if captions.is_empty() {
            return self.draft.add(name, || Source::File(path), class, None);
        }
        for caption in captions {
            let source = || Source::File(path.clone());
            self.draft
                .add(name.clone(), source, class.clone(), Some(caption))?;
        }
        Ok(())
    }
}

/// A listed photo: below the root, or below its `images/`.
fn locate(root: &Path, listed: &str) -> Result<(String, PathBuf), &'static str> {
    let name = place::inside(listed)?;
    match place::file(root, &name) {
        Ok(path) => Ok((name, path)),
        Err(reason) => {
            let name = format!("images/{name}");
            let path = place::file(root, &name).map_err(|_| reason)?;
            Ok((name, path))
        }
    }
}

fn file_name(list: &Path) -> String {
    list.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
