//! A file that can be read and not written: what the database would change in it (a repair after a
//! failed write, its own marks) stays in memory and is forgotten.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{DatabaseError, StorageBackend};

/// What is kept of the file in one piece, once a byte of it is changed.
const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    len: u64,
    /// Bytes of the file from here on were cut off once and read as zeros.
    file_len: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_LEN]>>,
}

impl Overlay {
    /// Opens `path` for reading, and keeps others from writing to it.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = File::open(path)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DatabaseError::DatabaseAlreadyOpen),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let len = file.metadata()?.len();
        let changes = Changes {
            len,
            file_len: len,
            blocks: BTreeMap::new(),
        };
        Ok(Self {
            file,
            changes: Mutex::new(changes),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block of `file` with this number, zeros behind its end.
    fn read_block(&self, number: u64, file_len: u64) -> io::Result<Box<[u8; BLOCK_LEN]>> {
        let mut block = Box::new([0; BLOCK_LEN]);
        let start = number * BLOCK;
        let there = file_len.saturating_sub(start).min(BLOCK);
        let there = usize::try_from(there).unwrap_or(BLOCK_LEN);
        self.file.read_exact_at(&mut block[..there], start)?;
        Ok(block)
    }
}

/// The parts of `offset..offset + len`, block by block: number, start in the block, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = usize::try_from(at % BLOCK).ok()?;
        let piece = (len - done).min(BLOCK_LEN - start);
        done += piece;
        (piece > 0).then_some((at / BLOCK, start, piece))
    })
}

fn check_end(offset: u64, bytes: usize, len: u64) -> io::Result<()> {
    match offset.checked_add(bytes as u64) {
        Some(end) if end <= len => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.lock();
        check_end(offset, out.len(), changes.len)?;
        let mut rest = out;
        for (number, start, len) in pieces(offset, rest.len()) {
            let (piece, after) = rest.split_at_mut(len);
            match changes.blocks.get(&number) {
                Some(block) => piece.copy_from_slice(&block[start..start + len]),
                None => {
                    let block = self.read_block(number, changes.file_len)?;
                    piece.copy_from_slice(&block[start..start + len]);
                }
            }
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changes = self.lock();
        changes.file_len = changes.file_len.min(len);
        changes.len = len;
        changes.blocks.split_off(&len.div_ceil(BLOCK));
        if let Some(block) = changes.blocks.get_mut(&(len / BLOCK)) {
            let kept = usize::try_from(len % BLOCK).unwrap_or(BLOCK_LEN);
            block[kept..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.lock();
        check_end(offset, data.len(), changes.len)?;
        let mut rest = data;
        for (number, start, len) in pieces(offset, data.len()) {
            let (piece, after) = rest.split_at(len);
            if !changes.blocks.contains_key(&number) {
                let block = self.read_block(number, changes.file_len)?;
                changes.blocks.insert(number, block);
            }
            if let Some(block) = changes.blocks.get_mut(&number) {
                block[start..start + len].copy_from_slice(piece);
            }
            rest = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Resize(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u64..12_000, prop::collection::vec(any::<u8>(), 1..6000))
                .prop_map(|(offset, data)| Step::Write(offset, data)),
            1 => (0_u64..20_000).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #[test]
        fn it_reads_like_a_file_that_was_written_and_the_file_is_not(
            original in prop::collection::vec(any::<u8>(), 0..15_000),
            steps in prop::collection::vec(step(), 0..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            std::fs::write(&path, &original).unwrap();
            let overlay = Overlay::open(&path).unwrap();
            let mut model = original.clone();
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        let from = usize::try_from(offset).unwrap();
                        let fits = from + data.len() <= model.len();
                        prop_assert_eq!(overlay.write(offset, &data).is_ok(), fits);
                        if fits {
                            model[from..from + data.len()].copy_from_slice(&data);
                        }
                    }
                    Step::Resize(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(usize::try_from(len).unwrap(), 0);
                    }
                }
                let mut found = vec![1; model.len()];
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                overlay.read(0, &mut found).unwrap();
                prop_assert!(found == model);
            }
            prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            prop_assert!(std::fs::read(&path).unwrap() == original);
        }
    }
}
