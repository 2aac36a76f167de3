//! The versioned store: installed bundles under the state directory, two of them, and a pointer to
//! the one in use.
//!
//! ```text
//! <state_dir>/bundles/
//!   current.json                      the pointer, replaced by renaming
//!   0007-clip-italian-0123456789ab/   a complete bundle; never changed, only renamed away
//!   partial-…, gone-…, *.new          leftovers of a power cut, removed at the next start
//!   download-….part                   a download that can be continued
//!   lock                              held while the store is changed
//! ```
//!
//! A power cut at any step leaves a pointer to complete bundles: everything is on disk before a name
//! says so, and nothing is removed before no name on disk needs it.

mod disk;
#[cfg(test)]
mod model;
mod pointer;
mod shelf;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::archive;
use super::{Bundle, BundleError, Limits, MANIFEST, MAX_MANIFEST_BYTES};
pub use disk::{Disk, Lock, RealDisk};
#[cfg(test)]
pub(crate) use model::Dice;
pub use pointer::{Failed, Folder, Pointer, TRIAL_STARTS};
use shelf::Shelf;

/// The store's folder in the state directory.
const ROOT: &str = "bundles";
const POINTER: &str = "current.json";
const NEW_POINTER: &str = "current.json.new";
const LOCK: &str = "lock";
const PARTIAL: &str = "partial-";
const GONE: &str = "gone-";
/// Start of the names of unfinished downloads.
pub const DOWNLOAD: &str = "download-";
/// Longest pointer, bytes.
const MAX_POINTER_BYTES: u64 = 64 * 1024;

/// Why the store could not do what it was asked for. Whatever was in use still is.
#[derive(Debug, Error)]
pub enum StoreError {
    /// What was to be installed is not a good bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The disk has no room for it.
    #[error(
        "{path}: {needed} bytes are needed, {free} are free; make room, or put state_dir elsewhere"
    )]
    Full {
        /// The store.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The disk refused.
    #[error("{path} cannot be {action}: {source}")]
    Disk {
        /// What.
        path: PathBuf,
        /// What was tried with it.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Two at once.
    #[error("{0}: another installation is going on; wait until it is done")]
    Busy(PathBuf),
    /// There is only the present bundle.
    #[error("there is no other bundle to go back to")]
    NoOther,
}

/// A bundle that lies in the store, verified, but is not in use.
#[derive(Debug)]
pub struct Staged {
    folder: PathBuf,
    bundle: Bundle,
}

impl Staged {
    /// The bundle where it lies.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }
}

/// The store of a state directory.
pub struct Store {
    disk: Box<dyn Disk>,
    root: PathBuf,
}

impl Store {
    /// The store in `state_dir`; nothing is made before something is installed.
    pub fn open(state_dir: &Path) -> Self {
        Self::on(Box::new(RealDisk::new(state_dir)), state_dir)
    }

    /// The same on another file system.
    pub fn on(disk: Box<dyn Disk>, state_dir: &Path) -> Self {
        Self {
            disk,
            root: state_dir.join(ROOT),
        }
    }

    /// Whether anything was ever installed.
    pub fn exists(&self) -> bool {
        self.disk.list(&self.root).is_ok()
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an installed bundle lies.
    pub fn path(&self, folder: &Folder) -> PathBuf {
        self.root.join(folder.as_str())
    }

    /// The installed bundle in use; `None` when there is none. Reads only.
    pub fn current(&self) -> Option<PathBuf> {
        let folder = self.pointer().current?;
        Some(self.path(&folder))
    }

    /// What the pointer says. One that was damaged is made anew from the complete bundles that are
    /// there, the newest as the current one.
    pub fn pointer(&self) -> Pointer {
        self.recorded().unwrap_or_else(|rebuilt| rebuilt)
    }

    /// What the pointer says; as an error what is made of the bundles that are there, where it is damaged.
    fn recorded(&self) -> Result<Pointer, Pointer> {
        let path = self.root.join(POINTER);
        let damaged = match self.disk.read(&path, MAX_POINTER_BYTES) {
            Ok(bytes) => match Pointer::parse(&bytes) {
                Ok(pointer) => return Ok(pointer),
                Err(error) => error,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pointer::default()),
            Err(error) => error.to_string(),
        };
        log::error!("{}: {damaged}; the newest bundle is used", path.display());
        let mut folders = self.folders();
        let current = folders.pop();
        Err(Pointer::to(current, folders.pop()))
    }

    /// Complete bundles, oldest first.
    fn folders(&self) -> Vec<Folder> {
        let names = self.disk.list(&self.root).unwrap_or_default();
        let mut folders: Vec<Folder> = names.iter().filter_map(|n| Folder::parse(n)).collect();
        folders.sort_by_key(Folder::serial);
        folders
    }

    /// Takes the store for changing it, and makes it when there is none.
    ///
    /// # Errors
    /// Somebody else has it, or the disk refuses.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        match self.disk.make_dir(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(&self.root, "made", error));
            }
            _ => {}
        }
        let path = self.root.join(LOCK);
        let taken = self.disk.lock(&path);
        let lock = taken.map_err(|error| failed(&path, "locked", error))?;
        let lock = lock.ok_or_else(|| StoreError::Busy(self.root.clone()))?;
        // What is seen from here on is on disk: whoever changed it may have died before it was.
        self.sync(self.root.parent().unwrap_or(Path::new(".")))?;
        self.sync(&self.root)?;
        Ok(lock)
    }

    /// Whether there is room for `bytes` more.
    ///
    /// # Errors
    /// There is not.
    pub fn reserve(&self, bytes: u64) -> Result<(), StoreError> {
        shelf::reserve(&*self.disk, &self.root, bytes)
    }

    /// Puts the bundle at `source` (a `.tar.zst` or a folder) into the store and verifies it there,
    /// byte by byte. It is not in use before [`Store::switch`].
    ///
    /// # Errors
    /// A bad bundle, or a disk that is full or refuses. What was written is removed again.
    pub fn stage(&self, lock: &Lock, source: &Path, limits: &Limits) -> Result<Staged, StoreError> {
        let folder = self.put_down(lock, |shelf| {
            if source.is_dir() {
                let bundle = Bundle::open(source, limits)?;
                shelf.take_over(&bundle).map(|()| bundle.source)
            } else {
                let (_, manifest) = archive::unpack(source, limits, shelf)?;
                Ok(manifest)
            }
        })?;
        let opened = Bundle::open(&folder, limits);
        let bundle = opened.inspect_err(|_| self.remove_or_log(&folder))?;
        Ok(Staged { folder, bundle })
    }

    /// Has a new folder filled; `fill` returns the manifest. The folder, everything in it safe.
    fn put_down(
        &self,
        lock: &Lock,
        fill: impl FnOnce(&mut Shelf<'_>) -> Result<Vec<u8>, StoreError>,
    ) -> Result<PathBuf, StoreError> {
        self.clean(lock)?;
        let folder = self.root.join(format!("{PARTIAL}{}", self.next_serial()));
        let mut shelf = Shelf::new(&*self.disk, &folder)?;
        let filled = fill(&mut shelf);
        let finished = shelf.finish(filled);
        finished.inspect_err(|_| self.remove_or_log(&folder))?;
        Ok(folder)
    }

    fn next_serial(&self) -> u64 {
        self.folders()
            .last()
            .map_or(1, |newest| newest.serial().saturating_add(1))
    }

    /// Makes a staged bundle the current one, on trial. The one before stays for a way back, older
    /// ones are removed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn switch(&self, lock: &Lock, staged: Staged) -> Result<Pointer, StoreError> {
        let Staged { folder, bundle } = staged;
        self.put_in_place(lock, &folder, &bundle.manifest.name, bundle.sha256())
    }

    fn put_in_place(
        &self,
        lock: &Lock,
        partial: &Path,
        name: &str,
        sha256: &str,
    ) -> Result<Pointer, StoreError> {
        let illegal = || failed(partial, "named", io::Error::other("no legal name"));
        let folder = Folder::new(self.next_serial(), name, sha256).ok_or_else(illegal)?;
        // A damaged pointer is made anew from the bundles that are there, to which this one, which has
        // proved nothing yet, does not belong.
        let before = self.change(lock, Pointer::clone)?;
        self.rename(partial, &self.path(&folder))?;
        self.sync(&self.root)?;
        let pointer = before.installed(folder);
        self.write(lock, &pointer)?;
        // The new bundle is in force; what is left over is removed at the next start at the latest.
        if let Err(error) = self.clean(lock) {
            log::warn!("{error}");
        }
        Ok(pointer)
    }

    /// Removes a staged bundle again.
    pub fn discard(&self, _: &Lock, staged: &Staged) {
        self.remove_or_log(&staged.folder);
    }

    /// Changes the pointer; returns the new one. Nothing is written when it stays what it is, unless it
    /// was damaged.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn change(
        &self,
        lock: &Lock,
        change: impl FnOnce(&Pointer) -> Pointer,
    ) -> Result<Pointer, StoreError> {
        let recorded = self.recorded();
        let is_damaged = recorded.is_err();
        let before = recorded.unwrap_or_else(|rebuilt| rebuilt);
        let after = change(&before);
        if is_damaged || after != before {
            self.write(lock, &after)?;
        }
        Ok(after)
    }

    /// Back to the bundle before, see [`Pointer::rolled_back`].
    ///
    /// # Errors
    /// There is no other, or the disk refuses.
    pub fn roll_back(&self, lock: &Lock) -> Result<Pointer, StoreError> {
        let pointer = self.pointer().rolled_back().ok_or(StoreError::NoOther)?;
        self.write(lock, &pointer)?;
        Ok(pointer)
    }

    fn write(&self, _: &Lock, pointer: &Pointer) -> Result<(), StoreError> {
        let new = self.root.join(NEW_POINTER);
        let written = self.disk.write(&new, &mut &pointer.to_bytes()[..]);
        written.map_err(|error| failed(&new, "written", error))?;
        self.sync(&new)?;
        self.rename(&new, &self.root.join(POINTER))?;
        self.sync(&self.root)
    }

    /// Removes what nobody refers to: leftovers of a power cut, and bundles older than the previous
    /// one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn clean(&self, _: &Lock) -> Result<(), StoreError> {
        let pointer = self.pointer();
        let listed = self.disk.list(&self.root);
        for name in listed.map_err(|error| failed(&self.root, "listed", error))? {
            let path = self.root.join(&name);
            match Folder::parse(&name) {
                Some(folder) if pointer.refers_to(&folder) => {}
                Some(_) => {
                    // A name of a bundle stands for a complete one, also while it is removed.
                    let gone = self.root.join(format!("{GONE}{name}"));
                    self.rename(&path, &gone)?;
                    self.sync(&self.root)?;
                    self.remove(&gone)?;
                }
                None if name.starts_with(PARTIAL) || name.starts_with(GONE) => {
                    self.remove(&path)?;
                }
                None if name == NEW_POINTER => {
                    let removed = self.disk.remove_file(&path);
                    removed.map_err(|error| failed(&path, "removed", error))?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn remove(&self, folder: &Path) -> Result<(), StoreError> {
        let remove = || {
            for name in self.disk.list(folder)? {
                self.disk.remove_file(&folder.join(name))?;
            }
            self.disk.remove_dir(folder)
        };
        remove().map_err(|error| failed(folder, "removed", error))
    }

    fn remove_or_log(&self, folder: &Path) {
        if let Err(error) = self.remove(folder) {
            log::warn!("{error}; it is removed at the next start");
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        let renamed = self.disk.rename(from, to);
        renamed.map_err(|error| failed(to, "written", error))
    }

    fn sync(&self, path: &Path) -> Result<(), StoreError> {
        let synced = self.disk.sync(path);
        synced.map_err(|error| failed(path, "made safe", error))
    }
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> StoreError {
    StoreError::Disk {
        path: path.to_owned(),
        action,
        source,
    }
}
