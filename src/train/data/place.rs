//! Paths inside a dataset, which lists and links may try to leave.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Longest path inside a dataset, bytes.
const MAX_PATH_BYTES: usize = 4096;

/// Whether a file's name is a photo's: JPEG or PNG.
pub fn is_photo(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| ["jpg", "jpeg", "png"].contains(&e.to_ascii_lowercase().as_str()))
}

/// Normalises a path that a list names: `./` is dropped, `\` is taken as `/`.
///
/// # Errors
/// A path that is absolute, empty, too long or has a `..`; the text says which.
pub fn inside(listed: &str) -> Result<String, &'static str> {
    if listed.len() > MAX_PATH_BYTES {
        return Err("the path is too long");
    }
    if listed.chars().any(char::is_control) {
        return Err("the path holds a control character");
    }
    let unified = listed.trim().replace('\\', "/");
    let mut parts = Vec::new();
    for component in Path::new(&unified).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::ParentDir => return Err("the path leads out of the folder"),
            Component::RootDir | Component::Prefix(_) => return Err("the path is absolute"),
        }
    }
    if parts.is_empty() {
        return Err("the path is empty");
    }
    Ok(parts.join("/"))
}

/// The file `root/name`, links followed; `root` is canonical.
///
/// # Errors
/// It is missing, no plain file, or a link out of `root`.
pub fn file(root: &Path, name: &str) -> Result<PathBuf, &'static str> {
    let path = fs::canonicalize(root.join(name)).map_err(|_| "there is no such file")?;
    if !path.starts_with(root) {
        return Err("a link leads out of the folder");
    }
    if !path.is_file() {
        return Err("it is not a plain file");
    }
    Ok(path)
}
