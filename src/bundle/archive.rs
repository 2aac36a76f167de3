//! A bundle as `.tar.zst`: `bundle.toml` first, then the files it lists.
//!
//! The archive is streamed: nothing is given on before the manifest that lists it was checked, no
//! entry may be longer than its listed length, and at most the listed total is ever decompressed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use ruzstd::decoding::StreamingDecoder;
use tar::{Archive, EntryType, Header};

use super::manifest::Manifest;
use super::reader::VerifiedReader;
use super::{Bundle, BundleError, Files, Limits, MANIFEST, MAX_MANIFEST_BYTES, capped, parse};

/// Longest match distance a frame may ask for: `zstd --long=27`, the most that tool reads by itself.
const MAX_WINDOW_BYTES: u64 = 128 << 20;

/// Room for tar headers, padding and metadata entries beside the files themselves.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// The longest frame header (RFC 8878, 3.1.1): magic, descriptor, window, dictionary, content size.
const MAX_HEADER_BYTES: u64 = 18;

/// Opens a packed bundle; its files stay in memory.
pub(super) fn open(path: &Path, limits: &Limits) -> Result<Bundle, BundleError> {
    let mut files = BTreeMap::new();
    let (manifest, source) = unpack(path, limits, &mut files)?;
    Ok(Bundle::new(path, manifest, source, Files::Memory(files)))
}

/// Takes what comes out of a packed bundle.
pub(super) trait Receiver {
    /// The manifest was checked, the files that it lists follow.
    fn begin(&mut self, manifest: &Manifest) -> io::Result<()>;

    /// A listed file. Reading it to the end fails when it is not what is listed.
    fn file(&mut self, name: &str, reader: &mut dyn Read) -> io::Result<()>;
}

impl Receiver for BTreeMap<String, Arc<[u8]>> {
    fn begin(&mut self, _: &Manifest) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, name: &str, reader: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        self.insert(name.to_owned(), bytes.into());
        Ok(())
    }
}

/// Unpacks a packed bundle into `receiver`; returns the manifest, also as it was read. When this
/// fails, what was received is not a bundle.
pub(super) fn unpack(
    path: &Path,
    limits: &Limits,
    receiver: &mut dyn Receiver,
) -> Result<(Manifest, Vec<u8>), BundleError> {
    let file = File::open(path).map_err(|source| BundleError::Open {
        path: path.to_owned(),
        source,
    })?;
    Opening { path, limits }.stream(BufReader::new(file), receiver)
}

struct Opening<'a> {
    path: &'a Path,
    limits: &'a Limits,
}

impl Opening<'_> {
    fn error(&self, problem: impl ToString) -> BundleError {
        BundleError::Archive {
            path: self.path.to_owned(),
            problem: problem.to_string(),
        }
    }

    fn stream(
        &self,
        mut source: impl Read,
        receiver: &mut dyn Receiver,
    ) -> Result<(Manifest, Vec<u8>), BundleError> {
        let mut head = Vec::new();
        source
            .by_ref()
            .take(MAX_HEADER_BYTES)
            .read_to_end(&mut head)
            .map_err(|e| self.error(e))?;
        match window_bytes(&head) {
            None => return Err(self.error("is not a zstd file")),
            Some(window) if window > MAX_WINDOW_BYTES => {
                return Err(self.error(format!(
                    "asks for a window of {window} bytes, at most {MAX_WINDOW_BYTES} are given"
                )));
            }
            Some(_) => {}
        }
        let decoder = StreamingDecoder::new(Cursor::new(head).chain(source))
            .map_err(|e| self.error(format!("is not a zstd file ({e})")))?;
        let most = self.limits.max_total_bytes.saturating_add(OVERHEAD_BYTES);
        let mut archive = Archive::new(decoder.take(most));
        // Raw: without it the crate reads long-name entries of any size into memory.
        let entries = archive.entries().map_err(|e| self.error(e))?.raw(true);

        let mut manifest: Option<(Manifest, Vec<u8>)> = None;
        let mut seen: Vec<String> = Vec::new();
        for entry in entries {
            let mut entry = entry.map_err(|e| self.error(e))?;
            let kind = entry.header().entry_type();
            if matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader) {
                continue;
            }
            let name = self.name(entry.header())?;
            if name.is_empty() && kind == EntryType::Directory {
                continue;
            }
            if kind != EntryType::Regular {
                return Err(self.error(format!("{name:?} is not a plain file")));
            }
            let Some((listing, _)) = &manifest else {
                if name != MANIFEST {
                    return Err(self.error(format!("the first file is {name:?}")));
                }
                let bytes = capped(&mut entry, MAX_MANIFEST_BYTES)
                    .map_err(|e| self.error(format!("bundle.toml {e}")))?;
                let listing = parse(self.path, &bytes, self.limits)?;
                receiver.begin(&listing).map_err(|e| self.error(e))?;
                manifest = Some((listing, bytes));
                continue;
            };
            let Some(listed) = listing.files.get(&name) else {
                return Err(self.error(format!("{name:?} is not listed in [files]")));
            };
            if seen.contains(&name) {
                return Err(self.error(format!("{name:?} is there twice")));
            }
            let mut reader = VerifiedReader::new(&mut entry, listed);
            receiver
                .file(&name, &mut reader)
                .map_err(|e| self.error(format!("{name} {e}")))?;
            seen.push(name);
        }
        let Some((manifest, bytes)) = manifest else {
            return Err(self.error("holds no bundle.toml"));
        };
        if let Some(missing) = manifest.files.keys().find(|name| !seen.contains(name)) {
            return Err(self.error(format!("{missing} is missing (truncated?)")));
        }
        Ok((manifest, bytes))
    }

    /// The entry's name without a leading `./`; a name with any other folder in it is not listed
    /// and therefore refused by the caller.
    fn name(&self, header: &Header) -> Result<String, BundleError> {
        let bytes = header.path_bytes();
        let name = std::str::from_utf8(&bytes)
            .map_err(|_| self.error("holds a file whose name is not UTF-8"))?;
        Ok(name.strip_prefix("./").unwrap_or(name).to_owned())
    }
}

/// The window that decoding a frame needs, from its header (RFC 8878, 3.1.1.1); `None` when it is
/// not a zstd frame. The decoder buffers a whole window before it gives anything out.
fn window_bytes(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = rest.split_first()?;
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = rest.get(dictionary..dictionary + length)?;
    let size = field
        .iter()
        .rev()
        .fold(0u64, |size, byte| size << 8 | u64::from(*byte));
    Some(if length == 2 { size + 256 } else { size })
}
