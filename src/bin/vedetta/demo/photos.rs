//! The photos that are shown: where they are, and what each of them shows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use vedetta::config::{Environment, Id, listed_places};

use super::showings;

/// More photos than this are a mistake.
const MAX_PHOTOS: usize = 1000;

/// One photo.
#[derive(Clone, Debug)]
pub struct Photo {
    /// The file.
    pub path: PathBuf,
    /// Its name without the folder.
    pub name: String,
    /// The label it should show, by its name.
    pub expected: Option<String>,
}

/// Beside the models, wherever those are looked for.
pub fn find(environment: &Environment) -> anyhow::Result<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    for bundle in environment.bundle_places() {
        // `models/demo` lies beside `models/photos`; VEDETTA_MODELS may also be `models` itself.
        let beside = bundle.parent().map(|models| models.join("photos"));
        for place in [beside, Some(bundle.join("photos"))].into_iter().flatten() {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    if let Some(found) = places.iter().find(|place| place.is_dir()) {
        return Ok(found.clone());
    }
    bail!(
        "the bundled photos are in none of these places:\n{}\n\
         Run the demo from the root of the repository, set VEDETTA_MODELS to the folder `models` \
         of it, or name a folder of photos with --photos.",
        listed_places(&places)
    )
}

/// The photos of a folder in name order.
pub fn list(folder: &Path, labels: &[(Id, String)]) -> anyhow::Result<Vec<Photo>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut photos = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        let is_photo = ["jpg", "jpeg", "png"]
            .iter()
            .any(|e| extension.eq_ignore_ascii_case(e));
        let (Some(name), true) = (path.file_name(), is_photo && path.is_file()) else {
            continue;
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let ids = labels.iter().map(|(id, _)| id.as_str());
        let expected = showings::expected(&stem, ids).map(str::to_owned);
        let name = name.to_string_lossy().into_owned();
        photos.push(Photo {
            name,
            expected,
            path,
        });
    }
    match photos.len() {
        0 => bail!("{} holds no .jpg, .jpeg or .png file", folder.display()),
        1..=MAX_PHOTOS => {}
        n => bail!(
            "{} holds {n} photos; the demo takes {MAX_PHOTOS}",
            folder.display()
        ),
    }
    photos.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(photos)
}
