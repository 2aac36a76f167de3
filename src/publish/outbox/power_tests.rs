//! Power cuts, kills and failing disks at every step of everything the outbox writes: no event that was
//! stored and not acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::platter::{Fault, Platter};
use super::queue::Queue;
use super::tests::example;
use super::{NewEvent, Outbox};
use crate::config;
use crate::event::{EndReason, Event, EventType};

/// Nothing is dropped for want of room or for age: what is missing was lost.
const ROOMY: config::Outbox = config::Outbox {
    max_events: 100_000,
    max_bytes: 1 << 30,
    expire_after: Duration::from_secs(86_400),
};

/// What is done with an outbox.
#[derive(Clone, Debug)]
enum Deed {
    /// Events begin, with pictures of so many bytes.
    Confirm(Vec<usize>),
    /// The oldest that is open ends.
    End,
    /// The broker acknowledges the n-th that waits.
    Acknowledge(usize),
    /// The picture of the n-th is given up.
    DropPicture(usize),
    /// Deletions are written.
    Flush,
    /// Half a minute later.
    Tend,
    /// Closed and opened.
    Reopen,
}

/// How it is disturbed.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// The power is cut at this step.
    Cut(usize),
    /// The process is killed at this step.
    Kill(usize),
    /// A step fails, once.
    Fail(usize),
    /// The disk is full from this step on, until it is told otherwise.
    Fill(usize),
    /// The power is cut when it is done.
    CutAfter,
    /// The process is killed when it is done.
    KillAfter,
    None,
}

fn deed() -> impl Strategy<Value = Deed> {
    let picture = prop_oneof![3 => Just(0), 1 => 1_usize..9000];
    prop_oneof![
        5 => prop::collection::vec(picture, 1..4).prop_map(Deed::Confirm),
        3 => Just(Deed::End),
        4 => (0_usize..8).prop_map(Deed::Acknowledge),
        1 => (0_usize..8).prop_map(Deed::DropPicture),
        1 => Just(Deed::Flush),
        2 => Just(Deed::Tend),
        1 => Just(Deed::Reopen),
    ]
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    prop_oneof![
        2 => (0_usize..40).prop_map(Disturbance::Cut),
        2 => (0_usize..40).prop_map(Disturbance::Kill),
        1 => (0_usize..40).prop_map(Disturbance::Fail),
        1 => (0_usize..20).prop_map(Disturbance::Fill),
        1 => Just(Disturbance::CutAfter),
        1 => Just(Disturbance::KillAfter),
        3 => Just(Disturbance::None),
    ]
}

/// An outbox on a disk, and what has to be in it.
struct Story {
    platter: Platter,
    outbox: Option<Outbox>,
    /// Whatever was ever given in: sequence and id. One sequence may stand for several events when
    /// those before were never stored.
    given: BTreeMap<u64, BTreeSet<String>>,
    /// What waits, as far as this run of the process knows.
    waiting: BTreeMap<u64, String>,
    /// Of these the outbox said that they are on disk, and nobody acknowledged them.
    promised: BTreeMap<u64, String>,
    /// Ids that began and did not end, on disk.
    promised_open: BTreeSet<String>,
    open: Vec<String>,
    next_id: u32,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut story = Self {
            platter: Platter::new(seed),
            outbox: None,
            given: BTreeMap::new(),
            waiting: BTreeMap::new(),
            promised: BTreeMap::new(),
            promised_open: BTreeSet::new(),
            open: Vec::new(),
            next_id: 0,
        };
        story.start();
        story
    }

    fn outbox(&self) -> &Outbox {
        self.outbox.as_ref().expect("it runs")
    }

    /// The process starts, finds what it finds, and goes on from there.
    fn start(&mut self) {
        let queue = Queue::open(Path::new("/outbox"), ROOMY, self.platter.opener());
        let outbox = Outbox::with(queue);
        let health = outbox.health();
        assert_eq!((health.corrupt_files, health.dropped), (0, 0));
        assert!(health.durable, "the disk works");
        self.waiting = waiting(&outbox);
        for (sequence, id) in &self.waiting {
            assert!(
                self.given[sequence].contains(id),
                "{sequence} {id} was never given in"
            );
        }
        for (sequence, id) in &self.promised {
            assert_eq!(
                self.waiting.get(sequence),
                Some(id),
                "event {sequence} is lost"
            );
        }
        let open: BTreeSet<String> = outbox.open_events().into_iter().map(|(id, _)| id).collect();
        for id in &self.promised_open {
            assert!(open.contains(id), "nobody knows that {id} is open");
        }
        let next = outbox.next_sequence();
        assert!(
            self.promised.keys().all(|sequence| *sequence < next),
            "a sequence comes twice"
        );
        self.open = open.into_iter().collect();
        self.outbox = Some(outbox);
        self.promise();
    }

    /// Takes down what the outbox promises.
    fn promise(&mut self) {
        let outbox = self.outbox();
        if !outbox.health().durable {
            return;
        }
        assert_eq!(waiting(outbox), self.waiting, "while it runs");
        self.promised = self.waiting.clone();
        self.promised_open = self.open.iter().cloned().collect();
    }

    fn carry_out(&mut self, deed: &Deed) {
        match deed {
            Deed::Confirm(pictures) => {
                let mut batch = Vec::new();
                for bytes in pictures {
                    let id = format!("x{}", self.next_id);
                    self.next_id += 1;
                    batch.push(confirmed(&id, *bytes));
                    self.open.push(id);
                }
                self.give(batch);
            }
            Deed::End => {
                if !self.open.is_empty() {
                    let id = self.open.remove(0);
                    // Whether it is on disk as open or as ended is both right until that is said.
                    self.promised_open.remove(&id);
                    self.give(vec![ended(&id)]);
                }
            }
            Deed::Acknowledge(n) => {
                if let Some(sequence) = self.waiting.keys().nth(*n).copied() {
                    self.waiting.remove(&sequence);
                    self.promised.remove(&sequence);
                    self.outbox().acknowledge(sequence);
                }
            }
            Deed::DropPicture(n) => {
                if let Some(sequence) = self.waiting.keys().nth(*n).copied() {
                    self.outbox().drop_picture(sequence);
                }
            }
            Deed::Flush => self.outbox().flush(),
            Deed::Tend => {
                self.outbox().lock().hurry();
                self.outbox().tend();
            }
            Deed::Reopen => self.outbox = None,
        }
    }

    fn give(&mut self, batch: Vec<NewEvent>) {
        let ids: Vec<String> = batch.iter().map(|new| new.event.id.clone()).collect();
        let sequences = self.outbox().append(batch);
        for (sequence, id) in sequences.into_iter().zip(ids) {
            self.given.entry(sequence).or_default().insert(id.clone());
            self.waiting.insert(sequence, id);
        }
    }

    fn go_on(&mut self, deed: &Deed, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Cut(at) | Disturbance::Kill(at) => {
                self.platter.set_fault(at, Fault::Stops)
            }
            Disturbance::Fail(at) => self.platter.set_fault(at, Fault::Fails),
            Disturbance::Fill(at) => self.platter.set_fault(at, Fault::Fills),
            Disturbance::CutAfter | Disturbance::KillAfter | Disturbance::None => {
                self.platter.mend();
            }
        }
        self.carry_out(deed);
        let stopped = self.platter.stopped();
        if !stopped && self.outbox.is_some() {
            self.promise();
        }
        match disturbance {
            Disturbance::Cut(_) if stopped => self.crash(true),
            Disturbance::Kill(_) if stopped => self.crash(false),
            Disturbance::CutAfter => self.crash(true),
            Disturbance::KillAfter => self.crash(false),
            _ if self.outbox.is_none() => {
                self.platter.restart();
                self.start();
            }
            _ => {}
        }
    }

    /// Nothing more reaches the disk; the process starts again.
    fn crash(&mut self, power: bool) {
        self.platter.set_fault(0, Fault::Stops);
        self.outbox = None;
        match power {
            true => self.platter.cut_power(),
            false => self.platter.restart(),
        }
        self.start();
    }
}

/// Everything that waits: sequence and id.
fn waiting(outbox: &Outbox) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    let mut busy = BTreeSet::new();
    while let Some(ready) = outbox.next_ready(&busy) {
        assert!(
            found
                .last_key_value()
                .is_none_or(|(last, _)| *last < ready.sequence),
            "out of order"
        );
        busy.insert(ready.sequence);
        found.insert(ready.sequence, ready.event.id);
    }
    found
}

fn confirmed(id: &str, picture_bytes: usize) -> NewEvent {
    NewEvent {
        event: Box::new(example::event(id)),
        evidence: (picture_bytes > 0).then(|| vec![7; picture_bytes]),
        open: Some(json!({"zone": id})),
    }
}

fn ended(id: &str) -> NewEvent {
    NewEvent {
        event: Box::new(Event {
            kind: EventType::Ended,
            reason: Some(EndReason::Left),
            ..example::event(id)
        }),
        evidence: None,
        open: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_stored_event_is_lost(
        seed: u64,
        story in prop::collection::vec((deed(), disturbance()), 1..16),
    ) {
        let mut so_far = Story::new(seed);
        for (deed, disturbance) in &story {
            so_far.go_on(deed, *disturbance);
        }
        so_far.crash(seed % 2 == 0);
    }
}

#[test]
fn every_step_of_a_write_may_be_the_last() {
    let prepared = |seed| {
        let mut story = Story::new(seed);
        for pictures in [vec![0, 3000], vec![0]] {
            story.go_on(&Deed::Confirm(pictures), Disturbance::None);
        }
        story.go_on(&Deed::Acknowledge(0), Disturbance::None);
        story
    };
    let deed = Deed::Confirm(vec![0, 5000]);
    let mut whole = prepared(0);
    let before = whole.platter.steps();
    whole.carry_out(&deed);
    let steps = whole.platter.steps() - before;
    assert!(steps > 3, "{steps} steps");
    for seed in 0..8 {
        for at in 0..steps {
            for disturbance in [
                Disturbance::Cut(at),
                Disturbance::Kill(at),
                Disturbance::Fail(at),
                Disturbance::Fill(at),
            ] {
                let mut story = prepared(seed);
                story.go_on(&deed, disturbance);
                story.go_on(&Deed::Tend, Disturbance::None);
                story.crash(true);
            }
        }
    }
}
