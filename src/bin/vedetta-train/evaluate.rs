//! `vedetta-train evaluate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use vedetta::bundle::{Bundle, Limits};
use vedetta::calibrate::Calibration;
use vedetta::config::Probability;
use vedetta::train::data::{Dataset, Format, Options, Skips};
use vedetta::train::evaluate::picture::{self, Panel};
use vedetta::train::evaluate::{self, frames, grocery, retrieval, zero_shot};
use vedetta::train::frames::Frames;
use vedetta::train::grocery::Grocery;
use vedetta::train::text::write_atomically;

use crate::calibrate::{self, Sorted};

/// Classes that are printed of a zero-shot evaluation, from either end.
const SHOWN: usize = 8;

/// Measure a bundle through the daemon's own engine.
///
/// Give one of: --frames (your own frames, sorted by label), --zero-shot (CLIP-Italian's protocol on
/// ImageNet's classes), --retrieval (CLIP-Italian's protocol on captions), --data (the demo's photos).
#[derive(Args)]
pub struct Evaluate {
    /// Bundle: folder or .tar.zst.
    #[arg(long, value_name = "DIR", default_value = "models/demo")]
    bundle: PathBuf,
    /// Folder with one folder of frames per label, and `nessuno` for none: precision, recall and the
    /// thresholds that calibrate would choose.
    #[arg(long, value_name = "DIR", group = "what")]
    frames: Option<PathBuf>,
    #[command(flatten)]
    sorted: Sorted,
    /// With --frames: measure with this calibration, as the daemon would score.
    #[arg(long, value_name = "FILE", requires = "frames")]
    calibration: Option<PathBuf>,
    /// With --frames: the precision that thresholds are chosen for.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    precision: f32,
    /// With --frames: draw precision and recall of every label (SVG).
    #[arg(long, value_name = "FILE", requires = "frames")]
    picture: Option<PathBuf>,
    /// Classify --images by --names put into --templates.
    #[arg(long, group = "what", requires_all = ["names", "templates", "images"])]
    zero_shot: bool,
    /// With --zero-shot: one template a line, {} for the name.
    #[arg(long, value_name = "FILE")]
    templates: Option<PathBuf>,
    /// With --zero-shot: write every class's accuracy (TSV).
    #[arg(long, value_name = "FILE", requires = "zero_shot")]
    per_class: Option<PathBuf>,
    /// Look every caption up among all --images.
    #[arg(long, group = "what", requires = "images")]
    retrieval: bool,
    /// Images: one folder per class, or a list of captions (TSV, CSV, JSONL, COCO's JSON) or its
    /// folder.
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// Folder with grocery/: the photos the demo bundle is measured on.
    #[arg(long, value_name = "DIR", group = "what")]
    data: Option<PathBuf>,
    /// With --data: also look every description of this file up among the names.
    #[arg(long, value_name = "FILE", requires = "data")]
    descriptions: Option<PathBuf>,
    /// Put the result into the bundle's manifest.
    #[arg(long)]
    write: bool,
    /// What the set is called in the manifest; by default like its folder.
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
}

/// Measures and prints.
///
/// # Errors
/// Whatever does not fit; the message says what to do.
pub fn run(arguments: &Evaluate) -> Result<()> {
    let (set, table) = if let Some(data) = &arguments.data {
        grocery(arguments, data)?
    } else {
        let bundle = Bundle::open(&arguments.bundle, &Limits::default())?;
        match (&arguments.frames, &arguments.images) {
            (Some(folder), _) => on_frames(arguments, &bundle, folder)?,
            (None, Some(images)) if arguments.zero_shot => zero_shot(arguments, &bundle, images)?,
            (None, Some(images)) if arguments.retrieval => retrieval(arguments, &bundle, images)?,
            _ => bail!("give --frames, --zero-shot, --retrieval or --data; see --help"),
        }
    };
    if arguments.write {
        let written = evaluate::write(&arguments.bundle, &table)?;
        println!(
            "written into [evaluation] of {} as {set}_…; it is {} now (calibrations stay valid)",
            arguments.bundle.display(),
            written.id()
        );
    }
    Ok(())
}

type Outcome = (String, BTreeMap<String, f64>);

impl Evaluate {
    /// The name of the set that lies at `path`.
    fn set(&self, path: &Path) -> String {
        let own = || {
            let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            let name = whole.file_stem().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        self.set.clone().unwrap_or_else(own)
    }
}

fn grocery(arguments: &Evaluate, data: &Path) -> Result<Outcome> {
    let grocery = Grocery::open(&data.join("grocery"))?;
    let mut report = grocery::evaluate(&arguments.bundle, &grocery, &grocery.val)?;
    if let Some(file) = &arguments.descriptions {
        report.paraphrases = Some(grocery::paraphrases(&arguments.bundle, &grocery, file)?);
    }
    print_grocery(&report);
    let set = arguments.set.clone().unwrap_or("grocery_val".to_owned());
    let table = report.table(&set);
    Ok((set, table))
}

/// Prints what the demo bundle reached.
pub fn print_grocery(report: &grocery::Report) {
    println!("{} photos", report.photos);
    println!("fine (81 names)    top-1 {:.1} %", report.fine * 100.0);
    println!("coarse (43 names)  top-1 {:.1} %", report.coarse * 100.0);
    println!(
        "the right one of five coarse names: mean probability {:.2}",
        report.confidence_of_five
    );
    if let Some((right, of)) = report.paraphrases {
        println!("descriptions: {right} of {of} nearest to a right name");
    }
    for (mistake, count) in &report.mistakes {
        println!("  {count:3} × {mistake}");
    }
}

fn on_frames(arguments: &Evaluate, bundle: &Bundle, folder: &Path) -> Result<Outcome> {
    let precision = Probability::new(arguments.precision).context("--precision must be 0 to 1")?;
    let calibration = match &arguments.calibration {
        Some(path) => Some(Calibration::load(path)?),
        None => None,
    };
    let wanted = arguments.sorted.wanted(folder)?;
    let found = Frames::open(bundle, &wanted)?;
    let report = frames::evaluate(bundle, &found, calibration, precision)?;
    print_skipped(&found.skipped);
    let mut table = table(&[
        "label",
        "frames",
        "average precision",
        "on from",
        "precision",
        "recall",
        "found",
        "mistaken",
    ]);
    let share = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.3}"));
    for (label, of) in found.set.labels.iter().zip(&report.labels) {
        let measured = of.measured;
        let cells = [
            label.id.to_string(),
            format!("{} of {}", measured.shown, measured.frames),
            share(of.average_precision),
            format!("{:.3}", of.enter),
            share(measured.precision()),
            share(measured.recall()),
            measured.found.to_string(),
            measured.mistaken.to_string(),
        ];
        row(&mut table, cells);
    }
    println!("{table}");
    if report.known > 0 {
        println!(
            "{} of these frames are among those the calibration keeps and recognise themselves: \
             measure on others",
            report.known
        );
    }
    if let Some(chosen) = &report.chosen {
        println!("what calibrate would choose:");
        calibrate::print(&found, chosen);
    }
    if let Some(path) = &arguments.picture {
        let panels: Vec<Panel> = found
            .set
            .labels
            .iter()
            .zip(&report.labels)
            .map(|(label, of)| Panel {
                title: label.prompts[0].clone(),
                curve: of.curve.clone(),
                enter: Some(of.enter),
            })
            .collect();
        let title = format!("{}, {} frames", bundle.id(), report.frames);
        write_atomically(path, picture::svg(&title, &panels).as_bytes())?;
        println!("{}: precision and recall of every label", path.display());
    }
    let set = arguments.set(folder);
    let table = report.table(&set);
    Ok((set, table))
}

fn zero_shot(arguments: &Evaluate, bundle: &Bundle, images: &Path) -> Result<Outcome> {
    let (Some(names), Some(templates)) = (&arguments.sorted.names, &arguments.templates) else {
        bail!("--zero-shot needs --names and --templates");
    };
    let question = zero_shot::Question::read(names, templates)?;
    let options = Options {
        format: Some(Format::Folders),
        ..Options::default()
    };
    let dataset = Dataset::open(images, &options)?;
    let report = zero_shot::evaluate(bundle, &question, &dataset)?;
    print_skipped(&report.skipped);
    println!(
        "{} images of {} classes, told apart from {} classes with {} templates",
        report.images,
        report.of_classes.len(),
        report.classes,
        question.templates.len()
    );
    let percent = |values: [f64; 4]| values.map(|v| format!("{:.2}", v * 100.0));
    let mut table = table(&["accuracy, %", "@1", "@5", "@10", "@100"]);
    let mut add = |name: String, values: [f64; 4]| {
        let mut cells = vec![name];
        cells.extend(percent(values));
        row(&mut table, cells);
    };
    add(bundle.id(), report.accuracy);
    for (name, values) in zero_shot::PUBLISHED {
        add(format!("{name}, published *"), values);
    }
    println!("{table}");
    println!(
        "* Bianchi et al. 2021, on the 50 000 validation images of ImageNet: not comparable unless\n  \
         these are what was measured here, with their names and templates"
    );
    if let Some(path) = &arguments.per_class {
        write_atomically(path, report.per_class(&question).as_bytes())?;
        println!("{}: every class", path.display());
    }
    let mut of = report.of_classes.clone();
    of.sort_by(|a, b| b.accuracy[0].total_cmp(&a.accuracy[0]));
    for (n, one) in of.iter().enumerate() {
        if n >= SHOWN && n + SHOWN < of.len() {
            if n == SHOWN {
                println!("  … {} more", of.len() - 2 * SHOWN);
            }
            continue;
        }
        println!(
            "  {:6.2} %  {} ({} images)",
            one.accuracy[0] * 100.0,
            question.classes[one.class].name,
            one.images
        );
    }
    let set = arguments.set(images);
    let table = report.table(&set);
    Ok((set, table))
}

fn retrieval(arguments: &Evaluate, bundle: &Bundle, images: &Path) -> Result<Outcome> {
    let dataset = Dataset::open(images, &Options::default())?;
    let report = retrieval::evaluate(bundle, &dataset)?;
    print_skipped(&report.skipped);
    println!(
        "{} captions, each among {} images",
        report.captions, report.images
    );
    let mut table = table(&["", "MRR@1", "@5", "@10", "recall@1", "@5", "@10"]);
    let four = |values: [f64; 3]| values.map(|v| format!("{v:.4}"));
    let mut cells = vec![bundle.id()];
    cells.extend(four(report.mrr));
    cells.extend(four(report.recall));
    row(&mut table, cells);
    for (name, values) in retrieval::PUBLISHED {
        let mut cells = vec![format!("{name}, published *")];
        cells.extend(four(values));
        row(&mut table, cells);
    }
    println!("{table}");
    println!(
        "* Bianchi et al. 2021, on the validation images of MSCOCO-IT: not comparable unless these are\n  \
         what was measured here"
    );
    let set = arguments.set(images);
    let table = report.table(&set);
    Ok((set, table))
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(header);
    table
}

/// The first cell to the left, numbers to the right.
fn row(table: &mut Table, cells: impl IntoIterator<Item = String>) {
    let cell = |(n, text): (usize, String)| {
        let side = if n == 0 {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(text).set_alignment(side)
    };
    table.add_row(cells.into_iter().enumerate().map(cell));
}

/// Prints what could not be used.
pub fn print_skipped(skipped: &Skips) {
    for one in skipped.first().iter().take(10) {
        eprintln!("skipped {}: {}", one.name, one.reason);
    }
    if skipped.count() > 10 {
        eprintln!("skipped {} in all", skipped.count());
    }
}
