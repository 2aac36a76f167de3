//! `vedetta-train import`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use vedetta::train::import::{self, Options};
use vedetta::train::onnx::Store;

/// Turn a public checkpoint into a bundle.
///
/// Reads a folder as model pages have it (config.json, weights, tokenizer, preprocessor_config.json),
/// or downloads one (into the hub's usual cache, HF_HOME; HF_TOKEN opens private models), and writes a float bundle that `vedetta` serves and `vedetta-train` refreshes. Known: CLIP-Italian
/// (VisionTextDualEncoder, HybridCLIP), CLIPModel, M-CLIP, open_clip with XLM-RoBERTa, SigLIP and
/// SigLIP 2. Nothing in a checkpoint is ever executed.
#[derive(Args)]
pub struct Import {
    /// Folder of the checkpoint, a weight file inside it, or an id on the Hugging Face hub.
    source: PathBuf,
    /// Where the bundle is written.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The bundle's name; by default the folder's.
    #[arg(long)]
    name: Option<String>,
    /// Checkpoint of the CLIP whose images a text tower alone (M-CLIP) was trained for.
    #[arg(long, value_name = "SOURCE")]
    vision: Option<PathBuf>,
    /// A tokenizer.json, or a folder with a tokenizer, where the checkpoint has none.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Licence of the weights; by default what the model card beside them says.
    #[arg(long)]
    licence: Option<String>,
    /// Language of the prompts.
    #[arg(long, default_value = "it", value_name = "TAG")]
    language: String,
    /// How matrices are stored; computing is done in f32 either way.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// Most tokens of a text; by default the family's (96 for CLIP-Italian).
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Linear factor before the softmax; by default the checkpoint's (20 for CLIP-Italian).
    #[arg(long, value_name = "FACTOR")]
    logit_scale: Option<f32>,
    /// Replace the bundle that is there.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    F32,
    F16,
}

/// Imports and prints what was made.
///
/// # Errors
/// Whatever does not fit; the message says what to do.
pub fn run(arguments: Import) -> Result<()> {
    let source = arguments.source.file_name().map_or_else(
        || "SOURCE".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let options = Options {
        name: arguments.name,
        vision: arguments.vision,
        tokenizer: arguments.tokenizer,
        licence: arguments.licence,
        language: Some(arguments.language),
        store: match arguments.precision {
            Precision::F32 => Store::Float,
            Precision::F16 => Store::Half,
        },
        max_tokens: arguments.max_tokens,
        logit_scale: arguments.logit_scale,
        force: arguments.force,
        command: format!("vedetta-train import {source} -o DIR"),
    };
    let style = "{msg:24} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?);
    let report = import::import(&arguments.source, &arguments.output, &options, &bar)?;
    let manifest = &report.manifest;
    println!("{}: {}", arguments.output.display(), manifest.name);
    println!("  family      {}", report.family.name());
    println!(
        "  image       {0} × {0} px, {1}",
        manifest.image.size_px, manifest.precision.image
    );
    println!("  text        up to {} tokens", manifest.text.max_tokens);
    println!("  embedding   {}", manifest.embedding_dim);
    println!("  logit scale {}", manifest.scoring.logit_scale);
    for (name, file) in &manifest.files {
        println!("  {name:14} {:>11} bytes", file.bytes);
    }
    for note in &report.notes {
        println!("note: {note}");
    }
    Ok(())
}
