//! `vedetta check`.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use vedetta::check::{Finding, Report, Verdict, everything};
use vedetta::config::{ConfigError, Environment, Loaded};

/// Say in one screen what is wrong with this board, and what to do.
///
/// Looks at the configuration, cameras, model, broker, disk, clock, heat, memory and processor.
/// Exits with 0 when nothing fails, 78 when the configuration cannot be used, 1 otherwise.
#[derive(clap::Args)]
pub struct CheckArgs {
    /// Configuration file.
    #[arg(long, short, default_value = "/etc/vedetta/vedetta.toml")]
    config: PathBuf,
    /// Overrides a key of the file, for example `--set mqtt.host=192.168.1.10`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Only print the configuration in force, every default filled in, secrets hidden.
    #[arg(long)]
    effective: bool,
    /// One JSON object per check and line.
    #[arg(long, conflicts_with = "effective")]
    json: bool,
}

/// Runs every check and prints one line for each.
pub fn run(arguments: &CheckArgs) -> ExitCode {
    let environment = Environment::current();
    let loaded = Loaded::read(&arguments.config, &arguments.set, &environment);
    if arguments.effective {
        return effective(loaded);
    }
    let name = arguments.config.display().to_string();
    let report = everything(&loaded, &name, &environment);
    let text = match arguments.json {
        true => json(&report),
        false => lines(&report, std::io::stdout().is_terminal()),
    };
    print!("{text}");
    ExitCode::from(report.exit_code())
}

fn effective(loaded: Result<Loaded, ConfigError>) -> ExitCode {
    match loaded {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("{warning}");
            }
            print!("{}", loaded.config.to_toml());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(ConfigError::EXIT_CODE)
        }
    }
}

fn json(report: &Report) -> String {
    let line = |finding: &Finding| {
        let object = serde_json::json!({
            "check": finding.subject,
            "verdict": finding.verdict.to_string().to_lowercase(),
            "message": finding.found,
            "advice": finding.advice,
        });
        format!("{object}\n")
    };
    report.findings.iter().map(line).collect()
}

fn lines(report: &Report, colored: bool) -> String {
    let subjects = report
        .findings
        .iter()
        .map(|one| one.subject.chars().count());
    let width = subjects.max().unwrap_or(0).min(24);
    let mut out = String::new();
    for finding in &report.findings {
        let verdict = match (colored, finding.verdict) {
            (false, verdict) => format!("{verdict:>4}"),
            (true, Verdict::Ok) => format!("\x1b[32;1m{:>4}\x1b[0m", Verdict::Ok),
            (true, Verdict::Warn) => format!("\x1b[33;1m{:>4}\x1b[0m", Verdict::Warn),
            (true, Verdict::Fail) => format!("\x1b[31;1m{:>4}\x1b[0m", Verdict::Fail),
        };
        // Writing into a string cannot fail.
        let _ = writeln!(
            out,
            "{verdict}  {:<width$}  {}",
            finding.subject, finding.found
        );
        if let Some(advice) = &finding.advice {
            let _ = writeln!(out, "      {:<width$}  → {advice}", "");
        }
    }
    out
}
