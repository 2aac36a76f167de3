//! `vedetta bundle`.

use std::path::PathBuf;

use anyhow::Result;
use vedetta::bundle::{Bundle, Limits};
use vedetta::encoder;

/// Look at a model bundle.
#[derive(clap::Subcommand)]
pub enum BundleCommand {
    /// Check hashes, shapes and that both towers run.
    Verify {
        /// Folder or .tar.zst.
        bundle: PathBuf,
    },
    /// Print name, languages, measured accuracy and provenance.
    Show {
        /// Folder or .tar.zst.
        bundle: PathBuf,
    },
}

/// Does it.
///
/// # Errors
/// Why the bundle is refused.
pub fn run(command: &BundleCommand) -> Result<()> {
    match command {
        BundleCommand::Verify { bundle } => {
            let bundle = Bundle::open(bundle, &Limits::default())?;
            let image = encoder::load_image(&bundle, std::num::NonZeroUsize::MIN)?;
            encoder::load_text(&bundle)?.encode_texts(&["una prova"])?;
            println!("{}: good; {}", bundle.id(), image.describe());
        }
        BundleCommand::Show { bundle } => {
            let bundle = Bundle::open(bundle, &Limits::default())?;
            let manifest = bundle.manifest();
            println!("{} {} ({})", manifest.name, manifest.version, bundle.id());
            println!(
                "language {}, {} dimensions, image {} px {}, text {} tokens {}",
                manifest.language,
                manifest.embedding_dim,
                manifest.image.size_px,
                manifest.precision.image,
                manifest.text.max_tokens,
                manifest.precision.text
            );
            for (what, value) in &manifest.evaluation {
                println!("  {what}: {value}");
            }
            println!("made by: {}", manifest.provenance.command);
            for source in &manifest.provenance.sources {
                println!("  from {source}");
            }
        }
    }
    Ok(())
}
