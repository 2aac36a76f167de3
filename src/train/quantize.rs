//! From a float bundle to one whose transformer towers are int8, with what that cost in accuracy.
//!
//! Weights are symmetric per output channel, activations are scaled per token while running, so no
//! calibration is needed; photos and sentences are there to measure the agreement with the float
//! towers. LayerNorm, softmax, embeddings and the last projection stay float.

mod photos;
mod sensitivity;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use indicatif::ProgressBar;

pub use self::sensitivity::Sensitivity;
use super::data::{Dataset, Skips};
use super::evaluate::zero_shot;
use super::import::write::Staging;
use crate::bundle::manifest::Manifest;
use crate::bundle::{Bundle, Limits};
use crate::config::Negatives;
use crate::encoder::int8::kernels::{Context, Isa};
use crate::encoder::int8::recognise::Options as Keep;
use crate::encoder::int8::tower::{Kind, Tower};
use crate::encoder::tract::{TractImageEncoder, TractTextEncoder};
use crate::encoder::{self, Embedding, ImageEncoder, TextEncoder};
use crate::prompts;

/// Least mean and least worst cosine to the float tower that is written without being forced.
const LEAST: (f64, f64) = (0.99, 0.97);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of photos, searched through and through, that the towers are compared on.
    pub photos: PathBuf,
    /// How many sublayers of each tower stay float: those whose quantization costs most.
    pub keep_float: usize,
    /// Measures every sublayer by itself; implied by `keep_float`.
    pub sensitivity: bool,
    /// Classified by the float bundle and by the int8 one.
    pub zero_shot: Option<ZeroShot>,
    /// Replaces a bundle, and writes one that agrees less than it should.
    pub force: bool,
    /// The command, for the provenance.
    pub command: String,
}

/// Images of named classes.
#[derive(Clone, Debug)]
pub struct ZeroShot {
    /// The classes.
    pub question: zero_shot::Question,
    /// The images.
    pub images: Dataset,
}

/// Agreement of embeddings with the float tower's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Mean cosine.
    pub mean: f64,
    /// Worst cosine.
    pub worst: f64,
    /// Embeddings compared.
    pub count: usize,
}

impl Agreement {
    /// Compares in pairs.
    ///
    /// # Panics
    /// When the two have different lengths.
    pub fn of(float: &[Embedding], int8: &[Embedding]) -> Self {
        assert_eq!(float.len(), int8.len(), "the same inputs through both");
        let cosines = || float.iter().zip(int8).map(|(a, b)| f64::from(a.dot(b)));
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let mean = cosines().sum::<f64>() / float.len() as f64;
        Self {
            mean,
            worst: cosines().fold(f64::INFINITY, f64::min),
            count: float.len(),
        }
    }

    fn suffices(self) -> bool {
        self.mean >= LEAST.0 && self.worst >= LEAST.1
    }
}

/// What became of one tower.
#[derive(Clone, Debug)]
pub struct TowerReport {
    /// The tower.
    pub kind: Kind,
    /// What was recognised, as text.
    pub recognised: String,
    /// Whether it was quantized; otherwise it was copied.
    pub quantized: bool,
    /// Stored bytes before and after.
    pub bytes: (u64, u64),
    /// Agreement with the float tower; nothing where it was copied.
    pub agreement: Option<Agreement>,
    /// Its sublayers, if asked for, the most sensitive first.
    pub sensitivity: Vec<Sensitivity>,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Report {
    /// Image tower, then text tower.
    pub towers: Vec<TowerReport>,
    /// Photos whose best sentence, of the default set, stayed the same; and photos.
    pub same_best: (usize, usize),
    /// Of the float bundle and the int8 one, if asked for.
    pub zero_shot: Option<[zero_shot::Report; 2]>,
    /// Photos that cannot be read.
    pub skipped: Skips,
}

/// Quantizes the bundle at `path` into `out`. `bar` shows the step.
///
/// # Errors
/// A bundle without any transformer tower that is recognised; towers that agree too little; a folder
/// that cannot be written.
pub fn quantize(path: &Path, out: &Path, options: &Options, bar: &ProgressBar) -> Result<Report> {
    let bundle = Bundle::open(path, &Limits::default())?;
    let staging = Staging::new(out, options.force)?;
    let context = Arc::new(Context::new(Isa::detect(), cores()));
    let (inputs, skipped) = photos::inputs(&bundle, &options.photos)?;
    let sentences = prompts::negatives(&Negatives {
        builtin: true,
        extra: Vec::new(),
    });
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();

    bar.set_message("encoding with the float towers");
    let float_images = TractImageEncoder::load(&bundle, cores())?.encode_images(&inputs)?;
    let float_texts = TractTextEncoder::load(&bundle)?.encode_texts(&sentences)?;

    let bench = sensitivity::Bench {
        bundle: &bundle,
        context: &context,
        photos: (&inputs, &float_images),
        sentences: (&sentences, &float_texts),
    };
    let mut manifest = bundle.manifest().clone();
    manifest.files.clear();
    let mut towers = Vec::new();
    for kind in [Kind::Image, Kind::Text] {
        let measured = options.sensitivity || options.keep_float > 0;
        let sensitivity = if measured {
            bench.sensitivity(kind, bar)?
        } else {
            Vec::new()
        };
        let costly = sensitivity.iter().take(options.keep_float);
        let rules = Keep {
            keep_float: costly.map(|row| row.position).collect(),
            ..Keep::default()
        };
        bar.set_message(format!("quantizing {}", kind.onnx()));
        let report = tower(&bundle, kind, &context, &rules, &staging, &mut manifest)?;
        towers.push(TowerReport {
            sensitivity,
            ..report
        });
    }
    ensure!(
        towers.iter().any(|tower| tower.quantized),
        "neither tower of {} holds a transformer that is recognised; it stays as it is.\n{}\n{}",
        path.display(),
        towers[0].recognised,
        towers[1].recognised
    );
    for name in ["tokenizer.json", "LICENSES.md"] {
        let length = bundle.manifest().files[name].bytes;
        let bytes = bundle.read(name, length)?;
        manifest.files.extend(staging.file(name, &bytes)?);
    }
    manifest.evaluation.clear();
    manifest.provenance.command.clone_from(&options.command);
    manifest
        .provenance
        .sources
        .insert(0, format!("quantized from {}", bundle.id()));
    staging.manifest(&manifest)?;

    bar.set_message("encoding with what was written");
    let written = Bundle::open(staging.path(), &Limits::default())?;
    let images = encoder::load_image(&written, cores())?.encode_images(&inputs)?;
    let texts = encoder::load_text(&written)?.encode_texts(&sentences)?;
    let agreements = [
        Agreement::of(&float_images, &images),
        Agreement::of(&float_texts, &texts),
    ];
    for (tower, agreement) in towers.iter_mut().zip(agreements) {
        if tower.quantized {
            tower.agreement = Some(agreement);
            let name = tower.kind.name();
            let mut note = |what: &str, value| {
                manifest
                    .evaluation
                    .insert(format!("int8_{name}_cosine_{what}"), value);
            };
            note("mean", agreement.mean);
            note("worst", agreement.worst);
        }
        if tower.quantized && !agreement.suffices() && !options.force {
            bail!(
                "the {} tower agrees too little with the float one: mean cosine {:.4}, worst {:.4} \
                 of {} (at least {} and {} are asked for). Nothing was written; try --keep-float {}, \
                 or --force",
                tower.kind.name(),
                agreement.mean,
                agreement.worst,
                agreement.count,
                LEAST.0,
                LEAST.1,
                options.keep_float + 4
            );
        }
    }
    let zero_shot = match &options.zero_shot {
        None => None,
        Some(ZeroShot { question, images }) => {
            bar.set_message("zero-shot classification");
            let reports = [
                zero_shot::evaluate(&bundle, question, images)?,
                zero_shot::evaluate(&written, question, images)?,
            ];
            manifest.evaluation.extend(reports[1].table("zero_shot"));
            let float = reports[0].table("zero_shot_float");
            manifest.evaluation.extend(float);
            Some(reports)
        }
    };
    staging.manifest(&manifest)?;
    staging.commit()?;
    let best = |images: &[Embedding], texts: &[Embedding]| -> Vec<usize> {
        images.iter().map(|image| nearest(image, texts)).collect()
    };
    let (before, after) = (best(&float_images, &float_texts), best(&images, &texts));
    let same = before.iter().zip(&after).filter(|(a, b)| a == b).count();
    Ok(Report {
        towers,
        same_best: (same, before.len()),
        zero_shot,
        skipped,
    })
}

/// Writes one tower packed, or copies its graph where nothing in it is recognised.
fn tower(
    bundle: &Bundle,
    kind: Kind,
    context: &Arc<Context>,
    rules: &Keep,
    staging: &Staging,
    manifest: &mut Manifest,
) -> Result<TowerReport> {
    let onnx = kind.onnx();
    ensure!(
        bundle.manifest().files.contains_key(onnx),
        "{onnx} is not in the bundle: it is quantized already"
    );
    let before = bundle.manifest().files[onnx].bytes;
    let tower = Tower::quantize(bundle, kind, context, rules)?;
    let quantized = tower.report().int8_macs() > 0;
    let files = if quantized {
        let precision = match kind {
            Kind::Image => &mut manifest.precision.image,
            Kind::Text => &mut manifest.precision.text,
        };
        "int8".clone_into(precision);
        staging.write(kind.packed(), &ProgressBar::hidden(), |out| {
            tower.write(out).map_err(std::io::Error::other)
        })?
    } else {
        let bytes = bundle.read(onnx, before)?;
        staging.file(onnx, &bytes)?
    };
    let after = files.values().map(|file| file.bytes).sum();
    manifest.files.extend(files);
    Ok(TowerReport {
        kind,
        recognised: tower.report().to_string(),
        quantized,
        bytes: (before, after),
        agreement: None,
        sensitivity: Vec::new(),
    })
}

fn nearest(image: &Embedding, texts: &[Embedding]) -> usize {
    let order = |a: &usize, b: &usize| image.dot(&texts[*a]).total_cmp(&image.dot(&texts[*b]));
    (0..texts.len()).max_by(order).unwrap_or(0)
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(values: &[f32]) -> Embedding {
        Embedding::normalized(values.to_vec()).unwrap()
    }

    #[test]
    fn agreement_is_mean_and_worst_cosine() {
        let float = [unit(&[1.0, 0.0]), unit(&[0.0, 1.0])];
        let int8 = [unit(&[1.0, 0.0]), unit(&[0.6, 0.8])];
        let agreement = Agreement::of(&float, &int8);
        assert!((agreement.mean - 0.9).abs() < 1e-6 && (agreement.worst - 0.8).abs() < 1e-6);
        assert_eq!(agreement.count, 2);
        assert!(!agreement.suffices());
        assert!(Agreement::of(&float, &float).suffices());
    }
}
