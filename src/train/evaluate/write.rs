//! Results go into the manifest of the bundle they were measured on.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::bundle::{Bundle, Limits, MANIFEST, check};
use crate::train::text::write_atomically;

/// Most rows of `[evaluation]`.
const MAX_ROWS: usize = 256;

/// Puts `table` into `[evaluation]` of the bundle in `folder`, beside what is there; rows of the same
/// name are replaced. The bundle's hash becomes another one, what it computes does not.
///
/// # Errors
/// A bundle that is packed or cannot be used, too many rows, or a disk that refuses. What was there
/// is then still there.
pub fn write(folder: &Path, table: &BTreeMap<String, f64>) -> Result<Bundle> {
    ensure!(
        folder.is_dir(),
        "{} is packed; unpack it, evaluate the folder and pack it again",
        folder.display()
    );
    let bundle = Bundle::open(folder, &Limits::default())?;
    let mut manifest = bundle.manifest().clone();
    manifest.evaluation.extend(table.clone());
    ensure!(
        manifest.evaluation.len() <= MAX_ROWS,
        "[evaluation] would have more than {MAX_ROWS} rows; remove some by hand"
    );
    check(folder, &manifest, &Limits::default())?;
    let text = toml::to_string_pretty(&manifest)?;
    write_atomically(&folder.join(MANIFEST), text.as_bytes())?;
    Bundle::open(folder, &Limits::default()).context("after writing")
}

/// A row's name from a free one: `MSCOCO-IT dev` becomes `mscoco_it_dev`.
pub(super) fn key(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    let key: String = name.chars().take(48).map(plain).collect();
    key.trim_matches('_').to_owned()
}

/// Four decimals: what a reader compares, and what a few thousand photos can say.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
