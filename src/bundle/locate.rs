//! Where a bundle is looked for when nobody names one.

use std::path::{Path, PathBuf};

use super::{BundleError, MANIFEST};

/// The places, as help texts and error messages show them, in order.
pub const DEFAULT_PLACES: &str = "$VEDETTA_MODELS, $VEDETTA_MODELS/demo, ./models/demo, \
     ../share/vedetta/models/demo beside the program, /usr/share/vedetta/models/demo";

/// The first bundle in [`DEFAULT_PLACES`].
///
/// # Errors
/// None of them holds a bundle.
pub fn default_path() -> Result<PathBuf, BundleError> {
    let models = std::env::var_os("VEDETTA_MODELS").map(PathBuf::from);
    let program = std::env::current_exe().ok();
    first(models.as_deref(), program.as_deref())
        .ok_or_else(|| BundleError::NotInstalled(DEFAULT_PLACES.to_owned()))
}

fn first(models: Option<&Path>, program: Option<&Path>) -> Option<PathBuf> {
    let mut places = Vec::new();
    if let Some(models) = models {
        places.extend([models.to_owned(), models.join("demo")]);
    }
    places.push(PathBuf::from("models/demo"));
    if let Some(prefix) = program.and_then(Path::parent).and_then(Path::parent) {
        places.push(prefix.join("share/vedetta/models/demo"));
    }
    places.push(PathBuf::from("/usr/share/vedetta/models/demo"));
    places.into_iter().find(|place| holds_bundle(place))
}

fn holds_bundle(place: &Path) -> bool {
    place.join(MANIFEST).is_file()
        || (place.is_file() && place.to_string_lossy().ends_with(".tar.zst"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_variable_wins_over_the_installed_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let installed = folder.path().join("share/vedetta/models/demo");
        let named = folder.path().join("mine");
        for place in [&installed, &named.join("demo")] {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join(MANIFEST), "").unwrap();
        }
        let program = folder.path().join("bin/vedetta");
        assert_eq!(
            first(Some(&named), Some(&program)),
            Some(named.join("demo"))
        );
    }

    #[test]
    fn the_bundle_beside_the_program_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let installed = folder.path().join("share/vedetta/models/demo");
        fs::create_dir_all(&installed).unwrap();
        fs::write(installed.join(MANIFEST), "").unwrap();
        let program = folder.path().join("bin/vedetta");
        let found = first(Some(&folder.path().join("nothing")), Some(&program)).unwrap();
        assert!(found == installed || found == Path::new("models/demo"));
    }
}
