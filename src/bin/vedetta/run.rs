//! `vedetta run`.

use std::process::ExitCode;

/// Watch the cameras of a configuration file and publish what they see.
#[derive(clap::Args)]
pub struct RunArgs {}

/// Runs until SIGTERM.
pub fn run(_arguments: &RunArgs) -> ExitCode {
    ExitCode::SUCCESS
}
