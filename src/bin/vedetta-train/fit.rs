//! `vedetta-train fit`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use vedetta::train::data::{self, Format};
use vedetta::train::descent::Rule;
use vedetta::train::fit::{self, Options, Outcome, TaughtBy};

pub mod losses;
pub mod towers;

/// Refresh a float bundle with your own photos.
///
/// Needs a folder with one folder of photos per thing (mele/, scaffale-vuoto/ and
/// scaffale-pieno/), or photos with captions. With --stage projection both towers stay as they are; a
/// linear map behind each is learnt, as far as the photos justify it. The other stages learn the
/// towers themselves, which takes hundreds of photos and hours. Some photos are held out: a refresh
/// that is no better on them than the bundle was is not written.
#[derive(Args)]
pub struct Fit {
    /// Float bundle: folder or .tar.zst.
    bundle: PathBuf,
    /// Where the new bundle is written; the report goes beside it.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    source: Source,
    /// What is learnt.
    #[arg(long, value_enum, default_value = "projection")]
    stage: Stage,
    /// Random views of each photo that are drawn once, beside the photo itself: those that the
    /// projection is learnt from [default: 7], or that a teacher or an image tower which is not learnt
    /// is run on [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    views: Option<u8>,
    /// Passes over all photos; by default up to 40 for the projection and 10 for the towers, fewer
    /// where there are many photos.
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Views in a batch [default: 256 for the projection, 32 for the towers].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=8192))]
    batch: Option<u16>,
    /// Highest learning rate [default: 3e-4 for the projection and adapters, 1e-5 for all weights].
    #[arg(long)]
    rate: Option<f64>,
    /// The optimizer; adabelief is run with adaptive gradient clipping, as CLIP-Italian was trained.
    #[arg(long, value_enum, default_value = "adabelief")]
    optimizer: Optimizer,
    /// With --optimizer adamw: pull of the weights towards zero, times the rate in each step [default:
    /// 0.01 for the towers, 0 for the projection, which --strength holds].
    #[arg(long, value_name = "WEIGHT")]
    weight_decay: Option<f32>,
    #[command(flatten)]
    towers: towers::Towers,
    #[command(flatten)]
    losses: losses::Losses,
    /// Bundle that --loss mse and --loss affinity learn from, of the same space [default: the bundle as
    /// it was, which holds what it knows].
    #[arg(long, value_name = "BUNDLE")]
    teacher: Option<PathBuf>,
    /// How strongly the maps are held at the identity; by default chosen by cross-validation.
    #[arg(long, value_name = "WEIGHT")]
    strength: Option<f64>,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for embeddings and checkpoints; by default vedetta-train in the user's cache.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Go on where an interrupted run with the same arguments stopped.
    #[arg(long)]
    resume: bool,
    /// Replace the bundle that is there, and write one that is no better.
    #[arg(long)]
    force: bool,
}

/// What is learnt from and measured with.
#[derive(Args)]
pub struct Source {
    /// Photos: a folder per class, a list of captions, COCO's JSON, tar files.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// How the photos are laid out; by default found out.
    #[arg(long, value_enum)]
    format: Option<Layout>,
    /// Italian names of the classes (folder, tab, name); by default names.tsv in the folder, and
    /// without it the folders' names.
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Share of the photos of every class that is held out, percent; 2000 photos at most.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=90))]
    held_out: u8,
}

impl Source {
    /// Where the photos are, how they are read, and the share that is held out.
    pub fn read(self) -> (PathBuf, data::Options, f64) {
        let options = data::Options {
            format: self.format.map(Into::into),
            names: self.names,
        };
        (self.data, options, f64::from(self.held_out) / 100.0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// A linear map behind each tower.
    Projection,
    /// Low-rank matrices beside those of attention and feed-forward parts (LoRA).
    Adapters,
    /// Every weight of the towers.
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// DIR/CLASS/photo.jpg
    Folders,
    /// A .tsv, .csv or .jsonl with the columns image and caption.
    Captions,
    /// JSON with images and annotations.
    Coco,
    /// .tar with photo and text side by side.
    Shards,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Optimizer {
    Adabelief,
    Adamw,
}

impl From<Layout> for Format {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Folders => Self::Folders,
            Layout::Captions => Self::Captions,
            Layout::Coco => Self::Coco,
            Layout::Shards => Self::Shards,
        }
    }
}

impl Optimizer {
    /// The rule; `usual` is AdamW's weight decay where none is given.
    ///
    /// # Errors
    /// A weight decay of a rule that has none, or one that is out of bounds.
    pub fn rule(self, decay: Option<f32>, usual: f32) -> Result<Rule> {
        let decay_or_usual = decay.unwrap_or(usual);
        ensure!(
            (0.0..=1.0).contains(&decay_or_usual),
            "--weight-decay is {decay_or_usual}; legal: 0 to 1"
        );
        match self {
            Self::Adabelief => {
                ensure!(decay.is_none(), "--weight-decay is for --optimizer adamw");
                Ok(Rule::AdaBelief)
            }
            Self::Adamw => Ok(Rule::AdamW {
                decay: decay_or_usual,
            }),
        }
    }
}

/// Refreshes and prints what came of it.
///
/// # Errors
/// Whatever does not fit, or a refresh that is no better; the message says what to do.
pub fn run(arguments: Fit, command: String) -> Result<()> {
    let tuning = arguments.towers.tuning(arguments.stage)?;
    let usual = towers::usual(arguments.stage, &arguments.towers);
    let (loss, mut teaching) = arguments.losses.read(&[(losses::Name::Infonce, 1.0)])?;
    ensure!(
        teaching.objective.is_taught() || arguments.teacher.is_none(),
        "--teacher is for --loss mse and --loss affinity"
    );
    teaching.teacher = arguments.teacher;
    let known = match &tuning {
        None => Some(7),
        Some(tuning) => {
            let only = "is for --stage projection";
            ensure!(arguments.strength.is_none(), "--strength {only}");
            let taught = teaching.objective.is_taught();
            tuning.known(taught, 3, 0).map(|views| views.count)
        }
    };
    ensure!(
        known.is_some() || arguments.views.is_none(),
        "--views is for what is run once: --stage projection, a teacher, --tower text; see --augment"
    );
    let (data, dataset, held_out) = arguments.source.read();
    let options = Options {
        data,
        dataset,
        held_out,
        views: arguments.views.or(known).unwrap_or(0),
        epochs: arguments.epochs,
        batch: usize::from(arguments.batch.unwrap_or(usual.batch)),
        rate: arguments.rate.unwrap_or(usual.rate),
        rule: arguments
            .optimizer
            .rule(arguments.weight_decay, usual.decay)?,
        loss,
        teaching,
        strength: arguments.strength,
        tuning,
        seed: arguments.seed,
        cache: arguments.cache.map_or_else(cache, Ok)?,
        resume: arguments.resume,
        force: arguments.force,
        command,
    };
    let outcome = fit::fit(&arguments.bundle, &arguments.output, &options)?;
    print(&outcome);
    let report = write_report(&outcome, &arguments.output)?;
    println!("  report: {}", report.display());
    if outcome.written.is_none() {
        bail!(
            "the refresh is no better than {} on the held-out photos, so nothing was written. More \
             photos help most, and photos of what it mistakes (see the report); --force writes it \
             all the same",
            outcome.bundle
        );
    }
    println!("{} is written", arguments.output.display());
    Ok(())
}

/// Writes `<bundle>-report.html` beside the bundle.
pub fn write_report(outcome: &Outcome, bundle: &Path) -> Result<PathBuf> {
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    let path = bundle.with_file_name(format!("{name}-report.html"));
    let html = fit::report::html(outcome, &name)?;
    std::fs::write(&path, html).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

pub fn cache() -> Result<PathBuf> {
    let folder = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let cache =
        cache.context("neither XDG_CACHE_HOME nor HOME is set; name a folder with --cache")?;
    Ok(cache.join("vedetta-train"))
}

fn print(outcome: &Outcome) {
    let (before, after) = (outcome.before, outcome.after);
    println!(
        "learnt from {} photos, measured on {} held-out ones; epoch {} of {} was best{}",
        outcome.train.len(),
        outcome.held_out.len(),
        outcome.learnt.best,
        outcome.settings.epochs,
        match outcome.tuning {
            Some(_) => String::new(),
            None => format!(", strength {}", outcome.settings.strength),
        }
    );
    println!(
        "  right first:    {:5.1} % → {:5.1} %",
        before.accuracy * 100.0,
        after.accuracy * 100.0
    );
    println!("  held-out loss:  {:.3} → {:.3}", before.loss, after.loss);
    println!(
        "  general sentences moved by {:.3} (mean change of a cosine)",
        outcome.drift
    );
    for trial in &outcome.trials {
        println!(
            "  strength {:6}: cross-validated loss {:.3} ± {:.3}, {:5.1} %",
            trial.strength,
            trial.loss,
            trial.error,
            trial.accuracy * 100.0
        );
    }
    if let Some(taught) = &outcome.taught {
        agreement(taught);
    }
    skipped(outcome);
}

/// Prints how close a teacher was and is.
pub fn agreement(taught: &TaughtBy) {
    println!("  to the teacher, {}:", taught.id);
    let [before, after] = taught.agreement;
    for (what, before, after) in [
        ("photos", before.close.photos, after.close.photos),
        ("texts", before.close.texts, after.close.texts),
    ] {
        if let (Some(before), Some(after)) = (before, after) {
            println!(
                "    {what:7} mean cosine {:.3} → {:.3}, worst {:.3} → {:.3}",
                before.mean, after.mean, before.worst, after.worst
            );
        }
    }
    if let (Some(before), Some(after)) = (before.same, after.same) {
        println!(
            "    photos taken for the same: {:5.1} % → {:5.1} %",
            before * 100.0,
            after * 100.0
        );
    }
}

/// Prints what could not be used.
pub fn skipped(outcome: &Outcome) {
    let skipped = &outcome.skipped;
    if skipped.count() > 0 {
        println!("  {} entries were skipped:", skipped.count());
    }
    for skip in skipped.first().iter().take(10) {
        println!("    {}: {}", skip.name.escape_debug(), skip.reason);
    }
}
