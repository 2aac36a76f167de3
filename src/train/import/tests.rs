use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// A committed checkpoint.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/import")
        .join(name)
}

/// The tensors of a fixture, to change and to write again.
struct Copy {
    folder: tempfile::TempDir,
    header: serde_json::Map<String, serde_json::Value>,
    data: Vec<u8>,
}

impl Copy {
    fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let bytes = fs::read(folder.path().join("model.safetensors")).unwrap();
        let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        Self {
            folder,
            header: serde_json::from_slice(&bytes[8..8 + length]).unwrap(),
            data: bytes[8 + length..].to_vec(),
        }
    }

    /// Adds a tensor of one element.
    fn add(&mut self, name: &str) {
        let from = self.data.len();
        self.data.extend_from_slice(&1_f32.to_le_bytes());
        let info =
            serde_json::json!({"dtype": "F32", "shape": [1], "data_offsets": [from, from + 4]});
        self.header.insert(name.to_owned(), info);
    }

    fn import(&self) -> Result<Report> {
        let header = serde_json::to_vec(&self.header).unwrap();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&self.data);
        fs::write(self.folder.path().join("model.safetensors"), bytes).unwrap();
        self.run(&Options::default())
    }

    fn run(&self, options: &Options) -> Result<Report> {
        let out = tempfile::tempdir().unwrap();
        let options = Options {
            name: Some("tiny".to_owned()),
            command: "a test".to_owned(),
            ..options.clone()
        };
        let out = out.path().join("bundle");
        let report = import(self.folder.path(), &out, &options, &ProgressBar::hidden());
        assert_eq!(report.is_ok(), out.join("bundle.toml").exists());
        assert!(!out.with_file_name("bundle.partial").exists());
        report
    }

    fn refusal(&self) -> String {
        format!("{:#}", self.import().unwrap_err())
    }

    fn named(&self, end: &str) -> String {
        let found = self.header.keys().find(|name| name.ends_with(end));
        found.unwrap_or_else(|| panic!("no {end}")).clone()
    }
}

#[test]
fn a_bundle_says_what_it_was_made_from() {
    let report = Copy::of("dual-encoder").import().unwrap();
    let manifest = &report.manifest;
    assert_eq!(report.family, Family::DualEncoder);
    assert_eq!(manifest.embedding_dim, 12);
    assert_eq!(manifest.image.size_px, 32);
    assert_eq!(manifest.text.max_tokens, 64);
    assert_eq!(manifest.scoring.logit_scale, 20.0);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("logit scale 20"))
    );
    let [source] = &manifest.provenance.sources[..] else {
        panic!("{:?}", manifest.provenance.sources)
    };
    let bytes = fs::read(fixture("dual-encoder").join("model.safetensors")).unwrap();
    let reread = Copy::of("dual-encoder");
    assert_ne!(reread.data.len(), bytes.len());
    assert!(source.contains("model.safetensors sha256:") && source.contains("cc0-1.0"));
}

/// CLIP-Italian's BERT has 512 positions and was trained on 96 tokens.
#[test]
fn a_dual_encoders_texts_have_96_tokens_where_there_are_positions() {
    let mut copy = Copy::of("dual-encoder");
    let name = copy.named("embeddings.position_embeddings.weight");
    // The old table stays, under a name that is ignored.
    let old = copy.header[&name].clone();
    let ignored = "text_model.embeddings.position_ids".to_owned();
    assert!(copy.header.insert(ignored, old).is_none());
    let info = copy.header.get_mut(&name).unwrap();
    let (rows, width) = (info["shape"][0].as_u64(), info["shape"][1].as_u64());
    assert_eq!(rows, Some(64));
    let from = copy.data.len();
    let length = usize::try_from(512 * width.unwrap() * 4).unwrap();
    info["shape"][0] = 512.into();
    info["data_offsets"] = serde_json::json!([from, from + length]);
    copy.data.resize(from + length, 0);
    let config = fs::read_to_string(copy.folder.path().join("config.json")).unwrap();
    let longer = config.replace(
        "\"max_position_embeddings\": 64",
        "\"max_position_embeddings\": 512",
    );
    assert_ne!(config, longer);
    fs::write(copy.folder.path().join("config.json"), longer).unwrap();
    assert_eq!(copy.import().unwrap().manifest.text.max_tokens, 96);
}

#[test]
fn a_missing_tensor_is_refused_with_its_name() {
    for end in ["visual_projection.weight", "text_projection.weight"] {
        let mut copy = Copy::of("dual-encoder");
        let name = copy.named(end);
        let info = copy.header.remove(&name).unwrap();
        // Its bytes stay, under a name that is ignored.
        copy.header
            .insert("text_model.embeddings.position_ids".to_owned(), info);
        let refusal = copy.refusal();
        assert!(
            refusal.contains(&name) && refusal.contains("missing"),
            "{refusal}"
        );
    }
}

#[test]
fn a_weight_that_half_cannot_hold_is_refused_with_its_name() {
    let mut copy = Copy::of("dual-encoder");
    let name = copy.named("text_projection.weight");
    let from = copy.header[&name]["data_offsets"][0].as_u64().unwrap();
    let from = usize::try_from(from).unwrap();
    copy.data[from..from + 4].copy_from_slice(&70_000f32.to_le_bytes());
    copy.import().unwrap();
    let half = Options {
        store: Store::Half,
        ..Options::default()
    };
    let refusal = format!("{:#}", copy.run(&half).unwrap_err());
    assert!(
        refusal.contains("embedding.weight") && refusal.contains("--precision f32"),
        "{refusal}"
    );
}

#[test]
fn an_unknown_tensor_is_refused_with_its_name() {
    let mut copy = Copy::of("dual-encoder");
    copy.add("text_model.encoder.layer.7.extra.weight");
    assert!(
        copy.refusal()
            .contains("text_model.encoder.layer.7.extra.weight")
    );
}

#[test]
fn a_misshapen_tensor_is_refused_with_its_name() {
    let mut copy = Copy::of("dual-encoder");
    let name = copy.named("fc1.weight");
    copy.header[&name]["shape"] = serde_json::json!([16, 32]);
    let refusal = copy.refusal();
    assert!(
        refusal.contains(&name) && refusal.contains("[16, 32]"),
        "{refusal}"
    );
}

#[test]
fn a_tensor_that_is_not_finite_is_refused_with_its_name() {
    for value in [f32::NAN, f32::INFINITY] {
        let mut copy = Copy::of("clip-new");
        let name = copy.named("final_layer_norm.bias");
        let at = copy.header[&name]["data_offsets"][0].as_u64().unwrap();
        let at = usize::try_from(at).unwrap();
        copy.data[at + 8..at + 12].copy_from_slice(&value.to_le_bytes());
        let refusal = copy.refusal();
        assert!(
            refusal.contains(&name) && refusal.contains("element 2"),
            "{refusal}"
        );
    }
}

#[test]
fn another_models_tokenizer_is_refused() {
    let copy = Copy::of("dual-encoder");
    let options = Options {
        tokenizer: Some(fixture("clip-old")),
        ..Options::default()
    };
    let error = format!("{:#}", copy.run(&options).unwrap_err());
    assert!(error.contains("another model's tokenizer"), "{error}");
}

#[test]
fn more_tokens_than_positions_are_refused() {
    let options = Options {
        max_tokens: Some(65),
        ..Options::default()
    };
    let error = Copy::of("dual-encoder").run(&options).unwrap_err();
    assert!(
        format!("{error:#}").contains("--max-tokens 65"),
        "{error:#}"
    );
}

#[test]
fn a_bundle_is_replaced_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("bundle");
    let run = |force| {
        let options = Options {
            force,
            command: "a test".to_owned(),
            ..Options::default()
        };
        import(
            &fixture("dual-encoder"),
            &out,
            &options,
            &ProgressBar::hidden(),
        )
    };
    run(false).unwrap();
    assert!(format!("{:#}", run(false).unwrap_err()).contains("--force"));
    run(true).unwrap();
    fs::remove_file(out.join("bundle.toml")).unwrap();
    let error = run(true).unwrap_err();
    assert!(
        format!("{error:#}").contains("is there already"),
        "only bundles are replaced"
    );
    assert!(out.join("image.onnx").exists());
}

#[test]
fn a_text_tower_alone_needs_the_images_it_was_trained_for() {
    let copy = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        folder
    };
    let run = |source: &Path, vision: Option<PathBuf>| {
        let out = tempfile::tempdir().unwrap();
        let options = Options {
            name: Some("tiny".to_owned()),
            command: "a test".to_owned(),
            vision,
            ..Options::default()
        };
        let bar = ProgressBar::hidden();
        format!(
            "{:#}",
            import(source, &out.path().join("bundle"), &options, &bar).unwrap_err()
        )
    };
    let texts = copy("multilingual-clip");
    assert!(run(texts.path(), None).contains("--vision"));
    let error = run(texts.path(), Some(fixture("dual-encoder")));
    assert!(error.contains("CLIPModel"), "{error}");
    let error = run(&fixture("clip-new"), Some(fixture("clip-old")));
    assert!(error.contains("text towers"), "{error}");
}

#[test]
fn a_length_that_siglip_cannot_have_is_refused() {
    let copy = Copy::of("siglip2");
    let options = Options {
        max_tokens: Some(32),
        ..Options::default()
    };
    let error = format!("{:#}", copy.run(&options).unwrap_err());
    assert!(error.contains("always 64 tokens"), "{error}");
}

#[test]
fn a_model_that_is_not_known_is_refused_with_its_name() {
    for (config, named) in [
        (r#"{"model_type": "llama"}"#, "llama"),
        (r#"{"model_type": "siglip2"}"#, "NaFlex"),
        ("{}", "missing"),
        ("[1]", "missing"),
        (
            r#"{"model_type": "hybrid-clip", "text_config": {"model_type": "t5"}}"#,
            "t5",
        ),
    ] {
        let copy = Copy::of("dual-encoder");
        fs::write(copy.folder.path().join("config.json"), config).unwrap();
        let refusal = copy.refusal();
        assert!(refusal.contains(named), "{refusal}");
    }
    let copy = Copy::of("dual-encoder");
    let config = r#"{"model_cfg": {"embed_dim": 12, "text_cfg": {"hf_model_name": "roberta-base"},
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "patch_size": 8}}}"#;
    fs::write(copy.folder.path().join("open_clip_config.json"), config).unwrap();
    let refusal = copy.refusal();
    assert!(refusal.contains("roberta-base"), "{refusal}");
}

#[test]
fn half_precision_halves_the_files_and_is_said() {
    let half = Options {
        store: Store::Half,
        ..Options::default()
    };
    let copy = Copy::of("dual-encoder");
    let float = copy.run(&Options::default()).unwrap().manifest;
    let half = copy.run(&half).unwrap().manifest;
    assert_eq!(
        (float.precision.text.as_str(), half.precision.text.as_str()),
        ("f32", "f16")
    );
    assert!(half.files["text.onnx"].bytes < float.files["text.onnx"].bytes * 3 / 4);
}

#[test]
fn the_catalog_uses_the_families_names() {
    let known = [
        Family::DualEncoder,
        Family::Clip,
        Family::MultilingualClip,
        Family::OpenClip,
        Family::Siglip,
    ]
    .map(Family::name);
    let catalog: toml::Table =
        toml::from_str(include_str!("../../../models/catalog.toml")).unwrap();
    let mut listed = std::collections::BTreeSet::new();
    for checkpoint in catalog["checkpoint"].as_array().unwrap() {
        listed.insert(checkpoint["family"].as_str().unwrap().to_owned());
    }
    // A DistilBERT, which no tower here is.
    assert!(listed.remove("sentence-transformers-clip"));
    assert!(
        listed.iter().all(|family| known.contains(&family.as_str())),
        "{listed:?}"
    );
    assert_eq!(listed.len(), known.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_damaged_configuration_never_panics(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"0123456789-.{}[]\",:aen".to_vec())), 1..4),
    ) {
        let (name, file) = [
            ("dual-encoder", "config.json"),
            ("dual-encoder", "preprocessor_config.json"),
            ("open-clip", "open_clip_config.json"),
            ("siglip2", "config.json"),
        ][which];
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let mut bytes = fs::read(folder.path().join(file)).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        fs::write(folder.path().join(file), bytes).unwrap();
        let options = Options { name: Some("tiny".to_owned()), command: "a test".to_owned(), ..Options::default() };
        let out = folder.path().join("bundle");
        let made = import(folder.path(), &out, &options, &ProgressBar::hidden());
        prop_assert_eq!(made.is_ok(), out.exists());
    }
}
