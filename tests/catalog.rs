//! `models/catalog.toml` says what it may say and nothing invented.

use std::collections::HashSet;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    schema: u32,
    checkpoint: Vec<Checkpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    name: String,
    source: String,
    id: String,
    family: String,
    languages: Vec<String>,
    image_size_px: u32,
    embedding_dim: Option<u32>,
    licence: String,
    sha256: Option<String>,
    note: String,
}

#[test]
fn every_checkpoint_is_named_placed_and_licensed() {
    let catalog: Catalog = toml::from_str(include_str!("../models/catalog.toml")).unwrap();
    assert_eq!(catalog.schema, 1);
    assert_eq!(catalog.checkpoint[0].id, "clip-italian/clip-italian");
    let families = [
        "vision-text-dual-encoder",
        "open-clip",
        "multilingual-clip",
        "sentence-transformers-clip",
        "siglip2",
        "clip",
    ];
    let licences = [
        "GPL-3.0",
        "MIT",
        "Apache-2.0",
        "unknown: check the model page",
    ];
    let mut names = HashSet::new();
    let mut ids = HashSet::new();
    for checkpoint in &catalog.checkpoint {
        let name = &checkpoint.name;
        assert!(vedetta::config::Id::new(name).is_some(), "{name}");
        assert!(names.insert(name), "{name} twice");
        assert!(
            ids.insert(&checkpoint.id),
            "{name}: {} twice",
            checkpoint.id
        );
        assert_eq!(checkpoint.source, "huggingface", "{name}");
        let owner_and_model: Vec<&str> = checkpoint.id.split('/').collect();
        assert!(
            owner_and_model.len() == 2 && owner_and_model.iter().all(|part| !part.is_empty()),
            "{name}: {}",
            checkpoint.id
        );
        assert!(families.contains(&checkpoint.family.as_str()), "{name}");
        assert!(!checkpoint.languages.is_empty(), "{name}");
        assert!((32..=1024).contains(&checkpoint.image_size_px), "{name}");
        assert!(
            checkpoint
                .embedding_dim
                .is_none_or(|dim| (64..=4096).contains(&dim)),
            "{name}"
        );
        assert!(
            licences.contains(&checkpoint.licence.as_str()),
            "{name}: {}",
            checkpoint.licence
        );
        assert!(!checkpoint.note.trim().is_empty(), "{name}");
        if let Some(sha256) = &checkpoint.sha256 {
            let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            assert!(
                sha256.len() == 64 && sha256.chars().all(hex),
                "{name}: {sha256}"
            );
        }
    }
}
