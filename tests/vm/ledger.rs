//! What the daemon said it stored against what a subscriber heard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result};
use vedetta::event::{Event, EventType};

/// An event's identity, as consumers deduplicate: sequence, type, id.
type Key = (u64, String, String);

/// Where the disk cannot tell the last number, numbers go on from the wall clock.
const JUMP: u64 = 1_000_000;

/// The books of a campaign, or of a part of it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What the daemon's log says.
    stored: BTreeSet<Key>,
    /// How often each event was heard.
    heard: BTreeMap<Key, u64>,
    /// First arrivals that came after a later number.
    disorder: u64,
    delayed: u64,
}

impl Ledger {
    /// Reads `heard` (lines `TOPIC PAYLOAD` of a subscriber) and the daemon's logs, as far as events
    /// in `sequences` are concerned. What is not a whole line (a power cut) does not count.
    pub fn read(heard: &Path, logs: &[&str], sequences: &RangeInclusive<u64>) -> Result<Self> {
        let mut ledger = Self::default();
        for log in logs {
            for line in lines(Path::new(log))? {
                let stored = stored(&line).filter(|key| sequences.contains(&key.0));
                ledger.stored.extend(stored);
            }
        }
        let mut latest = 0;
        for line in lines(heard)? {
            let Some((topic, payload)) = line.split_once(' ') else {
                continue;
            };
            if !topic.ends_with("/event") {
                continue;
            }
            let event: Event = serde_json::from_str(payload)
                .with_context(|| format!("not an event: {payload}"))?;
            if !sequences.contains(&event.sequence) {
                continue;
            }
            let count = ledger.heard.entry(key(&event)).or_default();
            *count += 1;
            if *count == 1 {
                ledger.delayed += u64::from(event.delayed);
                ledger.disorder += u64::from(event.sequence < latest);
                latest = latest.max(event.sequence);
            }
        }
        Ok(ledger)
    }

    /// The newest number that was stored or heard.
    pub fn last(&self) -> u64 {
        let stored = self.stored.last().map_or(0, |key| key.0);
        stored.max(self.heard.last_key_value().map_or(0, |(key, _)| key.0))
    }

    /// Stored and never heard, and numbers between two that were heard: a power cut may swallow the
    /// log's line of an event that was stored. A jump to the clock's milliseconds is none of these.
    fn lost(&self) -> BTreeSet<u64> {
        let numbers: BTreeSet<u64> = self.heard.keys().map(|key| key.0).collect();
        let unheard = self
            .stored
            .iter()
            .filter(|key| !self.heard.contains_key(key));
        let mut lost: BTreeSet<u64> = unheard.map(|key| key.0).collect();
        for (before, after) in numbers.iter().zip(numbers.iter().skip(1)) {
            if after - before < JUMP {
                lost.extend(before + 1..*after);
            }
        }
        lost
    }

    /// Numbers that two different events bear.
    fn conflicts(&self) -> usize {
        let numbers: BTreeSet<u64> = self.heard.keys().map(|key| key.0).collect();
        self.heard.len() - numbers.len()
    }

    /// Confirmed and not ended.
    fn open(&self) -> usize {
        let ids = |kind: EventType| -> BTreeSet<&str> {
            let of_kind = self.heard.keys().filter(|key| key.1 == kind.as_str());
            of_kind.map(|key| key.2.as_str()).collect()
        };
        let (confirmed, ended) = (ids(EventType::Confirmed), ids(EventType::Ended));
        confirmed.difference(&ended).count()
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.lost();
        let duplicates: u64 = self.heard.values().map(|count| count - 1).sum();
        write!(
            f,
            "stored={} heard={} lost={} duplicates={duplicates} delayed={} disorder={} conflicts={} open={} last={}",
            self.stored.len(),
            self.heard.len(),
            lost.len(),
            self.delayed,
            self.disorder,
            self.conflicts(),
            self.open(),
            self.last()
        )?;
        if let Some(first) = lost.first() {
            write!(f, " first-lost={first}")?;
        }
        Ok(())
    }
}

fn key(event: &Event) -> Key {
    (
        event.sequence,
        event.kind.as_str().to_owned(),
        event.id.clone(),
    )
}

/// `… event 7 confirmed 01J… is stored`
fn stored(line: &str) -> Option<Key> {
    let words: Vec<&str> = line.strip_suffix(" is stored")?.split(' ').collect();
    let [.., "event", sequence, kind, id] = words.as_slice() else {
        return None;
    };
    Some((sequence.parse().ok()?, (*kind).to_owned(), (*id).to_owned()))
}

/// The lines of a file that end with a line feed, without it. A file that is not there has none.
fn lines(path: &Path) -> Result<Vec<String>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let mut reader = BufReader::new(file);
    let mut found = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.pop() != Some(b'\n') {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        found.push(text.trim_end_matches('\r').to_owned());
        line.clear();
    }
    Ok(found)
}
