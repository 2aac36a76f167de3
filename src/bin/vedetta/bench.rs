//! `vedetta bench`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use indicatif::ProgressBar;
use vedetta::bench::{self, Options, Report};
use vedetta::config::Environment;
use vedetta::encoder::Backend;

/// Longest `--seconds`.
const MAX_SECONDS: f64 = 3600.0;

/// Measure a bundle on this board: time, memory, and how far from the processor's limit it is.
///
/// Without --threads it measures one thread and one per core. Nothing else should run meanwhile.
#[derive(clap::Args)]
pub struct BenchArgs {
    /// Bundle folder or .tar.zst; by default the bundled demo model.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Threads of the encoder.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// What images are encoded on: auto, cpu or cuda.
    #[arg(long, default_value_t, value_name = "NAME")]
    backend: Backend,
    /// Seconds for single images; batches, text and whole frames take half as long each.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Text whose embedding is timed; by default a short label.
    #[arg(long)]
    text: Option<String>,
    /// One JSON object per thread count and line.
    #[arg(long)]
    json: bool,
    /// Processor time instead: of a camera that sees nothing new, and of a frame that is encoded.
    #[arg(long)]
    power: bool,
    /// With --power: frames looked at per second.
    #[arg(long, value_name = "FPS", default_value_t = 5.0, requires = "power")]
    rate: f32,
}

/// Prints a table, or JSON.
///
/// # Errors
/// A bundle that cannot be used.
pub fn run(arguments: &BenchArgs) -> Result<()> {
    if !(0.0..=MAX_SECONDS).contains(&arguments.seconds) {
        bail!("--seconds {}: give 0 to {MAX_SECONDS}", arguments.seconds);
    }
    let path = match &arguments.bundle {
        Some(path) => path.clone(),
        None => Environment::current().installed_bundle()?,
    };
    if arguments.power {
        return power(arguments, &path);
    }
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let counts = match arguments.threads {
        Some(threads) => vec![threads],
        None if cores.get() == 1 => vec![cores],
        None => vec![NonZeroUsize::MIN, cores],
    };
    if let [first, .., last] = counts[..] {
        // A process for each, so that one does not find the other's memory.
        let reports = [alone(arguments, first)?, alone(arguments, last)?];
        show(arguments, &reports)?;
        return Ok(());
    }
    let mut reports = Vec::new();
    for threads in counts {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        let options = Options {
            threads,
            backend: arguments.backend,
            budget: Duration::from_secs_f64(arguments.seconds),
            text: arguments.text.clone(),
        };
        let report = bench::run(&path, &options, &|step| {
            bar.set_message(format!(
                "{step} ({threads} thread{})",
                plural(threads.get())
            ));
        })
        .with_context(|| path.display().to_string())?;
        bar.finish_and_clear();
        reports.push(report);
    }
    show(arguments, &reports)
}

fn power(arguments: &BenchArgs, path: &Path) -> Result<()> {
    ensure!(
        (0.1..=60.0).contains(&arguments.rate),
        "--rate {}: give 0.1 to 60",
        arguments.rate
    );
    let options = Options {
        threads: arguments.threads.unwrap_or(NonZeroUsize::MIN),
        backend: arguments.backend,
        budget: Duration::from_secs_f64(arguments.seconds.max(1.0)),
        text: None,
    };
    // A progress bar that moves would be measured too.
    let report = bench::power::run(path, &options, arguments.rate, &|step| {
        log::info!("{step}");
    })
    .with_context(|| path.display().to_string())?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!(
        "{}
1280x720 MJPEG, {} kB a frame, {} frames a second, one zone, four labels
",
        report.bundle,
        report.frame_bytes / 1000,
        report.rate_fps
    );
    println!(
        "idle scene          {:.2} % of one core, {:.0} CPU-seconds an hour",
        report.idle_core_share * 100.0,
        report.cpu_s_per_idle_hour
    );
    println!(
        "idle frame          {}",
        ms(report.cpu_s_per_idle_frame * 1e3)
    );
    println!(
        "encoded frame       {}",
        ms(report.cpu_s_per_encoded_frame * 1e3)
    );
    println!(
        "
measured for {:.0} s, the whole daemon included",
        report.seconds
    );
    Ok(())
}

/// The same benchmark with so many threads, in a process of its own.
fn alone(arguments: &BenchArgs, threads: NonZeroUsize) -> Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--json", "--threads"]);
    command.arg(threads.to_string());
    command.arg("--seconds").arg(arguments.seconds.to_string());
    command.arg("--backend").arg(arguments.backend.to_string());
    if let Some(bundle) = &arguments.bundle {
        command.arg("--bundle").arg(bundle);
    }
    if let Some(text) = &arguments.text {
        command.arg("--text").arg(text);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "measuring {threads} thread{} failed",
        plural(threads.get())
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn show(arguments: &BenchArgs, reports: &[Report]) -> Result<()> {
    if !arguments.json {
        print(reports);
        return Ok(());
    }
    for report in reports {
        println!("{}", serde_json::to_string(report)?);
    }
    Ok(())
}

fn print(reports: &[Report]) {
    let Some(first) = reports.first() else { return };
    println!("{}", first.bundle);
    let limited = first.limit_ms > 0.0;
    print!(
        "{}; {:.2} GMAC an image; products on {}",
        first.engine.split(", ").next().unwrap_or_default(),
        first.mmacs / 1e3,
        first.kernel,
    );
    if limited {
        let peak = first.peak_gmacs_per_thread;
        print!(", {peak:.0} GMAC/s a thread at most");
    }
    println!("\n");
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    let threads = |report: &Report| format!("{} thread{}", report.threads, plural(report.threads));
    let header = std::iter::once(String::new()).chain(reports.iter().map(threads));
    table.set_header(header);
    let mut row = |name: &str, value: &dyn Fn(&Report) -> String| {
        let right = |report| Cell::new(value(report)).set_alignment(CellAlignment::Right);
        table.add_row(std::iter::once(Cell::new(name)).chain(reports.iter().map(right)));
    };
    row("one image, median", &|r| ms(r.encode_ms_p50));
    row("one image, 95 of 100 within", &|r| ms(r.encode_ms_p95));
    if limited {
        row("arithmetic limit", &|r| ms(r.limit_ms));
        row("times the limit", &|r| {
            format!("{:.2}", r.encode_ms_p50 / r.limit_ms)
        });
    }
    row("batch of 8, per image", &|r| ms(r.batch8_ms_per_image));
    row("images a second", &|r| format!("{:.1}", r.images_per_s));
    row("processor time an image", &|r| ms(r.cpu_s_per_image * 1e3));
    row("one text, median", &|r| ms(r.text_ms_p50));
    row("verify the bundle", &|r| ms(r.verify_ms));
    row("load to first image", &|r| ms(r.load_ms));
    row("memory after it", &|r| mb(r.rss_mb));
    row("memory at most", &|r| mb(r.peak_mb));
    println!("{table}\n\n1920×1080 MJPEG frame, one zone:");
    for report in reports {
        let frame = &report.frame;
        println!(
            "  {}: decode {}, look {}, resize {}, encode {}, match {}; {:.0} % is not the encoder",
            threads(report),
            ms(frame.decode_ms),
            ms(frame.look_ms),
            ms(frame.resize_ms),
            ms(frame.encode_ms),
            ms(frame.match_ms),
            frame.overhead() * 100.0
        );
    }
}

fn ms(value: f64) -> String {
    match value {
        v if v < 1.0 => format!("{v:.3} ms"),
        v if v < 100.0 => format!("{v:.2} ms"),
        v => format!("{v:.0} ms"),
    }
}

fn mb(value: f64) -> String {
    format!("{value:.0} MB")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
