//! `vedetta bundle`.

mod installed;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use vedetta::bundle::signature::PublicKey;
use vedetta::bundle::{Bundle, Limits};
use vedetta::encoder;

/// Look at a model bundle, and install another one.
#[derive(clap::Subcommand)]
pub enum BundleCommand {
    /// Check hashes, shapes, that both towers run, and who signed it.
    Verify {
        /// Folder or .tar.zst.
        bundle: PathBuf,
        /// Public key, or its .pub file: the .tar.zst must have been signed with it.
        #[arg(long, value_name = "PUB")]
        key: Option<String>,
    },
    Install(installed::Install),
    /// List the installed bundles.
    List(installed::Place),
    /// Use the bundle before again; once more, and the two change places.
    Rollback(installed::Place),
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
        BundleCommand::Verify { bundle: path, key } => {
            let signed = match key {
                None => None,
                Some(_) if path.is_dir() => {
                    bail!("a folder is not signed; give the .tar.zst it came as")
                }
                Some(key) => Some(PublicKey::given(key, Path::new(""))?.verify(path)?),
            };
            let bundle = Bundle::open(path, &Limits::default())?;
            let image = encoder::load_image(&bundle, std::num::NonZeroUsize::MIN)?;
            encoder::load_text(&bundle)?.encode_texts(&["una prova"])?;
            println!("{}: good; {}", bundle.id(), image.describe());
            match signed {
                Some(comment) => println!("signed: {comment}"),
                None => println!("its signature was not checked (--key)"),
            }
        }
        BundleCommand::Install(arguments) => installed::install(arguments)?,
        BundleCommand::List(place) => installed::list(place)?,
        BundleCommand::Rollback(place) => installed::roll_back(place)?,
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
