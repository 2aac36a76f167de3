//! `vedetta-train pack`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vedetta::train::release;
use vedetta::train::sign::SigningKey;

use super::keygen::password;

/// Pack a bundle into one file, and sign it.
///
/// The same bundle always gives the same file. The signature is written beside it as
/// NAME.tar.zst.minisig; `minisign -V` and `vedetta bundle verify --key` check it.
#[derive(Args)]
pub struct Pack {
    /// Bundle folder.
    bundle: PathBuf,
    /// The packed file.
    #[arg(short, long, value_name = "NAME.tar.zst")]
    output: PathBuf,
    /// Secret key of `vedetta-train keygen` (or minisign); its password is asked for, or taken from
    /// VEDETTA_KEY_PASSWORD.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Replace the file that is there.
    #[arg(long)]
    force: bool,
}

/// Packs and prints what was written.
///
/// # Errors
/// Whatever does not fit; the message says what to do.
#[expect(clippy::cast_precision_loss, reason = "megabytes of a file")]
pub fn run(arguments: &Pack) -> Result<()> {
    // First: a wrong password should not cost the time of packing.
    let key = arguments
        .key
        .as_ref()
        .map(|path| SigningKey::read(path, password()))
        .transpose()?;
    let packed = release::pack(
        &arguments.bundle,
        &arguments.output,
        key.as_ref(),
        arguments.force,
    )?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{}: {}, {:.1} MB ({:.1} MB unpacked)",
        arguments.output.display(),
        packed.id,
        mb(packed.bytes),
        mb(packed.unpacked_bytes)
    );
    match packed.signature {
        Some(path) => println!("{}: its signature", path.display()),
        None => println!("not signed: boards ask for a signature unless told otherwise (--key)"),
    }
    Ok(())
}
