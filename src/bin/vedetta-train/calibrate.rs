//! `vedetta-train calibrate`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use vedetta::bundle::{Bundle, Limits};
use vedetta::calibrate::Calibration;
use vedetta::config::{Config, Environment, Id, Probability};
use vedetta::train::calibrate::choose::surely;
use vedetta::train::calibrate::{self, Choice, Report, Shortfall};
use vedetta::train::frames::{Frames, Wanted};
use vedetta::train::text::write_atomically;

/// Fit thresholds to some 20 of your own frames.
///
/// Sort frames into one folder per label, and those that show none of them into `nessuno`. Every
/// label gets the two numbers that turn its scores into how often they are right, and the thresholds
/// at which it turns ON with the wanted precision and OFF again. The daemon uses the file when it
/// stands in the configuration: calibration = "FILE" in the table model.
#[derive(Args)]
pub struct Calibrate {
    /// Bundle that the daemon serves: folder or .tar.zst.
    #[arg(long, value_name = "DIR", default_value = "models/demo")]
    bundle: PathBuf,
    /// Folder with one folder of frames per label, and `nessuno` for frames that show none.
    #[arg(long, value_name = "DIR")]
    frames: PathBuf,
    #[command(flatten)]
    sorted: Sorted,
    /// Share of what turns a label ON that has to show it, 0.5 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    precision: f32,
    /// Try whether the frames themselves, kept as embeddings, help to recognise others.
    #[arg(long)]
    few_shot: bool,
    /// Where the calibration is written.
    #[arg(short, long, value_name = "FILE", default_value = "calibration.toml")]
    output: PathBuf,
}

/// What the labels of sorted frames are.
#[derive(Args)]
pub struct Sorted {
    /// The daemon's configuration: its labels, groups and negatives. Without it every folder is a
    /// label by itself, named like the folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this zone of the configuration: its labels, and its part of every frame.
    #[arg(long, value_name = "ID", requires = "config")]
    zone: Option<String>,
    /// Italian names of the folders, TSV or CSV; by default names.tsv or nomi.tsv beside them.
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
    /// The labels exclude each other, as in one group; with --config its groups count.
    #[arg(long, conflicts_with = "config")]
    exclusive: bool,
}

impl Sorted {
    /// What to read from the frames in `folder`.
    ///
    /// # Errors
    /// A configuration or zone that cannot be used.
    pub fn wanted(&self, folder: &Path) -> Result<Wanted> {
        let config = match &self.config {
            Some(path) => Some(Config::load(path, &[], &Environment::current())?),
            None => None,
        };
        let zone = match &self.zone {
            Some(zone) => Some(Id::new(zone).with_context(|| format!("no zone is called {zone}"))?),
            None => None,
        };
        Ok(Wanted {
            folder: folder.to_owned(),
            names: self.names.clone(),
            config,
            zone,
            exclusive: self.exclusive,
        })
    }
}

/// Calibrates, writes the file and prints what it does.
///
/// # Errors
/// Whatever does not fit; the message says what to do.
pub fn run(arguments: &Calibrate) -> Result<()> {
    ensure!(
        (0.5..=1.0).contains(&arguments.precision),
        "--precision must be 0.5 to 1"
    );
    let precision = Probability::new(arguments.precision).context("--precision")?;
    replaceable(&arguments.output)?;
    let bundle = Bundle::open(&arguments.bundle, &Limits::default())?;
    let wanted = arguments.sorted.wanted(&arguments.frames)?;
    let (frames, report) = calibrate::calibrate(&bundle, &wanted, precision, arguments.few_shot)?;
    for skipped in frames.skipped.first().iter().take(10) {
        eprintln!("skipped {}: {}", skipped.name, skipped.reason);
    }
    print(&frames, &report);
    let text = report.calibration.to_toml();
    write_atomically(&arguments.output, text.as_bytes())?;
    println!(
        "{}: for {}; put it into the configuration:\n[model]\ncalibration = {:?}",
        arguments.output.display(),
        bundle.id(),
        arguments.output.display().to_string()
    );
    Ok(())
}

/// Only a calibration is replaced.
fn replaceable(path: &Path) -> Result<()> {
    ensure!(
        !path.exists() || Calibration::load(path).is_ok(),
        "{} is there and is no calibration of this version; name another file with --output",
        path.display()
    );
    Ok(())
}

/// A row per label, then what is missing.
pub fn print(frames: &Frames, report: &Report) {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "label",
        "frames",
        "a",
        "b",
        "on from",
        "off under",
        "precision",
        "surely",
        "recall",
        "log-loss",
    ]);
    for (label, choice) in frames.set.labels.iter().zip(&report.choices) {
        let cells = cells(choice);
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let mut row = vec![Cell::new(&label.id)];
        row.extend(cells.into_iter().map(right));
        table.add_row(row);
    }
    println!("{table}");
    println!(
        "precision and recall: every frame judged by what was fitted to the others; surely: the\n\
         lower end of the 95 % interval, so many frames say no more"
    );
    for (label, choice) in frames.set.labels.iter().zip(&report.choices) {
        if let Some(shortfall) = &choice.shortfall {
            println!("{}: {}", label.id, explain(shortfall, report));
        }
    }
    if let Some(trial) = &report.trial {
        let (plain, blended) = trial.log_loss;
        let error = trial.error;
        match &trial.few_shot {
            Some(kept) => println!(
                "few-shot: {} frames kept, alpha {}, beta {}: log-loss {plain:.4} → {blended:.4} (± {error:.4})",
                kept.keys.len(),
                kept.alpha,
                kept.beta
            ),
            None => println!(
                "few-shot: not used, it does not help: log-loss {plain:.4} → {blended:.4} at best (± {error:.4})"
            ),
        }
    }
}

fn cells(choice: &Choice) -> [String; 9] {
    let fit = &choice.fit;
    let share = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.3}"));
    let measured = fit.measured.as_ref();
    let platt = fit.platt.map(vedetta::calibrate::Platt::parameters);
    let taken = measured.map(|m| (m.found, m.found + m.mistaken));
    [
        measured.map_or_else(String::new, |m| format!("{} of {}", m.shown, m.frames)),
        platt.map_or_else(String::new, |(a, _)| format!("{a:.2}")),
        platt.map_or_else(String::new, |(_, b)| format!("{b:.2}")),
        share(fit.thresholds.map(|t| f64::from(t.enter.get()))),
        share(fit.thresholds.map(|t| f64::from(t.leave.get()))),
        share(measured.and_then(|m| m.precision())),
        share(taken.map(|(right, of)| surely(right, of))),
        share(measured.and_then(|m| m.recall())),
        choice
            .log_loss
            .map_or_else(String::new, |(a, b)| format!("{a:.3} → {b:.3}")),
    ]
}

fn explain(shortfall: &Shortfall, report: &Report) -> String {
    let wanted = report.calibration.precision.get();
    match shortfall {
        Shortfall::TooFew(with, without) => format!(
            "not calibrated: {with} frame(s) show it and {without} do not; at least {} of each are \
             needed",
            calibrate::choose::LEAST
        ),
        Shortfall::Blind => {
            "not calibrated: frames that show it do not score higher than the others; try other \
             words for it, or another model"
                .to_owned()
        }
        Shortfall::Imprecise(best) => format!(
            "a precision of {wanted} is not reached{}: it keeps the thresholds of the configuration. \
             Add frames, other words, or ask for less",
            best.map_or_else(String::new, |best| format!(" (at best {best:.2})"))
        ),
    }
}
