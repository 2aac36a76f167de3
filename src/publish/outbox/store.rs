//! The outbox on disk: one redb file, one durable transaction per change.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};
use thiserror::Error;

use super::overlay::Overlay;

/// Sequence → (when it was stored in unix ms, whether that clock was synchronised, event JSON).
const EVENTS: TableDefinition<u64, (i64, bool, &[u8])> = TableDefinition::new("events");
/// Sequence → JPEG.
const EVIDENCE: TableDefinition<u64, &[u8]> = TableDefinition::new("evidence");
/// Event id → what is needed to end it, JSON.
const OPEN: TableDefinition<&str, &[u8]> = TableDefinition::new("open");
/// Name → value; see [`NEXT_SEQUENCE`].
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const NEXT_SEQUENCE: &str = "next-sequence";

/// redb's default cache is 1 GiB; the outbox reads each entry about once.
const CACHE_BYTES: usize = 1 << 20;

/// Why the disk could not be used.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    /// The file is not, or no longer, a database this version can read.
    #[error("{0}")]
    Corrupt(String),
    /// The system refused: full, read-only, no such folder, in use.
    #[error("{0}")]
    Refused(String),
}

/// Event JSON and, when there is one, its JPEG.
pub(super) type Payload = (Vec<u8>, Option<Vec<u8>>);

/// What [`Store::open`] found, without the payloads.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub next_sequence: u64,
    pub events: Vec<Stored>,
    pub open: BTreeMap<String, Vec<u8>>,
}

/// One event found on disk.
#[derive(Debug)]
pub(super) struct Stored {
    pub sequence: u64,
    pub unix_ms: i64,
    pub synced: bool,
    pub event_bytes: u64,
    pub evidence_bytes: u64,
}

/// One event to be written.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub sequence: u64,
    pub unix_ms: i64,
    pub synced: bool,
    pub event: &'a [u8],
    pub evidence: Option<&'a [u8]>,
}

/// Everything that changes in one transaction.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    pub put: Vec<Record<'a>>,
    pub delete: Vec<u64>,
    pub delete_evidence: Vec<u64>,
    /// Forget all open events first.
    pub clear_open: bool,
    /// `None` removes.
    pub open: Vec<(&'a str, Option<&'a [u8]>)>,
    pub next_sequence: u64,
}

/// What a database file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is made when it is not there.
    Write,
    /// It is left as it is.
    Read,
}

/// How a database file is opened; tests put a failing disk underneath.
pub(super) type Opener = Box<dyn Fn(&Path, Access) -> Result<Database, DatabaseError> + Send>;

/// Opens a file with a small cache, checking every page, so that a damaged file is an error here
/// and not a surprise later.
pub(super) fn open_file(path: &Path, access: Access) -> Result<Database, DatabaseError> {
    match access {
        Access::Write => {
            let is_new = !path.exists();
            let database = builder().create(path)?;
            if is_new {
                // Without it a power cut may take the name, and with it what was stored.
                let folder = path.parent().unwrap_or(Path::new("."));
                let synced = File::open(folder).and_then(|folder| folder.sync_all());
                synced.map_err(StorageError::Io)?;
            }
            Ok(database)
        }
        Access::Read => builder().create_with_backend(Overlay::open(path)?),
    }
}

/// How a database is opened, whatever it lies on.
pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

/// An open database file.
pub(super) struct Store {
    database: Database,
}

impl Store {
    pub fn open(path: &Path, opener: &Opener) -> Result<(Self, Contents), StoreError> {
        guarded(|| {
            let database = opener(path, Access::Write).map_err(classify_open)?;
            let transaction = database.begin_write().map_err(classify)?;
            {
                // Made here so that reading never meets a missing table.
                transaction.open_table(EVENTS).map_err(classify)?;
                transaction.open_table(EVIDENCE).map_err(classify)?;
                transaction.open_table(OPEN).map_err(classify)?;
                transaction.open_table(COUNTERS).map_err(classify)?;
            }
            transaction.commit().map_err(classify)?;
            let contents = Self::contents(&database)?;
            Ok((Self { database }, contents))
        })
    }

    /// Opens a file that cannot be written, to read what is in it.
    pub fn look(path: &Path, opener: &Opener) -> Result<(Self, Contents), StoreError> {
        guarded(|| {
            let database = opener(path, Access::Read).map_err(classify_open)?;
            let contents = Self::contents(&database)?;
            Ok((Self { database }, contents))
        })
    }

    fn contents(database: &Database) -> Result<Contents, StoreError> {
        let transaction = database.begin_read().map_err(classify)?;
        let events = transaction.open_table(EVENTS).map_err(classify)?;
        let evidence = transaction.open_table(EVIDENCE).map_err(classify)?;
        let open = transaction.open_table(OPEN).map_err(classify)?;
        let counters = transaction.open_table(COUNTERS).map_err(classify)?;
        let mut contents = Contents {
            next_sequence: counters
                .get(NEXT_SEQUENCE)
                .map_err(classify)?
                .map_or(0, |value| value.value()),
            ..Contents::default()
        };
        for row in events.iter().map_err(classify)? {
            let (key, value) = row.map_err(classify)?;
            let (unix_ms, synced, event) = value.value();
            let picture = evidence.get(key.value()).map_err(classify)?;
            contents.events.push(Stored {
                sequence: key.value(),
                unix_ms,
                synced,
                event_bytes: event.len() as u64,
                evidence_bytes: picture.map_or(0, |jpeg| jpeg.value().len() as u64),
            });
        }
        for row in open.iter().map_err(classify)? {
            let (key, value) = row.map_err(classify)?;
            let (id, value) = (key.value().to_owned(), value.value().to_vec());
            contents.open.insert(id, value);
        }
        let last = contents
            .events
            .last()
            .map_or(0, |stored| stored.sequence + 1);
        contents.next_sequence = contents.next_sequence.max(last);
        Ok(contents)
    }

    /// Writes `change` in one transaction that is on disk when this returns.
    pub fn commit(&self, change: &Change) -> Result<(), StoreError> {
        guarded(|| {
            let transaction = self.database.begin_write().map_err(classify)?;
            {
                let mut events = transaction.open_table(EVENTS).map_err(classify)?;
                let mut evidence = transaction.open_table(EVIDENCE).map_err(classify)?;
                for record in &change.put {
                    let value = (record.unix_ms, record.synced, record.event);
                    events.insert(record.sequence, value).map_err(classify)?;
                    if let Some(jpeg) = record.evidence {
                        evidence.insert(record.sequence, jpeg).map_err(classify)?;
                    }
                }
                for sequence in &change.delete {
                    events.remove(sequence).map_err(classify)?;
                }
                for sequence in change.delete.iter().chain(&change.delete_evidence) {
                    evidence.remove(sequence).map_err(classify)?;
                }
                let mut open = transaction.open_table(OPEN).map_err(classify)?;
                if change.clear_open {
                    open.retain(|_, _| false).map_err(classify)?;
                }
                for (id, value) in &change.open {
                    match value {
                        Some(value) => open.insert(*id, *value).map_err(classify)?,
                        None => open.remove(*id).map_err(classify)?,
                    };
                }
                let mut counters = transaction.open_table(COUNTERS).map_err(classify)?;
                counters
                    .insert(NEXT_SEQUENCE, change.next_sequence)
                    .map_err(classify)?;
            }
            transaction.commit().map_err(classify)
        })
    }

    /// `None` when it is not there.
    pub fn read(&self, sequence: u64) -> Result<Option<Payload>, StoreError> {
        guarded(|| {
            let transaction = self.database.begin_read().map_err(classify)?;
            let events = transaction.open_table(EVENTS).map_err(classify)?;
            let evidence = transaction.open_table(EVIDENCE).map_err(classify)?;
            let Some(event) = events.get(sequence).map_err(classify)? else {
                return Ok(None);
            };
            let jpeg = evidence.get(sequence).map_err(classify)?;
            Ok(Some((
                event.value().2.to_vec(),
                jpeg.map(|jpeg| jpeg.value().to_vec()),
            )))
        })
    }
}

/// Renames a file that cannot be read to `<name>.corrupt-N`, the first N that is free, and keeps
/// at most three of them.
pub(super) fn move_aside(path: &Path) -> std::io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = |n: u32| path.with_file_name(format!("{name}.corrupt-{n}"));
    let free = (1..=3).map(aside).find(|path| !path.exists());
    let target = free.unwrap_or_else(|| aside(3));
    std::fs::rename(path, &target)?;
    Ok(target)
}

/// A damaged file can make the database panic; that is an error like any other here.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("the database panicked");
        Err(StoreError::Corrupt(message.to_owned()))
    })
}

fn classify_open(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::UpgradeRequired(_) => StoreError::Corrupt(error.to_string()),
        DatabaseError::DatabaseAlreadyOpen => StoreError::Refused(
            "outbox.redb is in use: is another vedetta running with the same state_dir?".to_owned(),
        ),
        other => classify(other),
    }
}

fn classify(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    match &error {
        redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::UpgradeRequired(_) => StoreError::Corrupt(error.to_string()),
        redb::Error::Io(io)
            if matches!(
                io.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Refused(error.to_string()),
    }
}
