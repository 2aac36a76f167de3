//! What waits, in order: an index in memory over payloads on disk (or, without one, in memory).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::disk::{Disk, Opened};
use super::entry::Entry;
use super::store::{Change, Contents, Opener, Record};
use super::{EVIDENCE_EXPIRY, NewEvent, Ready};
use crate::config;
use crate::event::{Event, EventType, QueueHealth};
use crate::moment::Clock;
use crate::publish::MAX_PICTURE_BYTES;

/// Deletions wait this long for a transaction that has to be written anyway: every transaction
/// wears the flash.
const DELETE_WITHIN: Duration = Duration::from_secs(5);

/// The queue behind [`super::Outbox`].
pub(super) struct Queue {
    limits: config::Outbox,
    disk: Disk,
    /// Whether the disk's contents are known.
    read: bool,
    entries: VecDeque<Entry>,
    bytes: u64,
    next_sequence: u64,
    open: BTreeMap<String, Vec<u8>>,
    /// Open events to be written or removed with the next transaction.
    open_changed: BTreeSet<String>,
    /// The disk missed changes of the open events: write all of them.
    open_stale: bool,
    delete: Vec<u64>,
    delete_evidence: Vec<u64>,
    delete_since: Option<Instant>,
    dropped: u64,
    expired: u64,
    pictures_dropped: u64,
}

impl Queue {
    pub fn open(state_dir: &Path, limits: config::Outbox, opener: Opener) -> Self {
        let mut queue = Self {
            limits,
            disk: Disk::new(state_dir, opener),
            read: false,
            entries: VecDeque::new(),
            bytes: 0,
            next_sequence: 0,
            open: BTreeMap::new(),
            open_changed: BTreeSet::new(),
            open_stale: false,
            delete: Vec::new(),
            delete_evidence: Vec::new(),
            delete_since: None,
            dropped: 0,
            expired: 0,
            pictures_dropped: 0,
        };
        queue.open_disk();
        if queue.next_sequence == 0 {
            queue.next_sequence = from_clock();
        }
        queue.make_room();
        queue
    }

    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub fn open_events(&self) -> Vec<(String, serde_json::Value)> {
        self.open
            .iter()
            .filter_map(|(id, json)| Some((id.clone(), serde_json::from_slice(json).ok()?)))
            .collect()
    }

    pub fn health(&self) -> QueueHealth {
        QueueHealth {
            length: self.entries.len() as u64,
            bytes: self.bytes,
            dropped: self.dropped,
            expired: self.expired,
            durable: self.disk.works(),
            pictures_dropped: self.pictures_dropped,
            corrupt_files: self.disk.corrupt,
        }
    }

    pub fn append(&mut self, batch: Vec<NewEvent>) -> Vec<u64> {
        if self.disk.is_due() {
            self.open_disk();
        }
        let (seen, wall) = (Instant::now(), Timestamp::now());
        let mut sequences = Vec::with_capacity(batch.len());
        for new in batch {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            sequences.push(sequence);
            self.push(sequence, new, seen, wall);
        }
        self.make_room();
        self.write();
        sequences
    }

    fn push(&mut self, sequence: u64, new: NewEvent, seen: Instant, wall: Timestamp) {
        let mut event = new.event;
        event.sequence = sequence;
        let Ok(json) = serde_json::to_vec(&event) else {
            self.dropped += 1;
            return;
        };
        let given = new.evidence;
        let evidence = given.filter(|jpeg| {
            let fits = jpeg.len() <= MAX_PICTURE_BYTES
                && (jpeg.len() + json.len()) as u64 <= self.limits.max_bytes;
            self.pictures_dropped += u64::from(!fits);
            fits
        });
        let open = new.open.and_then(|open| serde_json::to_vec(&open).ok());
        match (event.kind, open) {
            (EventType::Ended, _) => {
                self.open.remove(&event.id);
                self.open_changed.insert(event.id.clone());
            }
            (_, Some(open)) => {
                self.open.insert(event.id.clone(), open);
                self.open_changed.insert(event.id.clone());
            }
            (_, None) => {}
        }
        let entry = Entry {
            sequence,
            unix_ms: wall.as_millisecond(),
            synced: event.clock == Clock::Synced,
            seen,
            earlier: false,
            event_bytes: json.len() as u64,
            evidence_bytes: evidence.as_ref().map_or(0, |jpeg| jpeg.len() as u64),
            unsaved: Some((json, evidence)),
        };
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
    }

    /// Old pictures go first, then the oldest events.
    fn make_room(&mut self) {
        while self.entries.len() > self.limits.max_events {
            self.drop_oldest();
        }
        if self.bytes <= self.limits.max_bytes {
            return;
        }
        for entry in &mut self.entries {
            if self.bytes <= self.limits.max_bytes {
                return;
            }
            if entry.evidence_bytes > 0 {
                self.bytes -= entry.evidence_bytes;
                entry.evidence_bytes = 0;
                self.pictures_dropped += 1;
                match &mut entry.unsaved {
                    Some((_, evidence)) => *evidence = None,
                    None => self.delete_evidence.push(entry.sequence),
                }
            }
        }
        while self.bytes > self.limits.max_bytes && !self.entries.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        self.dropped += 1;
        self.take_out(0);
    }

    fn take_out(&mut self, index: usize) {
        if let Some(entry) = self.entries.remove(index) {
            self.bytes -= entry.bytes();
            if entry.unsaved.is_none() {
                self.delete.push(entry.sequence);
                self.delete_since.get_or_insert_with(Instant::now);
            }
        }
    }

    fn index_of(&self, sequence: u64) -> Option<usize> {
        self.entries
            .binary_search_by_key(&sequence, |entry| entry.sequence)
            .ok()
    }

    pub fn remove(&mut self, sequence: u64) {
        if let Some(index) = self.index_of(sequence) {
            self.take_out(index);
        }
    }

    pub fn reject(&mut self, sequence: u64) {
        if let Some(index) = self.index_of(sequence) {
            self.dropped += 1;
            self.take_out(index);
        }
    }

    pub fn next_ready(&mut self, busy: &BTreeSet<u64>) -> Option<Ready> {
        let (now, wall) = (Instant::now(), Timestamp::now());
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            let sequence = entry.sequence;
            if busy.contains(&sequence) {
                index += 1;
                continue;
            }
            let age = entry.age(now, wall);
            if age > self.limits.expire_after {
                self.expired += 1;
                self.take_out(index);
                continue;
            }
            let payload = match &entry.unsaved {
                Some(unsaved) => Some(unsaved.clone()),
                None => match self.disk.read(sequence) {
                    Some(found) => found,
                    // The disk is away: newer events that are in memory do not wait for it.
                    None => {
                        index += 1;
                        continue;
                    }
                },
            };
            let parsed = payload.and_then(|(json, jpeg)| {
                Some((serde_json::from_slice::<Event>(&json).ok()?, jpeg))
            });
            let Some((mut event, mut evidence)) = parsed else {
                log::error!("event {sequence} in the outbox cannot be read and is dropped");
                self.reject(sequence);
                continue;
            };
            if evidence.is_some() && age > EVIDENCE_EXPIRY {
                self.pictures_dropped += 1;
                evidence = None;
            }
            if evidence.is_none() {
                event.evidence = None;
            }
            event.sequence = sequence;
            let remaining = self.limits.expire_after.saturating_sub(age);
            return Some(Ready {
                sequence,
                event,
                evidence,
                remaining,
            });
        }
        None
    }

    /// Entries of a run are in order of age; those of earlier runs come first.
    fn drop_expired(&mut self) {
        let (now, wall) = (Instant::now(), Timestamp::now());
        let limit = self.limits.expire_after;
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            if entry.age(now, wall) > limit {
                self.expired += 1;
                self.take_out(index);
            } else if entry.earlier {
                index += 1;
            } else {
                break;
            }
        }
    }

    pub fn tend(&mut self) {
        self.drop_expired();
        if self.disk.is_due() {
            self.open_disk();
            self.write();
        }
        let due = |since: Instant| since.elapsed() >= DELETE_WITHIN;
        if self.delete_since.is_some_and(due) {
            self.write();
        }
    }

    pub fn flush(&mut self) {
        if !self.delete.is_empty() || !self.delete_evidence.is_empty() {
            self.write();
        }
    }

    /// One transaction with everything the disk does not know yet.
    fn write(&mut self) {
        if !self.disk.works() {
            self.open_stale = true;
            self.open_changed.clear();
            return;
        }
        let saved = self.entries.partition_point(|e| e.unsaved.is_none());
        let put = self.entries.range(saved..).filter_map(|entry| {
            let (event, evidence) = entry.unsaved.as_ref()?;
            Some(Record {
                sequence: entry.sequence,
                unix_ms: entry.unix_ms,
                synced: entry.synced,
                event,
                evidence: evidence.as_deref(),
            })
        });
        let all = self
            .open
            .iter()
            .map(|(id, json)| (id.as_str(), Some(json.as_slice())));
        let some = self
            .open_changed
            .iter()
            .map(|id| (id.as_str(), self.open.get(id).map(Vec::as_slice)));
        let change = Change {
            put: put.collect(),
            delete: self.delete.clone(),
            delete_evidence: self.delete_evidence.clone(),
            clear_open: self.open_stale,
            open: if self.open_stale {
                all.collect()
            } else {
                some.collect()
            },
            next_sequence: self.next_sequence,
        };
        if self.disk.commit(&change) {
            for entry in self.entries.range_mut(saved..) {
                entry.unsaved = None;
            }
            self.delete.clear();
            self.delete_evidence.clear();
            self.delete_since = None;
            self.open_stale = false;
        } else {
            self.open_stale = true;
        }
        self.open_changed.clear();
    }

    fn open_disk(&mut self) {
        match self.disk.open() {
            Opened::Read(contents) if self.read => self.reconcile(&contents),
            Opened::Read(contents) => self.adopt(contents),
            Opened::Anew => {
                // Whatever was only on disk is lost.
                let before = self.entries.len();
                self.entries.retain(|entry| entry.unsaved.is_some());
                self.bytes = self.entries.iter().map(Entry::bytes).sum();
                self.dropped += (before - self.entries.len()) as u64;
                self.delete.clear();
                self.delete_evidence.clear();
                self.open_stale = true;
                self.read = true;
            }
            Opened::No => {}
        }
    }

    /// The first look at the disk: its events come before those of this run.
    fn adopt(&mut self, contents: Contents) {
        let seen = Instant::now();
        let first = self
            .entries
            .front()
            .map_or(u64::MAX, |entry| entry.sequence);
        for stored in contents.events.into_iter().rev() {
            if stored.sequence >= first {
                continue;
            }
            let entry = Entry::found(&stored, seen);
            self.bytes += entry.bytes();
            self.entries.push_front(entry);
        }
        for (id, json) in contents.open {
            self.open.entry(id).or_insert(json);
        }
        self.open_stale |= first != u64::MAX;
        self.next_sequence = self.next_sequence.max(contents.next_sequence).max(1);
        self.read = true;
        self.make_room();
    }

    /// The disk is back: what it has and the queue has not was already sent or dropped; what it
    /// should have and has not is lost.
    fn reconcile(&mut self, contents: &Contents) {
        let on_disk: BTreeSet<u64> = contents.events.iter().map(|e| e.sequence).collect();
        let before = self.entries.len();
        self.entries
            .retain(|e| e.unsaved.is_some() || on_disk.contains(&e.sequence));
        self.dropped += (before - self.entries.len()) as u64;
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
        let known: BTreeSet<u64> = self.entries.iter().map(|e| e.sequence).collect();
        self.delete = on_disk.difference(&known).copied().collect();
        self.open_stale = true;
    }

    /// Makes a disk that refused due at once.
    #[cfg(test)]
    pub fn hurry(&mut self) {
        self.disk.hurry();
    }

    /// Makes every entry older.
    #[cfg(test)]
    pub fn age_by(&mut self, time: Duration) {
        for entry in &mut self.entries {
            entry.seen = entry.seen.checked_sub(time).unwrap_or(entry.seen);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Where sequence numbers go on when the disk cannot tell: over any count of events.
fn from_clock() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).map_or(1, |ms| ms.max(1))
}
