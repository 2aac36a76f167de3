//! `vedetta bundle install`, `list` and `rollback`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use vedetta::bundle::store::{Folder, Pointer, Store, StoreError};
use vedetta::bundle::{Bundle, Limits};
use vedetta::config::{Config, Environment};
use vedetta::update::{self, Origin, Outcome, Remote, Stage, Steps};

/// Where bundles are installed.
#[derive(clap::Args)]
pub struct Place {
    /// Configuration file; it says where the state directory is and which key signs bundles.
    #[arg(long, short, default_value = "/etc/vedetta/vedetta.toml")]
    config: PathBuf,
    /// Overrides a key of the file, for example `--set update.require_signature=false`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Install a bundle: it is checked, tried with the labels of the configuration, and then used.
///
/// The bundle before stays for `rollback`, and comes back by itself when the new one does not work.
/// A running daemon takes the new one when it is asked to reload.
#[derive(clap::Args)]
pub struct Install {
    /// A .tar.zst with its .minisig beside it, or where to download it, https://… (then --sha256).
    source: String,
    /// What sha256sum prints for the file; needed for a download.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl Place {
    fn load(&self) -> Result<Config> {
        Ok(Config::load(
            &self.config,
            &self.set,
            &Environment::current(),
        )?)
    }
}

/// Installs and prints what to do next.
///
/// # Errors
/// Why nothing was installed.
pub fn install(arguments: &Install) -> Result<()> {
    let origin = match (&arguments.source, &arguments.sha256) {
        (source, Some(sha256)) if source.contains("://") => {
            Origin::Remote(Remote::new(source, sha256)?)
        }
        (source, None) if source.contains("://") => {
            bail!("a download needs --sha256, what sha256sum prints for the file")
        }
        (_, Some(_)) => bail!("--sha256 is for a download; a file has its signature"),
        (path, None) => Origin::File(PathBuf::from(path)),
    };
    let config = arguments.place.load()?;
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("cannot make {}", config.state_dir.display()))?;
    let store = Store::open(&config.state_dir);
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{msg} {bytes} of {total_bytes} {bytes_per_sec}")?;
    bar.set_style(style);
    let outcome = update::install(
        &store,
        &config.update,
        &origin,
        &mut Steps {
            try_out: &mut |bundle| update::try_out(bundle, &config, &[]),
            progress: &mut |stage| show(&bar, stage),
        },
    );
    bar.finish_and_clear();
    match outcome? {
        Outcome::Already(id) => println!("{id} is installed already"),
        Outcome::Installed { id, signed, round } => {
            match signed {
                Some(comment) => println!("signed: {comment}"),
                None => println!("nobody's signature was checked (update.require_signature)"),
            }
            println!(
                "{id} is installed; one frame of every camera takes {} ms",
                round.as_millis()
            );
            next(&config, true);
        }
    }
    Ok(())
}

fn show(bar: &ProgressBar, stage: Stage) {
    match stage {
        Stage::Downloading(bytes, of) => {
            bar.set_message("downloading");
            of.into_iter().for_each(|of| bar.set_length(of));
            bar.set_position(bytes);
        }
        Stage::Unpacking => bar.set_message("unpacking"),
        Stage::Trying => bar.set_message("trying"),
    }
}

fn next(config: &Config, on_trial: bool) {
    if config.model.shipped.is_none() {
        println!("but the configuration names model.bundle: remove that line to use it");
        return;
    }
    println!("a running daemon takes it with: systemctl reload vedetta");
    if on_trial {
        let seconds = config.update.trial.as_secs();
        println!("it is kept when it works for {seconds} s; otherwise the one before comes back");
    }
}

/// Prints one line per bundle.
///
/// # Errors
/// A configuration that cannot be used.
pub fn list(place: &Place) -> Result<()> {
    let config = place.load()?;
    let store = Store::open(&config.state_dir);
    let pointer = store.pointer();
    print_one(
        &config,
        &store,
        pointer.current.as_ref(),
        used(&config, &pointer),
    );
    if pointer.previous != pointer.current {
        print_one(&config, &store, pointer.previous.as_ref(), "for rollback");
    }
    if let Some(failed) = &pointer.failed {
        println!("given up: {}: {}", failed.bundle, failed.reason);
    }
    Ok(())
}

fn used(config: &Config, pointer: &Pointer) -> &'static str {
    match (config.model.shipped.is_some(), pointer.on_trial()) {
        (false, _) => "not used: the configuration names model.bundle",
        (true, true) => "in use, on trial",
        (true, false) => "in use",
    }
}

fn print_one(config: &Config, store: &Store, folder: Option<&Folder>, role: &str) {
    let path = match folder {
        Some(folder) => store.path(folder),
        None => match &config.model.shipped {
            Some(path) => path.clone(),
            None => return,
        },
    };
    match Bundle::open(&path, &Limits::default()) {
        Ok(bundle) => {
            let version = &bundle.manifest().version;
            println!("{} {version}, {role} ({})", bundle.id(), path.display());
        }
        Err(error) => println!("{role}, but: {error}"),
    }
}

/// Goes back to the bundle before.
///
/// # Errors
/// There is none, or it is no longer good.
pub fn roll_back(place: &Place) -> Result<()> {
    let config = place.load()?;
    let store = Store::open(&config.state_dir);
    ensure!(store.exists(), "nothing was ever installed");
    let lock = store.lock()?;
    let other = store.pointer().rolled_back().ok_or(StoreError::NoOther)?;
    let path = match (&other.current, &config.model.shipped) {
        (Some(folder), _) => Some(store.path(folder)),
        (None, shipped) => shipped.clone(),
    };
    // The way back must lead somewhere.
    let id = match path {
        Some(path) => Bundle::open(&path, &Limits::default())?.id(),
        None => "the shipped bundle".to_owned(),
    };
    store.roll_back(&lock)?;
    println!("{id} is used again");
    next(&config, false);
    Ok(())
}
