//! Prompt embeddings that are kept for bundles which are gone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::bundle::{MANIFEST, hex};
use crate::label_bank::CACHE_PREFIX;

/// Longer than any manifest, bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The SHA-256 of the manifest in the folder `bundle`, in hex, without looking at the rest.
pub fn manifest_sha256(bundle: &Path) -> io::Result<String> {
    let mut manifest = Vec::new();
    let file = File::open(bundle.join(MANIFEST))?;
    file.take(MAX_MANIFEST_BYTES).read_to_end(&mut manifest)?;
    Ok(hex(&Sha256::digest(&manifest)))
}

/// Removes from `state_dir` the embeddings of every bundle but those in `kept`, each the SHA-256 of a manifest
/// or its first digits, and what a process that ended left half-written.
pub fn forget(state_dir: &Path, kept: &[String]) {
    let Ok(entries) = fs::read_dir(state_dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|n| n.strip_prefix(CACHE_PREFIX)) else {
            continue;
        };
        let Some((hash, kind)) = name.split_once('.') else {
            continue;
        };
        let is_wanted = match kind.strip_prefix("partial-") {
            Some(process) => is_another_alive(process),
            None => kind != "bin" || kept.iter().any(|kept| is_same(hash, kept)),
        };
        if !is_wanted && let Err(error) = fs::remove_file(entry.path()) {
            log::warn!("{} is left over: {error}", entry.path().display());
        }
    }
}

/// Both are the first digits, and not equally many.
fn is_same(a: &str, b: &str) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn is_another_alive(process: &str) -> bool {
    let own = std::process::id().to_string();
    process != own && Path::new("/proc").join(process).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_of_bundles_that_are_gone_go_too() {
        let folder = tempfile::tempdir().unwrap();
        // The first process lives as long as the system does.
        let files = [
            ("prompts-0123456789abcdef.bin", true),
            ("prompts-ffff456789abcdef.bin", false),
            ("prompts-0123456789abcdef.partial-1", true),
            ("prompts-0123456789abcdef.partial-999999999", false),
            ("prompts-mine.txt", true),
            ("settings.json", true),
            ("outbox.redb", true),
        ];
        for (name, _) in files {
            fs::write(folder.path().join(name), "").unwrap();
        }
        forget(folder.path(), &["0123456789ab".to_owned()]);
        for (name, stays) in files {
            assert_eq!(folder.path().join(name).exists(), stays, "{name}");
        }
    }
}
