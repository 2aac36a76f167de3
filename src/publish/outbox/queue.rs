//! What waits, in order: an index in memory over payloads on disk (or, without one, in memory).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::disk::Disk;
use super::entry::{Entry, Now};
use super::store::Opener;
use super::{EVIDENCE_EXPIRY, NewEvent, Ready};
use crate::config;
use crate::event::{Event, EventType, QueueHealth};
use crate::moment::Clock;
use crate::publish::MAX_PICTURE_BYTES;

mod saving;

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
        for index in 0..self.entries.len() {
            if self.bytes <= self.limits.max_bytes {
                return;
            }
            self.take_picture_out(index);
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

    fn take_picture_out(&mut self, index: usize) {
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        if entry.evidence_bytes == 0 {
            return;
        }
        self.bytes -= entry.evidence_bytes;
        entry.evidence_bytes = 0;
        self.pictures_dropped += 1;
        match &mut entry.unsaved {
            Some((_, evidence)) => *evidence = None,
            None => {
                self.delete_evidence.push(entry.sequence);
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

    pub fn drop_picture(&mut self, sequence: u64) {
        if let Some(index) = self.index_of(sequence) {
            self.take_picture_out(index);
        }
    }

    pub fn next_ready(&mut self, busy: &BTreeSet<u64>) -> Option<Ready> {
        let now = self.now();
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            let sequence = entry.sequence;
            if busy.contains(&sequence) {
                index += 1;
                continue;
            }
            let age = entry.age(&now);
            if age > self.limits.expire_after {
                self.expired += 1;
                self.take_out(index);
                continue;
            }
            let payload = match &entry.unsaved {
                Some(unsaved) => Some(unsaved.clone()),
                None => match self.disk.read(sequence) {
                    Some(found) => found,
                    // The disk cannot even be read: newer events that are in memory do not wait for it.
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
                self.take_picture_out(index);
                evidence = None;
            }
            // A picture that was given up is on a full disk for a while.
            if evidence.is_none() || self.entries[index].evidence_bytes == 0 {
                evidence = None;
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

    /// What age is measured by. Only events of earlier runs, which come first, ask for the wall clock.
    fn now(&self) -> Now {
        let asks = self.entries.front().is_some_and(|entry| entry.earlier);
        Now::read(asks)
    }

    /// Entries of a run are in order of age; those of earlier runs come first.
    fn drop_expired(&mut self) {
        let now = self.now();
        let limit = self.limits.expire_after;
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            if entry.age(&now) > limit {
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
