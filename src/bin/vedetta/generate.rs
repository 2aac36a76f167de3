//! `vedetta generate`, for packagers: what a package holds beside the binary.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Command;
use clap_complete::{Shell, generate_to};

/// Subcommands that the packaged binary does not have.
const HOST_ONLY: [&str; 2] = ["generate", "demo"];
const NAME: &str = "vedetta";

/// Write manual pages and shell completions of the device build.
///
/// DIR/man gets a page for every command, DIR/completions one file each for bash, zsh and fish.
#[derive(clap::Args)]
pub struct GenerateArgs {
    /// Folder to write into.
    dir: PathBuf,
}

/// Writes the files.
pub fn run(arguments: &GenerateArgs, everything: &Command) -> anyhow::Result<()> {
    let dir = arguments.dir.as_path();
    write(dir, device_command(everything))
        .with_context(|| format!("cannot write {}", dir.display()))
}

fn device_command(everything: &Command) -> Command {
    let mut device = Command::new(NAME).disable_help_subcommand(true);
    device = device.version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = everything.get_about() {
        device = device.about(about.clone());
    }
    let kept = everything.get_subcommands();
    device.subcommands(
        kept.filter(|one| !HOST_ONLY.contains(&one.get_name()))
            .cloned(),
    )
}

fn write(dir: &Path, device: Command) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut device.clone(), NAME, &completions)?;
    }
    clap_mangen::generate_to(device, &man)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn pages_and_completions_are_of_the_device_build() {
        let everything = crate::Cli::command();
        let dir = tempfile::tempdir().unwrap();
        let arguments = GenerateArgs {
            dir: dir.path().to_owned(),
        };
        run(&arguments, &everything).unwrap();
        for command in everything.get_subcommands().map(Command::get_name) {
            let page = dir.path().join(format!("man/vedetta-{command}.1"));
            assert_eq!(page.exists(), !HOST_ONLY.contains(&command), "{command}");
        }
        let page = fs::read_to_string(dir.path().join("man/vedetta.1")).unwrap();
        assert!(page.contains("vedetta\\-run(1)"), "{page}");
        for file in ["vedetta.bash", "_vedetta", "vedetta.fish"] {
            let text = fs::read_to_string(dir.path().join("completions").join(file)).unwrap();
            assert!(text.contains("cameras"), "{file}");
            assert!(!text.contains("generate"), "{file}");
        }
    }
}
