//! The queue and its disk: what is written when, and what is believed when the disk comes back.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Queue;
use crate::publish::outbox::disk::Opened;
use crate::publish::outbox::entry::Entry;
use crate::publish::outbox::store::{Change, Contents, Record};

impl Queue {
    /// One transaction with everything the disk does not know yet.
    pub(super) fn write(&mut self) {
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

    pub(super) fn open_disk(&mut self) {
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
}
