//! The daemon and its tools.

use std::process::ExitCode;

#[cfg(feature = "docs")]
use clap::CommandFactory;
use clap::{Parser, Subcommand};

mod bench;
mod bundle_cmd;
mod cameras;
mod check;
#[cfg(feature = "demo")]
mod demo;
#[cfg(feature = "docs")]
mod generate;
mod logging;
mod run;
mod score;
mod watch;

/// A camera lookout that answers questions in plain Italian, over MQTT.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch the cameras of a configuration file and publish what they see.
    Run(run::RunArgs),
    /// Say in one screen what is wrong with this board, and what to do.
    Check(check::CheckArgs),
    /// Score photos against Italian phrases.
    Score(score::ScoreArgs),
    /// Measure a bundle on this board, and how far from the processor's limit it is.
    Bench(bench::BenchArgs),
    /// Look at a model bundle.
    #[command(subcommand)]
    Bundle(bundle_cmd::BundleCommand),
    /// List the cameras of this machine with their formats, sizes and rates.
    Cameras(cameras::CamerasArgs),
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    Watch(watch::WatchArgs),
    #[cfg(feature = "docs")]
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

fn main() -> ExitCode {
    vedetta::memory::keep_for_the_next_frame();
    match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Score(arguments) => finish(score::run(&arguments)),
        Command::Bench(arguments) => finish(bench::run(&arguments).map(|()| ExitCode::SUCCESS)),
        Command::Bundle(command) => finish(bundle_cmd::run(&command).map(|()| ExitCode::SUCCESS)),
        Command::Cameras(arguments) => cameras::run(&arguments),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        #[cfg(feature = "docs")]
        Command::Generate(arguments) => {
            finish(generate::run(&arguments, &Cli::command()).map(|()| ExitCode::SUCCESS))
        }
    }
}

fn finish(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}
