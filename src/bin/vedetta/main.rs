//! The daemon and its tools.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
    }
}
