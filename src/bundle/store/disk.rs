//! What the store asks of a file system: few steps, each of which a power cut may be the last one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Gid, Uid, fchown, statvfs};

/// Held as long as nobody else may change the store.
pub type Lock = Box<dyn Send>;

/// A file system. Nothing is promised to be there after a power cut before [`Disk::sync`] returned:
/// of a file its content, of a folder the names in it.
pub trait Disk: Send + Sync {
    /// Makes a folder.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Writes a file, new or in place of one; returns its bytes.
    fn write(&self, path: &Path, content: &mut dyn Read) -> io::Result<u64>;
    /// Waits until a file's content, or the names in a folder, are safe.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Renames within a folder, in one step, over what may be there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, in any order; those that are not UTF-8 are left out.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Reads a file of at most `max_bytes`.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>>;
    /// Bytes that may still be written where `path` lies.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes the lock `path`; `None` when somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
}

/// The file system of the machine. What root makes is given to whoever owns the state directory: the
/// daemon has to read it. A link in place of what it opens is not followed, or the daemon's user could
/// have somebody else's file given to it.
#[derive(Clone, Debug)]
pub struct RealDisk {
    owner: Option<(Uid, Gid)>,
}

impl RealDisk {
    /// For a store in `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        let owner = fs::metadata(state_dir)
            .ok()
            .filter(|data| rustix::process::geteuid().is_root() && data.uid() != 0)
            .map(|data| (Uid::from_raw(data.uid()), Gid::from_raw(data.gid())));
        Self { owner }
    }

    fn give(&self, file: &File) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Opens a file to write to, and makes it where there is none.
    pub(crate) fn open(&self, path: &Path, truncate: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(truncate);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
        self.give(&file)?;
        Ok(file)
    }
}

impl Disk for RealDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)?;
        let mut options = OpenOptions::new();
        let options = options.read(true);
        let folder = options.custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY);
        self.give(&folder.open(path)?)
    }

    fn write(&self, path: &Path, content: &mut dyn Read) -> io::Result<u64> {
        io::copy(content, &mut self.open(path, true)?)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        super::super::capped(File::open(path)?, max_bytes)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let system = statvfs(path)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = self.open(path, false)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_in_the_store_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "as it was").unwrap();
        let link = folder.path().join("lock");
        symlink(&victim, &link).unwrap();
        let disk = RealDisk::new(folder.path());
        assert!(disk.lock(&link).is_err());
        assert!(disk.write(&link, &mut &b"other"[..]).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"as it was");
    }
}
