//! Puts the trained parts together: `models/demo`, with what was measured on exactly these files.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::demo::Workshop;
use super::evaluate::grocery;
use super::gate;
use super::head::{Head, everyday_names};
use super::onnx::{Dim, Graph, Port, write_lite0};
use super::space::DIM;
use super::targets::read_texts;
use super::text;
use super::tune;
use crate::bundle::manifest::{
    Channels, Crop, FILES, File, Image, Manifest, Precision, Provenance, Resize, SCHEMA, Scoring,
    Text,
};
use crate::bundle::{Bundle, hex};

/// The whole bundle stays under this.
const MAX_BYTES: u64 = 25_000_000;

/// What the bundle was made from, with licences.
const SOURCES: [&str; 7] = [
    "EfficientNet-Lite0, ImageNet-1k, fine-tuned (Apache-2.0)",
    "Grocery Store Dataset, training photos (Klasson et al., WACV 2019; MIT)",
    "Universal Sentence Encoder multilingual v3, as the text tower's teacher (Apache-2.0)",
    "MultiWordNet Italian lemmas (CC BY 3.0)",
    "ItalWordNet lemmas (ODC-BY 1.0)",
    "CLDR 48 Italian annotations (Unicode-3.0)",
    "Italian names, captions and paraphrases of the vedetta developers (MIT OR Apache-2.0)",
];

impl Workshop {
    /// Step `pack`: writes the bundle into `folder`, measures it, and writes the measured table into
    /// its manifest. `base` is the bundle whose text tower it has, where it was not made here.
    ///
    /// # Errors
    /// A missing file of a step before, or a bundle larger than it may be.
    pub fn pack(
        &self,
        base: Option<&Bundle>,
        folder: &Path,
        heldout: &Path,
        licences: &Path,
    ) -> Result<grocery::Report> {
        let texts = read_texts(&self.work.join("texts.tsv"))?;
        let table = self.text_embeddings(&texts)?;
        let bank = self.bank(&texts)?;
        let head = Head::new(&self.pretrained, DIM)?;
        head.load(&self.image("head.safetensors"))?;
        let tower = tune::load_tower(&self.image("tower.safetensors"))?;

        let mut graph = Graph::default();
        let features = write_lite0(&mut graph, &tower, "pixel_values", SIZE_PX);
        let output = head.write(&mut graph, &features, &everyday_names(&bank, &table)?)?;
        let n = Dim::Open("n");
        let size = Dim::Size(SIZE_PX);
        let pixels = Port::float("pixel_values", &[n, Dim::Size(3), size, size]);
        let output = Port::float(&output, &[n, Dim::Size(DIM)]);
        let image = graph.finish("image", &[pixels], &output).into_bytes();

        let rows = gate::probabilities(&image, &image_settings(), &self.grocery.train)?;
        let names = gate::names(&bank, &table)?;
        let names = names.flatten_all()?.to_vec1::<f32>()?;
        let image = gate::insert(&image, &gate::weights(&rows)?, &names)?.into_bytes();
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        std::fs::write(folder.join(FILES[0]), &image)?;
        self.text_files(folder, licences)?;
        let scale = head.scale()?.flatten_all()?.to_vec1::<f32>()?[0];
        let mut manifest = manifest(folder, scale)?;
        if let Some(base) = base {
            manifest.provenance.command = format!(
                "{}; image tower trained again for the texts of sha256:{}: --refresh --tower image",
                base.manifest().provenance.command,
                &base.sha256()[..12]
            );
        }
        self.seal(folder, manifest, heldout)
    }

    /// Step `pack` after the text tower of `base` was refreshed: its image tower and its settings
    /// with the new text tower.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub fn pack_refreshed(
        &self,
        base: &Bundle,
        folder: &Path,
        heldout: &Path,
        licences: &Path,
    ) -> Result<grocery::Report> {
        let image = base.read(FILES[0], MAX_BYTES)?;
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        text::write_atomically(&folder.join(FILES[0]), &image)?;
        self.text_files(folder, licences)?;
        let mut manifest = base.manifest().clone();
        manifest.files = files(folder)?;
        let again = format!(
            "; text tower refreshed from sha256:{}: --refresh",
            &base.sha256()[..12]
        );
        manifest.provenance.command.push_str(&again);
        self.seal(folder, manifest, heldout)
    }

    fn text_files(&self, folder: &Path, licences: &Path) -> Result<()> {
        let files = text::Work(self.work.clone());
        std::fs::copy(files.onnx(), folder.join(FILES[1])).context("run the step `text` first")?;
        std::fs::copy(files.tokenizer(), folder.join(FILES[2]))?;
        std::fs::copy(licences, folder.join(FILES[3]))
            .with_context(|| licences.display().to_string())?;
        Ok(())
    }

    /// Writes the manifest, measures the bundle, and writes the measured table into it.
    fn seal(
        &self,
        folder: &Path,
        mut manifest: Manifest,
        heldout: &Path,
    ) -> Result<grocery::Report> {
        write(folder, &manifest)?;
        let mut report = grocery::evaluate(folder, &self.grocery, &self.grocery.val)?;
        report.paraphrases = Some(grocery::paraphrases(folder, &self.grocery, heldout)?);
        manifest.evaluation = report.table("grocery_val");
        write(folder, &manifest)?;
        let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
        ensure!(
            bytes <= MAX_BYTES,
            "the bundle has {bytes} bytes, more than {MAX_BYTES}"
        );
        log::info!("{}: {bytes} bytes", folder.display());
        Ok(report)
    }
}

/// Edge length of the image tower's input.
const SIZE_PX: usize = 224;

/// Hash and length of every file.
fn files(folder: &Path) -> Result<BTreeMap<String, File>> {
    let mut files = BTreeMap::new();
    for name in FILES {
        let bytes = std::fs::read(folder.join(name)).with_context(|| name.to_owned())?;
        let sha256 = hex(&Sha256::digest(&bytes));
        files.insert(
            name.to_owned(),
            File {
                sha256,
                bytes: bytes.len() as u64,
            },
        );
    }
    Ok(files)
}

fn image_settings() -> Image {
    // (rgb − 127) / 128 on codes of 0–255, written for values of 0–1.
    let (mean, std) = (127.0 / 255.0, 128.0 / 255.0);
    Image {
        size_px: SIZE_PX,
        resize: Resize::Bicubic,
        crop: Crop::Center,
        mean: [mean; 3],
        std: [std; 3],
        channels: Channels::Rgb,
    }
}

fn manifest(folder: &Path, logit_scale: f32) -> Result<Manifest> {
    Ok(Manifest {
        schema: SCHEMA,
        name: "demo".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        minimum_vedetta: env!("CARGO_PKG_VERSION").to_owned(),
        language: "it".to_owned(),
        embedding_dim: DIM,
        image: image_settings(),
        text: Text {
            max_tokens: text::MAX_TOKENS,
            padding: crate::bundle::manifest::Padding::Longest,
            pad_id: text::vocabulary::PAD_ID,
        },
        scoring: Scoring {
            logit_scale: (logit_scale * 10.0).round() / 10.0,
        },
        precision: Precision {
            image: "f16".to_owned(),
            text: "f16".to_owned(),
        },
        files: files(folder)?,
        evaluation: BTreeMap::new(),
        provenance: Provenance {
            command: "vedetta-train demo --data DATA --work WORK -o models/demo".to_owned(),
            sources: SOURCES.iter().map(|source| (*source).to_owned()).collect(),
        },
    })
}

fn write(folder: &Path, manifest: &Manifest) -> Result<()> {
    let text = toml::to_string_pretty(manifest)?;
    text::write_atomically(&folder.join(crate::bundle::MANIFEST), text.as_bytes())
}
