//! `vedetta run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vedetta::config::{Config, Environment};
use vedetta::daemon::{self, Control};

/// Watch the cameras of a configuration file and publish what they see.
///
/// Stops cleanly on SIGTERM and SIGINT, reads the configuration again on SIGHUP. Exits with 78 when
/// the configuration cannot be used. RUST_LOG sets the log filter, `RUST_LOG=vedetta=debug` for
/// more.
#[derive(clap::Args)]
pub struct RunArgs {
    /// Configuration file.
    #[arg(long, short, default_value = "/etc/vedetta/vedetta.toml")]
    config: PathBuf,
    /// Overrides a key of the file, for example `--set mqtt.host=192.168.1.10`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs until a signal says stop.
pub fn run(arguments: &RunArgs) -> ExitCode {
    let environment = Environment::current();
    let load = || Config::load_to_run(&arguments.config, &arguments.set, &environment);
    let first = match load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(vedetta::config::ConfigError::EXIT_CODE);
        }
    };
    super::logging::start(first.log_level);
    #[cfg(any(feature = "faults", debug_assertions))]
    log::warn!("this build hangs when it is told to; it is for tests only");
    let control = Arc::new(Control::default());
    if let Err(error) = listen_to_signals(Arc::clone(&control)) {
        eprintln!("signals cannot be handled: {error}");
        return ExitCode::FAILURE;
    }
    match daemon::serve(&load, &control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn listen_to_signals(control: Arc<Control>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => control.reload(),
                    _ => control.stop(),
                }
            }
        })?;
    Ok(())
}
