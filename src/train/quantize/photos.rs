//! The photos that towers are compared on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::bundle::Bundle;
use crate::config::Shape;
use crate::encoder::ModelInput;
use crate::photo;
use crate::preprocess::Preprocessor;
use crate::train::data::Skips;

/// Photos that are compared at most.
const MAX_PHOTOS: usize = 512;

/// Photos under `folder`, from all of it, as the encoder takes them; those that cannot be read are
/// listed.
///
/// # Errors
/// A folder that cannot be read, or that has no photo.
pub fn inputs(bundle: &Bundle, folder: &Path) -> Result<(Vec<ModelInput>, Skips)> {
    let mut paths = Vec::new();
    collect(folder, &mut paths)?;
    paths.sort();
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let (mut inputs, mut skipped) = (Vec::new(), Skips::default());
    for path in spread(&paths, MAX_PHOTOS) {
        match photo::read(path) {
            Ok(rgb) => inputs.push(preprocessor.prepare(&rgb, &Shape::Full)?),
            Err(error) => {
                let name = path.strip_prefix(folder).unwrap_or(path);
                skipped.add(name.to_string_lossy(), error);
            }
        }
    }
    let why = skipped.first().first();
    ensure!(
        !inputs.is_empty(),
        "no .jpg or .png under {} can be read{}; give --photos a folder of camera frames",
        folder.display(),
        why.map_or_else(String::new, |skip| format!(
            " ({}: {})",
            skip.name, skip.reason
        ))
    );
    Ok((inputs, skipped))
}

/// `most` of all at most, evenly spaced.
fn spread<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    let count = all.len().min(most);
    (0..count).map(move |place| &all[place * all.len() / count])
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|e| e.to_str());
        let extension = extension.map(str::to_ascii_lowercase);
        if path.is_dir() {
            collect(&path, paths)?;
        } else if matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png")) {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_taken_from_every_folder() {
        let all: Vec<usize> = (0..1000).collect();
        let taken: Vec<usize> = spread(&all, 4).copied().collect();
        assert_eq!(taken, [0, 250, 500, 750]);
        assert_eq!(spread(&all, 5000).count(), 1000);
        assert_eq!(spread::<usize>(&[], 4).count(), 0);
    }
}
