//! The refreshed bundle: what was learnt in its graphs, measured through the daemon's own engine.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use indicatif::ProgressBar;

use super::maps::Maps;
use crate::bundle::{Bundle, Limits, Manifest};
use crate::train::import::write::Staging;
use crate::train::onnx::Model;
use crate::train::onnx::edit::{self, Map, Placed};

/// What is changed of a bundle's graphs, image tower first.
pub enum Change {
    /// A map goes behind each.
    Maps(Maps),
    /// They are replaced; `None` stays as it is.
    Towers([Option<Box<Model>>; 2]),
}

impl Change {
    /// Largest difference of a unit vector's values between a written tower and what was learnt. A
    /// tower of many layers adds up more roundings than one product.
    pub fn tolerance(&self) -> f32 {
        match self {
            Self::Maps(_) => 1e-5,
            Self::Towers(_) => 1e-4,
        }
    }
}

/// Refuses a bundle that cannot be refreshed.
///
/// # Errors
/// A tower is packed for the int8 engine.
pub fn check(bundle: &Bundle) -> Result<()> {
    let precision = &bundle.manifest().precision;
    let packed = [&precision.image, &precision.text].contains(&&"int8".to_owned());
    let from = bundle.manifest().provenance.sources.first();
    let from = from.filter(|source| source.starts_with("quantized from"));
    ensure!(
        !packed,
        "{} is an int8 bundle{}; refresh the float bundle it was made from, then run \
         `vedetta-train quantize` on the result",
        bundle.path().display(),
        from.map_or(String::new(), |from| format!(" ({from})"))
    );
    Ok(())
}

/// Copies the bundle with the change in its graphs into `staging`. Returns its manifest, still
/// without what was measured, and where the change was put, image tower first.
///
/// # Errors
/// A graph that cannot be changed, or a folder that cannot be written.
pub fn write(
    bundle: &Bundle,
    change: Change,
    staging: &Staging,
    notes: Notes,
    bar: &ProgressBar,
) -> Result<(Manifest, [Placed; 2])> {
    let mut manifest = bundle.manifest().clone();
    manifest.files.clear();
    let [image, text] = match change {
        Change::Maps(maps) => [maps.image, maps.text].map(Graph::Mapped),
        Change::Towers(towers) => towers.map(|tower| tower.map_or(Graph::Same, Graph::Tuned)),
    };
    let mut placed = Vec::new();
    for (name, graph) in [("image.onnx", image), ("text.onnx", text)] {
        let bytes = || anyhow::Ok(bundle.read(name, length(bundle, name)?)?);
        let (files, place) = match graph {
            Graph::Mapped(map) => {
                let changed = edit::with_map(bytes()?, &linear(&map)?);
                let (model, place) = changed.with_context(|| name.to_owned())?;
                (staging.model(name, model, bar)?, place)
            }
            Graph::Tuned(model) => (staging.model(name, *model, bar)?, Placed::Throughout),
            Graph::Same => (staging.file(name, &bytes()?)?, Placed::Nowhere),
        };
        manifest.files.extend(files);
        placed.push(place);
    }
    for name in ["tokenizer.json", "LICENSES.md"] {
        let mut bytes = bundle.read(name, length(bundle, name)?)?;
        if name == "LICENSES.md" {
            bytes.extend(format!("\n{}\n", notes.licence).into_bytes());
        }
        manifest.files.extend(staging.file(name, &bytes)?);
    }
    manifest.version = next(&manifest.version);
    manifest.evaluation.clear();
    manifest.provenance.command = notes.command;
    manifest.provenance.sources.insert(0, notes.source);
    staging.manifest(&manifest)?;
    Ok((manifest, [placed[0], placed[1]]))
}

enum Graph {
    Mapped(Tensor),
    Tuned(Box<Model>),
    Same,
}

fn length(bundle: &Bundle, name: &str) -> Result<u64> {
    let listed = bundle.manifest().files.get(name);
    let listed = listed.with_context(|| format!("the bundle has no {name} to refresh"))?;
    Ok(listed.bytes)
}

/// What the manifest and the licences say of the refresh.
pub struct Notes {
    /// The command.
    pub command: String,
    /// From what it was made.
    pub source: String,
    /// The line for `LICENSES.md`.
    pub licence: String,
}

/// Writes the table into the manifest and puts the bundle into its place.
///
/// # Errors
/// A folder that cannot be written.
pub fn finish(
    staging: Staging,
    mut manifest: Manifest,
    table: BTreeMap<String, f64>,
) -> Result<()> {
    manifest.evaluation = table;
    staging.manifest(&manifest)?;
    Bundle::open(staging.path(), &Limits::default())?;
    staging.commit()
}

/// A map as the graphs take it.
pub fn linear(map: &Tensor) -> Result<Map> {
    Map::new(map.dim(0)?, map.flatten_all()?.to_vec1::<f32>()?)
}

/// The largest difference between the unit embeddings of a written tower and those it should give;
/// rows `[N, D]` of the same inputs.
///
/// # Errors
/// It is larger than `tolerance`: the bundle must not be used.
pub fn agreement(wanted: &Tensor, found: &Tensor, tolerance: f32) -> Result<f32> {
    let difference = (wanted - found)?.abs()?.max_all()?.to_scalar::<f32>()?;
    ensure!(
        difference <= tolerance,
        "the written tower differs from what was learnt by {difference}, more than {tolerance}; \
         nothing was written. Please report this bundle"
    );
    Ok(difference)
}

/// The next minor version.
fn next(version: &str) -> String {
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let mut parts = core.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    format!("{major}.{}.0", minor.saturating_add(1))
}
