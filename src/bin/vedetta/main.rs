//! The daemon and its tools.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod cameras;
mod logging;
mod run;

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
    /// List the cameras of this machine with their formats, sizes and rates.
    Cameras(cameras::CamerasArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Cameras(arguments) => cameras::run(&arguments),
    }
}
