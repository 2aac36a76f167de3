//! The refreshed bundle: the maps in its graphs, measured through the daemon's own engine.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use indicatif::ProgressBar;

use super::maps::Maps;
use crate::bundle::{Bundle, Limits, Manifest};
use crate::encoder::Embedding;
use crate::train::import::write::Staging;
use crate::train::onnx::edit::{self, Map, Placed};

/// Largest difference of a unit vector's values between a written tower and its map.
const TOLERANCE: f32 = 1e-5;

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

/// Copies the bundle with both maps in its graphs into `staging`. Returns its manifest, still
/// without what was measured, and where the maps were put, image tower first.
///
/// # Errors
/// A graph that cannot be changed, or a folder that cannot be written.
pub fn write(
    bundle: &Bundle,
    maps: &Maps,
    staging: &Staging,
    notes: Notes,
    bar: &ProgressBar,
) -> Result<(Manifest, [Placed; 2])> {
    let mut manifest = bundle.manifest().clone();
    manifest.files.clear();
    let mut placed = Vec::new();
    for (name, map) in [("image.onnx", &maps.image), ("text.onnx", &maps.text)] {
        let map = linear(map)?;
        let bytes = bundle.read(name, length(bundle, name)?)?;
        let (model, place) = edit::with_map(bytes, &map).with_context(|| name.to_owned())?;
        manifest.files.extend(staging.model(name, model, bar)?);
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

/// The largest difference between unit embeddings of a written tower and what its map makes of the
/// old tower's; rows `[N, D]` of the same inputs.
///
/// # Errors
/// It is larger than 1e-5: the bundle must not be used.
pub fn agreement(old: &Tensor, new: &Tensor, map: &Map) -> Result<f32> {
    let mut worst = 0f32;
    for (old, new) in old.to_vec2::<f32>()?.iter().zip(new.to_vec2::<f32>()?) {
        let wanted = Embedding::normalized(map.apply(old));
        let wanted = wanted.context("the map makes nothing of an embedding")?;
        let pairs = wanted.as_slice().iter().zip(&new);
        worst = pairs.map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
    }
    ensure!(
        worst <= TOLERANCE,
        "the written tower differs from its map by {worst}, more than {TOLERANCE}; nothing was \
         written. Please report this bundle"
    );
    Ok(worst)
}

/// The next minor version.
fn next(version: &str) -> String {
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let mut parts = core.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    format!("{major}.{}.0", minor.saturating_add(1))
}
