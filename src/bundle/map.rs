//! Files that are used where they lie instead of being read.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use memmap2::Mmap;

use super::{Bundle, BundleError, Files, VerifiedReader, file_error, plain_file};

/// Bytes that stay where they are.
pub type Shared = Arc<dyn Stored + Send + Sync>;

/// The bytes of a file.
pub trait Stored: AsRef<[u8]> {
    /// The file's mapping; `None` when the bytes are in memory of their own.
    fn mapping(&self) -> Option<&Mmap> {
        None
    }
}

impl Stored for Vec<u8> {}

impl Stored for Arc<[u8]> {}

impl Stored for Mmap {
    fn mapping(&self) -> Option<&Mmap> {
        Some(self)
    }
}

/// What a file was when it was verified: device, inode, length, and when it was last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([u64; 3], [i64; 4]);

impl Stamp {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let m = file.metadata()?;
        let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
        Ok(Self([m.dev(), m.ino(), m.len()], times))
    }
}

impl Bundle {
    /// A listed file, mapped. It is verified once more only if it changed since the bundle was
    /// opened. Whoever may write to a bundle's folder must replace its files and not write into
    /// them, as `pack` and unpacking do: a mapping shows what is written.
    ///
    /// # Errors
    /// A name that is not listed, or a file that is gone, damaged or no longer a plain file.
    pub fn map(&self, name: &str) -> Result<Shared, BundleError> {
        let Some(listed) = self.manifest().files.get(name) else {
            return Err(file_error(self.path(), name, "is not listed in [files]"));
        };
        let (directory, stamps) = match &self.files {
            Files::Memory(files) => {
                let bytes = files.get(name);
                let bytes = bytes.ok_or_else(|| file_error(self.path(), name, "is missing"))?;
                return Ok(Arc::new(Arc::clone(bytes)));
            }
            Files::Directory(directory, stamps) => (directory, stamps),
        };
        let problem = |error: io::Error| file_error(self.path(), name, error.to_string());
        let file = plain_file(directory, name)?;
        let stamp = Stamp::of(&file).map_err(problem)?;
        // SAFETY: bytes of a file that another process changes would change under a shared slice.
        // They are only ever read as numbers of which any pattern is valid and every offset was
        // checked against the mapping's length; cutting the file off ends the process, which the
        // documentation above leaves to whoever may write there.
        let mapped = unsafe { Mmap::map(&file) }.map_err(problem)?;
        if stamps.get(name) != Some(&stamp) {
            let mut reader = VerifiedReader::new(&mapped[..], listed);
            io::copy(&mut reader, &mut io::sink()).map_err(problem)?;
        }
        Ok(Arc::new(mapped))
    }
}
