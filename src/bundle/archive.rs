//! A bundle as `.tar.zst`: `bundle.toml` first, then the files it lists.
//!
//! The archive is streamed: nothing is written or kept before the manifest that lists it was
//! checked, no entry may be longer than its listed length, and at most the listed total is ever
//! decompressed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType, Header};

use super::manifest::Manifest;
use super::reader::VerifiedReader;
use super::{Bundle, BundleError, Files, Limits, MANIFEST, MAX_MANIFEST_BYTES, capped, hex, parse};

/// Longest match distance a frame may ask for: `zstd --long=27`, the most that tool reads by itself.
const MAX_WINDOW_BYTES: u64 = 128 << 20;

/// Room for tar headers, padding and metadata entries beside the files themselves.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// The longest frame header (RFC 8878, 3.1.1): magic, descriptor, window, dictionary, content size.
const MAX_HEADER_BYTES: u64 = 18;

/// Opens a packed bundle.
pub(super) fn open(path: &Path, limits: &Limits) -> Result<Bundle, BundleError> {
    let file = File::open(path).map_err(|source| BundleError::Open {
        path: path.to_owned(),
        source,
    })?;
    Opening { path, limits }.stream(BufReader::new(file))
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

    fn stream(&self, mut source: impl Read) -> Result<Bundle, BundleError> {
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
        let mut sink: Option<Sink> = None;
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
            let Some((listing, bytes)) = &manifest else {
                if name != MANIFEST {
                    return Err(self.error(format!("the first file is {name:?}")));
                }
                let bytes = capped(&mut entry, MAX_MANIFEST_BYTES)
                    .map_err(|e| self.error(format!("bundle.toml {e}")))?;
                let listing = parse(self.path, &bytes, self.limits)?;
                if let Some(bundle) = self.already_unpacked(&listing, &bytes) {
                    return Ok(bundle);
                }
                manifest = Some((listing, bytes));
                continue;
            };
            let Some(listed) = listing.files.get(&name) else {
                return Err(self.error(format!("{name:?} is not listed in [files]")));
            };
            if seen.contains(&name) {
                return Err(self.error(format!("{name:?} is there twice")));
            }
            let sink = match &mut sink {
                Some(sink) => sink,
                empty => empty.insert(self.sink(listing, bytes)?),
            };
            let mut reader = VerifiedReader::new(&mut entry, listed);
            sink.store(&name, &mut reader)
                .map_err(|e| self.error(format!("{name} {e}")))?;
            seen.push(name);
        }
        let Some((manifest, bytes)) = manifest else {
            return Err(self.error("holds no bundle.toml"));
        };
        if let Some(missing) = manifest.files.keys().find(|name| !seen.contains(name)) {
            return Err(self.error(format!("{missing} is missing (truncated?)")));
        }
        let sink = sink.ok_or_else(|| self.error("is empty"))?;
        let files = sink.finish().map_err(|e| self.error(e))?;
        Ok(Bundle::new(self.path, manifest, bytes, files))
    }

    /// The entry's name without a leading `./`; a name with any other folder in it is not listed
    /// and therefore refused by the caller.
    fn name(&self, header: &Header) -> Result<String, BundleError> {
        let bytes = header.path_bytes();
        let name = std::str::from_utf8(&bytes)
            .map_err(|_| self.error("holds a file whose name is not UTF-8"))?;
        Ok(name.strip_prefix("./").unwrap_or(name).to_owned())
    }

    fn target(&self, manifest: &Manifest, bytes: &[u8]) -> Option<PathBuf> {
        let folder = self.limits.unpack_dir.as_ref()?;
        let hash = hex(&Sha256::digest(bytes));
        Some(folder.join(format!("{}-{}", manifest.name, &hash[..16])))
    }

    /// The same bundle, unpacked and verified before.
    fn already_unpacked(&self, manifest: &Manifest, bytes: &[u8]) -> Option<Bundle> {
        let target = self.target(manifest, bytes)?;
        let bundle = Bundle::open_directory(&target, self.limits).ok()?;
        (bundle.sha256 == hex(&Sha256::digest(bytes))).then(|| Bundle {
            path: self.path.to_owned(),
            ..bundle
        })
    }

    fn sink(&self, manifest: &Manifest, bytes: &[u8]) -> Result<Sink, BundleError> {
        let Some(target) = self.target(manifest, bytes) else {
            return Ok(Sink::Memory(BTreeMap::new()));
        };
        let partial = target.with_extension(format!("partial-{}", std::process::id()));
        Sink::folder(target, partial, bytes).map_err(|e| {
            let folder = self.limits.unpack_dir.as_deref().unwrap_or(Path::new("."));
            self.error(format!("cannot be unpacked into {}: {e}", folder.display()))
        })
    }
}

/// Where unpacked files go.
enum Sink {
    Memory(BTreeMap<String, std::sync::Arc<[u8]>>),
    /// A temporary folder that becomes `target` when everything is in it.
    Folder {
        partial: PathBuf,
        target: PathBuf,
        complete: bool,
    },
}

impl Sink {
    fn folder(target: PathBuf, partial: PathBuf, manifest: &[u8]) -> io::Result<Self> {
        fs::create_dir_all(&partial)?;
        let sink = Self::Folder {
            partial: partial.clone(),
            target,
            complete: false,
        };
        fs::write(partial.join(MANIFEST), manifest)?;
        Ok(sink)
    }

    fn store(&mut self, name: &str, reader: &mut impl Read) -> io::Result<()> {
        match self {
            Self::Memory(files) => {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes)?;
                files.insert(name.to_owned(), bytes.into());
            }
            Self::Folder { partial, .. } => {
                let mut file = File::create(partial.join(name))?;
                io::copy(reader, &mut file)?;
                file.sync_all()?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Files> {
        match &mut self {
            Self::Memory(files) => Ok(Files::Memory(std::mem::take(files))),
            Self::Folder {
                partial,
                target,
                complete,
            } => {
                // What lies there failed verification, or it would have been used.
                if target.exists() {
                    fs::remove_dir_all(&*target)?;
                }
                fs::rename(&*partial, &*target)?;
                *complete = true;
                Ok(Files::Directory(target.clone(), BTreeMap::new()))
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Self::Folder {
            partial,
            complete: false,
            ..
        } = self
        {
            // A refused archive leaves nothing behind; if this fails, the next start tries again.
            let _ = fs::remove_dir_all(partial);
        }
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
