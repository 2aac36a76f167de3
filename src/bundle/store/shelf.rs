//! A folder that becomes a bundle, file by file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Disk, MANIFEST, MAX_MANIFEST_BYTES, StoreError, failed};
use crate::bundle::archive::Receiver;
use crate::bundle::{Bundle, Manifest};

/// What must stay free for everything else that writes, bytes.
const RESERVE_BYTES: u64 = 16 << 20;

/// Everything goes through a [`Disk`].
pub(super) struct Shelf<'a> {
    disk: &'a dyn Disk,
    folder: PathBuf,
    /// Why the disk, and not the bundle, is to blame.
    failure: Option<StoreError>,
}

impl<'a> Shelf<'a> {
    pub fn new(disk: &'a dyn Disk, folder: &Path) -> Result<Self, StoreError> {
        let made = disk.make_dir(folder);
        made.map_err(|error| failed(folder, "made", error))?;
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            failure: None,
        })
    }

    /// Copies a bundle that is there already.
    pub fn take_over(&mut self, bundle: &Bundle) -> Result<(), StoreError> {
        let blame = |error| failed(bundle.path(), "copied", error);
        self.begin(bundle.manifest()).map_err(blame)?;
        for name in bundle.manifest().files.keys() {
            let mut reader = bundle.reader(name)?;
            self.file(name, &mut reader).map_err(blame)?;
        }
        Ok(())
    }

    /// Writes a file and waits until it is safe.
    pub fn put(&mut self, name: &str, content: &mut dyn Read) -> io::Result<()> {
        let path = self.folder.join(name);
        let mut judged = Judged {
            inner: content,
            bad: false,
        };
        let written = self.disk.write(&path, &mut judged);
        let bad = judged.bad;
        let safe = written.and_then(|_| self.disk.sync(&path));
        safe.inspect_err(|error| {
            if !bad {
                let why = io::Error::new(error.kind(), error.to_string());
                self.failure = Some(failed(&path, "written", why));
            }
        })
    }

    /// Writes the manifest, last, and waits until all names are safe. `received` is the manifest as
    /// it was read, or why the bundle is refused; a disk to blame is named before a bundle.
    pub fn finish(mut self, received: Result<Vec<u8>, StoreError>) -> Result<(), StoreError> {
        let manifest = match received {
            Ok(manifest) => manifest,
            Err(error) => return Err(self.failure.take().unwrap_or(error)),
        };
        debug_assert!(manifest.len() as u64 <= MAX_MANIFEST_BYTES);
        let written = self.put(MANIFEST, &mut &manifest[..]);
        let safe = written.and_then(|()| self.disk.sync(&self.folder));
        let folder = &self.folder;
        safe.map_err(|error| {
            let failure = self.failure.take();
            failure.unwrap_or_else(|| failed(folder, "made safe", error))
        })
    }
}

/// Refuses `bytes` that do not fit where `folder` lies.
pub(super) fn reserve(disk: &dyn Disk, folder: &Path, bytes: u64) -> Result<(), StoreError> {
    let free = disk.free_bytes(folder);
    let free = free.map_err(|error| failed(folder, "measured", error))?;
    let needed = bytes.saturating_add(RESERVE_BYTES);
    if free < needed {
        return Err(StoreError::Full {
            path: folder.to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

impl Receiver for Shelf<'_> {
    fn begin(&mut self, manifest: &Manifest) -> io::Result<()> {
        let bytes = manifest.files.values().map(|file| file.bytes);
        let bytes = bytes.fold(MAX_MANIFEST_BYTES, u64::saturating_add);
        reserve(self.disk, &self.folder, bytes).map_err(|error| {
            let text = error.to_string();
            self.failure = Some(error);
            io::Error::other(text)
        })
    }

    fn file(&mut self, name: &str, reader: &mut dyn Read) -> io::Result<()> {
        self.put(name, reader)
    }
}

/// Tells a source that is bad from a disk that is.
struct Judged<'a> {
    inner: &'a mut dyn Read,
    bad: bool,
}

impl Read for Judged<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = self.inner.read(buffer);
        self.bad = outcome.is_err();
        outcome
    }
}
