//! Checkpoints by their id on the Hugging Face hub, kept in its usual cache (`HF_HOME`), which also
//! serves when the hub cannot be reached. `HF_ENDPOINT` names another server, `HF_TOKEN` opens
//! private models.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

use super::card;
use super::checkpoint::{MAX_JSON_BYTES, WEIGHT_FILES, plain_name, read_text};
use super::download::{Expected, Files};

/// Files beside the weights; each may be missing.
const BESIDE: [&str; 10] = [
    "README.md",
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];

/// Digits of the revision that are shown.
const REVISION_DIGITS: usize = 12;

/// A checkpoint on disk.
pub struct Found {
    /// A folder, or a weight file in one.
    pub path: PathBuf,
    /// What it is called in licences and provenance: a folder's name, or `owner/model@revision`.
    pub title: String,
    /// What its bundle is called unless the user says otherwise.
    pub name: String,
}

/// Finds `source`: a folder, a weight file, or an id as `clip-italian/clip-italian`, which is
/// downloaded.
///
/// # Errors
/// Nothing of the kind, or a download that fails and is not in the cache.
pub fn find(source: &Path) -> Result<Found> {
    if source.exists() {
        let folder = if source.is_dir() {
            source
        } else {
            source.parent().unwrap_or(source)
        };
        let title = card::title(folder);
        return Ok(Found {
            path: source.to_owned(),
            name: title.clone(),
            title,
        });
    }
    let Some((id, name)) = source.to_str().and_then(id) else {
        bail!(
            "{} does not exist, and is no id as clip-italian/clip-italian",
            source.display()
        )
    };
    let path = fetch(id).with_context(|| format!("{id}, which is no folder here, from the hub"))?;
    let revision = path.file_name().unwrap_or_default().to_string_lossy();
    let revision: String = revision.chars().take(REVISION_DIGITS).collect();
    Ok(Found {
        title: format!("{id}@{revision}"),
        name: name.to_owned(),
        path,
    })
}

/// `owner/model`, and `model`.
fn id(text: &str) -> Option<(&str, &str)> {
    let (owner, model) = text.split_once('/')?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    (text.len() <= 96 && plain(owner) && plain(model)).then_some((text, model))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// What a model consists of.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(flatten)]
    expected: Expected,
}

fn info(api: &Api, id: &str) -> Result<Info> {
    let request = api.model(id.to_owned()).info_request();
    let mut answer = request.query("blobs", "true").call()?;
    let answer = answer.body_mut().read_to_vec()?;
    serde_json::from_slice(&answer).context("the hub's answer")
}

/// A full commit hash, the only revision that goes into a path.
fn is_commit(sha: &str) -> bool {
    sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Downloads what an import needs, all of one revision, or finds it in the cache; returns the folder.
fn fetch(id: &str) -> Result<PathBuf> {
    let mut builder = ApiBuilder::from_env().with_progress(true);
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    let api = builder.build()?;
    let cache = Cache::from_env();
    let newest = cache.model(id.to_owned());
    match info(&api, id) {
        Ok(info) => {
            ensure!(is_commit(&info.sha), "the hub names no revision");
            let listed = info.siblings.into_iter();
            let listed: BTreeMap<String, Expected> =
                listed.map(|file| (file.rfilename, file.expected)).collect();
            let pinned = Repo::with_revision(id.to_owned(), RepoType::Model, info.sha.clone());
            cache.repo(pinned.clone()).create_ref(&info.sha)?;
            let files = Files::new(&api, &cache, pinned);
            let folder = collect(|name| {
                let expected = listed.get(name);
                expected
                    .map(|expected| files.get(name, expected))
                    .transpose()
            })?;
            newest.create_ref(&info.sha)?;
            Ok(folder)
        }
        Err(error) => {
            log::warn!("the hub does not give it ({error:#}); looking into the cache");
            collect(|name| Ok(newest.get(name)))
        }
    }
}

/// Gets everything an import needs; returns the folder it is in.
fn collect(get: impl Fn(&str) -> Result<Option<PathBuf>>) -> Result<PathBuf> {
    let mut folder = None;
    for name in BESIDE {
        let path = get(name)?;
        folder = folder.or_else(|| Some(path?.parent()?.to_owned()));
    }
    let Some(folder) = folder else {
        bail!("nothing of it is there; is the id right, and is the hub reachable?")
    };
    for name in WEIGHT_FILES {
        let Some(path) = get(name)? else { continue };
        if name.ends_with(".json") {
            let index: Index = serde_json::from_str(&read_text(&path, MAX_JSON_BYTES)?)?;
            for shard in index.weight_map.values().collect::<BTreeSet<_>>() {
                ensure!(plain_name(shard), "{shard:?} is no name of a file");
                get(shard)?.with_context(|| format!("{shard} is missing"))?;
            }
        }
        return Ok(folder);
    }
    bail!("has none of {}", WEIGHT_FILES.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_two_plain_names() {
        assert_eq!(
            id("clip-italian/clip-italian"),
            Some(("clip-italian/clip-italian", "clip-italian"))
        );
        for wrong in [
            "clip", "a/b/c", "../b", "a/..", "/b", "a/", "a/b?c", "a b/c",
        ] {
            assert_eq!(id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_folder_is_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::create_dir(&path).unwrap();
        let found = find(&path).unwrap();
        assert_eq!(
            (found.title.as_str(), found.name.as_str()),
            ("weights", "weights")
        );
        let error = find(&folder.path().join("none")).err().unwrap();
        assert!(format!("{error:#}").contains("does not exist"), "{error:#}");
    }
}
