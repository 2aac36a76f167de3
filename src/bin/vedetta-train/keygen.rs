//! `vedetta-train keygen`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vedetta::train::sign::{self, Password};

/// The password of a signing key, for scripts.
const PASSWORD: &str = "VEDETTA_KEY_PASSWORD";

/// Make the key pair that bundles are signed with.
///
/// Writes NAME.key, which signs and is not shown to anybody, and NAME.pub, which goes onto the boards.
/// Both are minisign's. The password is asked for, or taken from VEDETTA_KEY_PASSWORD.
#[derive(Args)]
pub struct Keygen {
    /// Path of both files without their ending.
    #[arg(short, long, value_name = "NAME", default_value = "vedetta")]
    output: PathBuf,
    /// Do not encrypt the secret key: whoever reads the file can sign.
    #[arg(short = 'W', long)]
    no_password: bool,
}

/// Makes the files and says what to do with them.
///
/// # Errors
/// Files that are there already or cannot be written.
pub fn run(arguments: &Keygen) -> Result<()> {
    let password = if arguments.no_password {
        Password::None
    } else {
        password()
    };
    let files = sign::generate(&arguments.output, password)?;
    println!("{} signs: keep it safe", files.secret.display());
    println!("{} verifies; on every board:", files.public.display());
    println!("  [update]\n  public_key = \"{}\"", files.public_line);
    Ok(())
}

/// Of the environment, or to be asked for.
pub fn password() -> Password {
    std::env::var(PASSWORD).map_or(Password::Ask, Password::Given)
}
