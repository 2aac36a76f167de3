//! `vedetta-train distill`.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use vedetta::train::distill::{Options, Origin, Size, Student, distill};
use vedetta::train::fit;
use vedetta::train::fit::Outcome;

use super::fit::losses::{Losses, Name};
use super::fit::towers::Learning;
use super::fit::{Optimizer, Source, agreement, cache, skipped, write_report};

/// Teach a smaller bundle what a larger one makes of photos and texts.
///
/// The teacher is run once by the daemon's own engine, on the photos, on random views of them and on the
/// texts; any bundle can be one, an int8 one too where no tower is taken over from it. The student is
/// another float bundle's towers (--student), or new ones of a given size (--vit, --bert), which begin
/// with the teacher's weights where both have one of that name and shape. A tower that is not named
/// stays the teacher's. The result is an ordinary float bundle in the teacher's space.
#[derive(Args)]
pub struct Distill {
    /// The teacher: folder or .tar.zst.
    teacher: PathBuf,
    /// Where the new bundle is written; the report goes beside it.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Float bundle whose towers learn. Where its space has other dimensions than the teacher's, a
    /// projection is put behind each.
    #[arg(long, value_name = "BUNDLE")]
    student: Option<PathBuf>,
    /// Which towers of --student learn [default: both].
    #[arg(long, value_enum, requires = "student")]
    tower: Option<Which>,
    /// A new image tower, a vision transformer, as 256x6x4/32: width, layers, heads, edge of a patch.
    #[arg(long, value_name = "WIDTHxLAYERSxHEADS[/PATCH]")]
    vit: Option<Size>,
    /// A new text tower, a BERT for the teacher's tokenizer.
    #[arg(long, value_name = "WIDTHxLAYERSxHEADS")]
    bert: Option<Size>,
    /// Name of the new bundle [default: the teacher's with -student behind it].
    #[arg(long)]
    name: Option<String>,
    /// Random views of each photo that the teacher is run on beside the photo itself.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=100))]
    views: u8,
    /// Passes over all photos.
    #[arg(long, value_name = "N", default_value_t = 10)]
    epochs: usize,
    /// Views in a batch.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=8192))]
    batch: u16,
    /// Highest learning rate.
    #[arg(long, default_value_t = 5e-4)]
    rate: f64,
    /// The optimizer; adabelief is run with adaptive gradient clipping.
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: Optimizer,
    /// With --optimizer adamw: pull of the weights towards zero, times the rate in each step [default: 0].
    #[arg(long, value_name = "WEIGHT")]
    weight_decay: Option<f32>,
    /// Losses [default: mse,affinity].
    #[command(flatten)]
    losses: Losses,
    #[command(flatten)]
    learning: Learning,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for embeddings and checkpoints; by default vedetta-train in the user's cache.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Go on where an interrupted run with the same arguments stopped.
    #[arg(long)]
    resume: bool,
    /// Replace the bundle that is there, and write one that is no closer to its teacher.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Both,
    Image,
    Text,
}

impl Distill {
    fn student(&self) -> Result<Student> {
        let of_bundle = |which: Which| match (&self.student, self.tower) {
            (Some(_), None | Some(Which::Both)) => Origin::Bundle,
            (Some(_), Some(tower)) if tower == which => Origin::Bundle,
            _ => Origin::Teacher,
        };
        let origin = |which: Which, new: Option<Size>, option: &str| {
            let of_bundle = of_bundle(which);
            ensure!(
                new.is_none() || of_bundle == Origin::Teacher || self.tower.is_none(),
                "{option} and --tower name the same tower"
            );
            Ok(new.map_or(of_bundle, Origin::New))
        };
        Ok(Student {
            bundle: self.student.clone(),
            image: origin(Which::Image, self.vit, "--vit")?,
            text: origin(Which::Text, self.bert, "--bert")?,
        })
    }
}

/// Distils and prints what came of it.
///
/// # Errors
/// Whatever does not fit, or a student that is no closer; the message says what to do.
pub fn run(arguments: Distill, command: String) -> Result<()> {
    let student = arguments.student()?;
    let usual = [(Name::Mse, 1.0), (Name::Affinity, 1.0)];
    let (loss, teaching) = arguments.losses.read(&usual)?;
    let (data, dataset, held_out) = arguments.source.read();
    let options = Options {
        student,
        name: arguments.name,
        fit: fit::Options {
            data,
            dataset,
            held_out,
            views: arguments.views,
            epochs: Some(arguments.epochs),
            batch: usize::from(arguments.batch),
            rate: arguments.rate,
            rule: arguments.optimizer.rule(arguments.weight_decay, 0.0)?,
            loss,
            teaching,
            strength: None,
            tuning: Some(arguments.learning.full()),
            seed: arguments.seed,
            cache: arguments.cache.map_or_else(cache, Ok)?,
            resume: arguments.resume,
            force: arguments.force,
            command,
        },
    };
    let (outcome, notes) = distill(&arguments.teacher, &arguments.output, &options)?;
    print(&outcome, &notes);
    let report = write_report(&outcome, &arguments.output)?;
    println!("  report: {}", report.display());
    if outcome.written.is_none() {
        bail!(
            "the student did not come closer to its teacher, so nothing was written. Try another --rate, \
             more --epochs; --force writes it all the same"
        );
    }
    println!("{} is written", arguments.output.display());
    Ok(())
}

fn print(outcome: &Outcome, notes: &[String]) {
    for note in notes {
        println!("{note}");
    }
    println!(
        "learnt from {} photos, measured on {} held-out ones; epoch {} of {} was best",
        outcome.train.len(),
        outcome.held_out.len(),
        outcome.learnt.best,
        outcome.settings.epochs,
    );
    println!(
        "  right first:    teacher {:5.1} %, student {:5.1} %",
        outcome.before.accuracy * 100.0,
        outcome.after.accuracy * 100.0
    );
    if let Some(taught) = &outcome.taught {
        agreement(taught);
    }
    skipped(outcome);
}
