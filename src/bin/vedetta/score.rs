//! `vedetta score`.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow, ensure};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, Color, Table};
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vedetta::annotate;
use vedetta::bundle::{Bundle, Limits};
use vedetta::config::{Environment, Shape};
use vedetta::encoder::{self, ImageEncoder};
use vedetta::photo;
use vedetta::preprocess::Preprocessor;

mod judge;

use judge::{Judge, Scored};

/// Longest `--labels` file, bytes.
const MAX_LABELS_BYTES: u64 = 4 << 20;
/// Prompts at most.
const MAX_LABELS: usize = 10_000;
/// Pictures wait here until the ones before them are printed.
const AHEAD: usize = 64;
/// Labels in a table.
const SHOWN: usize = 40;
/// Labels drawn onto a picture.
const DRAWN: usize = 5;

/// Score photos against Italian phrases.
///
/// Each label is used as it is given. The probability is the softmax over the given labels alone,
/// so give several: one label by itself always gets 1. With --calibration the labels are the
/// calibration's, scored as the daemon scores them.
#[derive(clap::Args)]
pub struct ScoreArgs {
    /// JPEG or PNG files.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// A phrase, for example --label "una mela"; may be repeated.
    #[arg(long = "label", value_name = "PHRASE")]
    label: Vec<String>,
    /// A file with one phrase a line.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What `vedetta-train calibrate` made for this bundle, instead of labels.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["label", "labels"])]
    calibration: Option<PathBuf>,
    /// Bundle folder or .tar.zst; by default the bundled demo model.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// One JSON object per image and line.
    #[arg(long)]
    json: bool,
    /// Draw the result: a file for one image, a folder for several.
    #[arg(long, value_name = "FILE|DIR")]
    annotate: Option<PathBuf>,
    /// Threads; by default one per core.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
}

/// Prints a table, or JSON, for every image. Unreadable images are error lines and exit code 1.
///
/// # Errors
/// No labels, or a bundle that cannot be used.
pub fn run(arguments: &ScoreArgs) -> Result<ExitCode> {
    let phrases = match arguments.calibration {
        Some(_) => Vec::new(),
        None => labels(arguments)?,
    };
    let path = match &arguments.bundle {
        Some(path) => path.clone(),
        None => Environment::current().installed_bundle()?,
    };
    let bundle = Bundle::open(&path, &Limits::default())?;
    // The text encoder is loaded, used and freed before the image encoder is.
    let judge = match &arguments.calibration {
        Some(calibration) => Judge::of_calibration(&bundle, calibration)?,
        None => Judge::of_phrases(&bundle, phrases)?,
    };
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = arguments.threads.unwrap_or(cores);
    let workers = threads.get().min(arguments.images.len());
    // One photo may use every core; many photos use one core each.
    let per_worker = if workers == 1 {
        threads
    } else {
        NonZeroUsize::MIN
    };
    let first = encoder::load_image(&bundle, per_worker)?;
    let mut encoders: Vec<Box<dyn ImageEncoder>> = (1..workers).map(|_| first.fork()).collect();
    encoders.push(first);
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let drawing = Drawing::new(arguments)?;

    let bar = progress(arguments.images.len());
    let next = AtomicUsize::new(0);
    let mut failures = 0;
    std::thread::scope(|scope| -> Result<()> {
        let (sender, results) = mpsc::sync_channel(AHEAD);
        for mut encoder in encoders {
            let (sender, next) = (sender.clone(), &next);
            let (judge, preprocessor, drawing) = (&judge, &preprocessor, &drawing);
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(image) = arguments.images.get(n) else {
                        return;
                    };
                    // A decoder or an engine that panics on one photo costs that photo only.
                    let outcome = catch_unwind(AssertUnwindSafe(|| {
                        let (picture, scored) =
                            score(image, encoder.as_mut(), preprocessor, judge)?;
                        drawing.draw(n, picture, &scored, judge.names())?;
                        Ok(scored)
                    }))
                    .unwrap_or_else(|_| Err(anyhow!("scoring it panicked")));
                    if sender.send((n, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut printed = 0;
        for (n, outcome) in results {
            bar.inc(1);
            waiting.insert(n, outcome);
            while let Some(outcome) = waiting.remove(&printed) {
                failures += usize::from(outcome.is_err());
                bar.suspend(|| {
                    let image = &arguments.images[printed];
                    print(image, outcome, judge.names(), arguments.json)
                })?;
                printed += 1;
            }
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn labels(arguments: &ScoreArgs) -> Result<Vec<String>> {
    let mut labels = arguments.label.clone();
    if let Some(path) = &arguments.labels {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        let length = file.metadata()?.len();
        ensure!(
            length <= MAX_LABELS_BYTES,
            "{}: larger than {MAX_LABELS_BYTES} bytes",
            path.display()
        );
        for line in BufReader::new(file).lines() {
            let line = line.with_context(|| format!("{}: not UTF-8 text", path.display()))?;
            let line = line.trim_start_matches('\u{feff}').trim();
            if !line.is_empty() {
                labels.push(line.to_owned());
            }
        }
    }
    ensure!(
        !labels.is_empty(),
        "no labels: give --label \"una mela\" (several times) or --labels FILE"
    );
    ensure!(
        labels.len() <= MAX_LABELS,
        "{} labels; at most {MAX_LABELS}",
        labels.len()
    );
    Ok(labels)
}

fn score(
    image: &Path,
    encoder: &mut dyn ImageEncoder,
    preprocessor: &Preprocessor,
    judge: &Judge,
) -> Result<(RgbImage, Vec<Scored>)> {
    let picture = photo::read(image)?;
    let input = preprocessor.prepare(&picture, &Shape::Full)?;
    let mut embeddings = encoder.encode_images(std::slice::from_ref(&input))?;
    let embedding = embeddings.pop().context("the encoder gave nothing")?;
    Ok((picture, judge.score(&embedding)))
}

fn print(
    image: &Path,
    outcome: Result<Vec<Scored>>,
    labels: &[String],
    as_json: bool,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let name = image.display();
    match outcome {
        Ok(scored) if as_json => {
            let labels: Vec<_> = scored
                .iter()
                .map(|one| {
                    let mut fields = json!({
                        "label": labels[one.label],
                        "cosine": one.cosine,
                        "probability": one.probability,
                    });
                    if let Some(threshold) = one.threshold {
                        fields["threshold"] = json!(threshold);
                        fields["over"] = json!(one.probability >= threshold);
                    }
                    fields
                })
                .collect();
            writeln!(
                out,
                "{}",
                json!({"image": name.to_string(), "labels": labels})
            )?;
        }
        Ok(scored) => writeln!(out, "{name}\n{}\n", table(&scored, labels))?,
        Err(error) => {
            eprintln!("{name}: {error}");
            if as_json {
                let line = json!({"image": name.to_string(), "error": error.to_string()});
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(())
}

fn table(scored: &[Scored], labels: &[String]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    let has_thresholds = scored.iter().any(|one| one.threshold.is_some());
    let mut header = vec!["label", "probability", "cosine"];
    header.extend(has_thresholds.then_some("on from"));
    table.set_header(header);
    for (row, one) in scored.iter().take(SHOWN).enumerate() {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let label = Cell::new(&labels[one.label]);
        let stands_out = match one.threshold {
            Some(threshold) => one.probability >= threshold,
            None => row == 0 && !has_thresholds,
        };
        let label = if stands_out {
            label.fg(Color::Green)
        } else {
            label
        };
        let percent = |p: f32| format!("{:.1} %", p * 100.0);
        let mut cells = vec![
            label,
            right(percent(one.probability)),
            right(format!("{:.3}", one.cosine)),
        ];
        if has_thresholds {
            cells.push(right(one.threshold.map_or_else(String::new, percent)));
        }
        table.add_row(cells);
    }
    if scored.len() > SHOWN {
        let more = scored.len() - SHOWN;
        table.add_row([format!("and {more} more; --json prints all of them")]);
    }
    table
}

/// Shown after a moment, on a terminal only.
fn progress(count: usize) -> ProgressBar {
    if count < 32 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {per_sec}  {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

/// Where annotated pictures go, one path per image; none when they are not wanted.
struct Drawing {
    targets: Vec<PathBuf>,
}

impl Drawing {
    fn new(arguments: &ScoreArgs) -> Result<Self> {
        let Some(target) = &arguments.annotate else {
            return Ok(Self { targets: vec![] });
        };
        let named_folder = target.is_dir() || target.to_string_lossy().ends_with('/');
        if let ([image], false) = (arguments.images.as_slice(), named_folder) {
            ensure!(
                !same_file(image, target),
                "--annotate {} is the photo itself: name another file",
                target.display()
            );
            let targets = vec![target.clone()];
            return Ok(Self { targets });
        }
        std::fs::create_dir_all(target).with_context(|| target.display().to_string())?;
        let targets = targets(&arguments.images, target);
        Ok(Self { targets })
    }

    fn draw(
        &self,
        n: usize,
        mut picture: RgbImage,
        scored: &[Scored],
        labels: &[String],
    ) -> Result<()> {
        let Some(path) = self.targets.get(n) else {
            return Ok(());
        };
        let best: Vec<(String, f32)> = scored
            .iter()
            .take(DRAWN)
            .map(|one| (labels[one.label].clone(), one.probability))
            .collect();
        annotate::scores(&mut picture, &best);
        let is_png = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
        let saved = if is_png {
            picture.save(path).map_err(anyhow::Error::from)
        } else {
            std::fs::write(path, annotate::jpeg_at_most(&picture, usize::MAX))
                .map_err(anyhow::Error::from)
        };
        saved.map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
    }
}

/// `<stem>.jpg` in `folder` for every image; a number is added to a name that was given before or
/// is one of the images.
fn targets(images: &[PathBuf], folder: &Path) -> Vec<PathBuf> {
    let mut taken: HashSet<PathBuf> = images
        .iter()
        .filter_map(|image| image.canonicalize().ok())
        .collect();
    let canonical = folder.canonicalize();
    let folder = canonical.as_deref().unwrap_or(folder);
    let free = |image: &PathBuf| {
        let stem = image.file_stem().unwrap_or_default().to_string_lossy();
        let numbered = (2_u32..).map(|again| folder.join(format!("{stem}-{again}.jpg")));
        let plain = folder.join(format!("{stem}.jpg"));
        std::iter::once(plain)
            .chain(numbered)
            .find(|path| taken.insert(path.clone()))
            .unwrap_or_default()
    };
    images.iter().map(free).collect()
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_of_the_same_name_do_not_overwrite_each_other() {
        let images = ["a/1.jpg", "b/1.png", "2.jpeg", "c/1.jpg"].map(PathBuf::from);
        let expected = ["1.jpg", "1-2.jpg", "2.jpg", "1-3.jpg"];
        let found = targets(&images, Path::new("/nowhere"));
        assert_eq!(found, expected.map(|name| Path::new("/nowhere").join(name)));
    }

    #[test]
    fn a_photo_is_not_overwritten_by_its_own_annotation() {
        let folder = tempfile::tempdir().unwrap();
        let photo = folder.path().join("1.jpg");
        std::fs::write(&photo, "a photo").unwrap();
        let found = targets(&[photo], folder.path());
        assert_eq!(found[0].file_name().unwrap(), "1-2.jpg");
    }
}
