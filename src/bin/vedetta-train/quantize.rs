//! `vedetta-train quantize`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;
use vedetta::train::data::{self, Dataset, Format};
use vedetta::train::evaluate::zero_shot::{self, Question};
use vedetta::train::quantize::{self, Options, Report, ZeroShot};

use super::evaluate::print_skipped;

/// Turn a float bundle into an int8 one, four times smaller and several times faster.
///
/// Quantizes the transformer towers, compares them with the float ones on photos and Italian
/// sentences, and refuses to write what agrees too little. A tower without a transformer is copied.
#[derive(Args)]
pub struct Quantize {
    /// Float bundle: folder or .tar.zst.
    bundle: PathBuf,
    /// Where the int8 bundle is written.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Photos to compare on: frames of your own cameras are best.
    #[arg(long, value_name = "DIR", default_value = "models/photos")]
    photos: PathBuf,
    /// Leave the N most sensitive sublayers of each tower float.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_float: usize,
    /// Print what each sublayer of either tower costs.
    #[arg(long)]
    sensitivity: bool,
    /// Also classify these images, one folder per class, with the float bundle and the int8 one.
    #[arg(long, value_name = "DIR", requires_all = ["names", "templates"])]
    images: Option<PathBuf>,
    /// With --images: names of the classes, as `evaluate --zero-shot` takes them.
    #[arg(long, value_name = "FILE", requires = "images")]
    names: Option<PathBuf>,
    /// With --images: one template a line, {} for the name.
    #[arg(long, value_name = "FILE", requires = "images")]
    templates: Option<PathBuf>,
    /// Replace the bundle that is there, and write even what agrees too little.
    #[arg(long)]
    force: bool,
}

/// Quantizes and prints what was done.
///
/// # Errors
/// Whatever does not fit; the message says what to do.
pub fn run(arguments: Quantize) -> Result<()> {
    let kept = match arguments.keep_float {
        0 => String::new(),
        n => format!(" --keep-float {n}"),
    };
    let zero_shot = match (&arguments.images, &arguments.names, &arguments.templates) {
        (Some(images), Some(names), Some(templates)) => {
            let folders = data::Options {
                format: Some(Format::Folders),
                ..data::Options::default()
            };
            Some(ZeroShot {
                question: Question::read(names, templates)?,
                images: Dataset::open(images, &folders)?,
            })
        }
        _ => None,
    };
    let options = Options {
        zero_shot,
        photos: arguments.photos,
        keep_float: arguments.keep_float,
        sensitivity: arguments.sensitivity,
        force: arguments.force,
        command: format!("vedetta-train quantize BUNDLE -o DIR{kept}"),
    };
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    let report = quantize::quantize(&arguments.bundle, &arguments.output, &options, &bar)?;
    bar.finish_and_clear();
    println!("{}:", arguments.output.display());
    print(&report);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "megabytes of a file")]
fn print(report: &Report) {
    for tower in &report.towers {
        let (before, after) = tower.bytes;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        println!("  {} tower: {}", tower.kind.name(), tower.recognised);
        match tower.agreement {
            Some(agreement) => println!(
                "    {:.1} → {:.1} MB; cosine to float: mean {:.5}, worst {:.5} of {}",
                mb(before),
                mb(after),
                agreement.mean,
                agreement.worst,
                agreement.count
            ),
            None => println!("    copied, {:.1} MB", mb(before)),
        }
        if !tower.sensitivity.is_empty() {
            println!("    mean cosine with one sublayer left float, what helps most first:");
        }
        for row in &tower.sensitivity {
            println!("      {:.6}  {:3} {}", row.mean, row.position, row.name);
        }
    }
    let (same, of) = report.same_best;
    println!("  best of the default sentences: the same for {same} of {of} photos");
    if let Some([float, int8]) = &report.zero_shot {
        println!(
            "  zero-shot, {} images of {} classes:",
            int8.images, int8.classes
        );
        for (n, place) in zero_shot::PLACES.iter().enumerate() {
            let (float, int8) = (float.accuracy[n] * 100.0, int8.accuracy[n] * 100.0);
            println!("    accuracy@{place:<3} {float:6.2} % → {int8:6.2} %");
        }
        print_skipped(&int8.skipped);
    }
    print_skipped(&report.skipped);
}
