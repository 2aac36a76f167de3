//! A disk for tests that refuses while it is told to.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::store::{Access, Opener, open_file};

/// How a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mood {
    Fine,
    /// It can be read.
    Full,
    /// It cannot even be read.
    Gone,
}

/// Sets the mood of a disk.
#[derive(Clone, Debug)]
pub(super) struct Switch(Arc<AtomicU8>);

impl Switch {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU8::new(Mood::Fine as u8)))
    }

    pub fn set(&self, mood: Mood) {
        self.0.store(mood as u8, Ordering::Relaxed);
    }

    fn check(&self, worst: Mood) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) <= worst as u8 {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

#[derive(Debug)]
struct Failing {
    file: FileBackend,
    switch: Switch,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.switch.check(Mood::Full)?;
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.switch.check(Mood::Full)?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.switch.check(Mood::Fine)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.switch.check(Mood::Fine)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.switch.check(Mood::Fine)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Opens files that fail as `switch` says.
pub(super) fn opener(switch: Switch) -> Opener {
    Box::new(move |path: &Path, access| {
        if access == Access::Read {
            switch.check(Mood::Full)?;
            return open_file(path, access);
        }
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let file = FileBackend::new(file)?;
        let switch = switch.clone();
        Database::builder().create_with_backend(Failing { file, switch })
    })
}
