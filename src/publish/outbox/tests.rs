//! The outbox against real files, a disk that fails, and a process that is killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::failing::{Mood, Switch};
use super::queue::Queue;
use super::*;
use crate::event::{EndReason, EventType, SCHEMA};
use crate::moment::Clock;

#[path = "../../../tests/support/event.rs"]
pub(super) mod example;

const ROOMY: config::Outbox = config::Outbox {
    max_events: 1000,
    max_bytes: 1 << 20,
    expire_after: Duration::from_secs(86_400),
};

fn confirmed(id: &str) -> NewEvent {
    NewEvent {
        event: Box::new(example::event(id)),
        evidence: None,
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

fn pictured(id: &str, bytes: usize) -> NewEvent {
    let mut new = confirmed(id);
    new.event.evidence = Some(id.to_owned());
    new.evidence = Some(vec![7; bytes]);
    new
}

/// Everything that waits, in order: sequence and id.
fn waiting(outbox: &Outbox) -> Vec<(u64, String)> {
    let mut busy = BTreeSet::new();
    let mut found = Vec::new();
    while let Some(ready) = outbox.next_ready(&busy) {
        assert_eq!(ready.event.sequence, ready.sequence);
        busy.insert(ready.sequence);
        found.push((ready.sequence, ready.event.id));
    }
    found
}

fn ids(outbox: &Outbox) -> Vec<String> {
    waiting(outbox).into_iter().map(|(_, id)| id).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn events_wait_in_order_until_they_are_acknowledged() {
    let folder = folder();
    let outbox = Outbox::open(folder.path(), ROOMY);
    assert_eq!(outbox.append(vec![confirmed("a"), confirmed("b")]), [1, 2]);
    assert_eq!(outbox.append(vec![ended("a")]), [3]);
    assert_eq!(ids(&outbox), ["a", "b", "a"]);
    outbox.acknowledge(2);
    outbox.acknowledge(2);
    outbox.acknowledge(99);
    assert_eq!(waiting(&outbox), [(1, "a".to_owned()), (3, "a".to_owned())]);
    let health = outbox.health();
    assert_eq!(
        (health.length, health.dropped, health.durable),
        (2, 0, true)
    );
}

#[test]
fn a_restart_keeps_events_open_events_and_the_sequence() {
    let folder = folder();
    let outbox = Outbox::open(folder.path(), ROOMY);
    outbox.append(vec![confirmed("a"), pictured("b", 500), ended("a")]);
    outbox.acknowledge(1);
    outbox.flush();
    drop(outbox);

    let outbox = Outbox::open(folder.path(), ROOMY);
    assert_eq!(waiting(&outbox), [(2, "b".to_owned()), (3, "a".to_owned())]);
    assert_eq!(
        outbox.open_events(),
        [("b".to_owned(), json!({"zone": "b"}))]
    );
    let ready = outbox.next_ready(&BTreeSet::new()).unwrap();
    assert_eq!(ready.evidence.map(|jpeg| jpeg.len()), Some(500));
    outbox.acknowledge(2);
    outbox.acknowledge(3);
    outbox.flush();
    drop(outbox);

    let outbox = Outbox::open(folder.path(), ROOMY);
    assert_eq!(outbox.health().length, 0);
    assert_eq!(
        outbox.append(vec![ended("b")]),
        [4],
        "also when nothing waits"
    );
    assert_eq!(outbox.open_events(), []);
}

#[test]
fn a_full_outbox_drops_the_oldest_and_counts_it() {
    let folder = folder();
    let limits = config::Outbox {
        max_events: 3,
        ..ROOMY
    };
    let outbox = Outbox::open(folder.path(), limits);
    for id in ["a", "b", "c", "d", "e"] {
        outbox.append(vec![confirmed(id)]);
    }
    assert_eq!(ids(&outbox), ["c", "d", "e"]);
    assert_eq!(outbox.health().dropped, 2);
    drop(outbox);
    assert_eq!(ids(&Outbox::open(folder.path(), limits)), ["c", "d", "e"]);
    let fewer = config::Outbox {
        max_events: 1,
        ..ROOMY
    };
    assert_eq!(ids(&Outbox::open(folder.path(), fewer)), ["e"]);
}

#[test]
fn old_pictures_make_room_before_events_do() {
    let folder = folder();
    let limits = config::Outbox {
        max_bytes: 65_536,
        ..ROOMY
    };
    let outbox = Outbox::open(folder.path(), limits);
    outbox.append(vec![pictured("a", 30_000)]);
    outbox.append(vec![pictured("b", 30_000)]);
    outbox.append(vec![pictured("c", 30_000)]);
    outbox.append(vec![pictured("d", MAX + 1)]);
    assert_eq!(ids(&outbox), ["a", "b", "c", "d"]);
    let health = outbox.health();
    assert_eq!((health.dropped, health.pictures_dropped), (0, 2));
    assert!(health.bytes <= 65_536);
    let first = outbox.next_ready(&BTreeSet::new()).unwrap();
    assert_eq!(
        (first.evidence, first.event.evidence),
        (None, None),
        "it names no lost picture"
    );

    for n in 0..200 {
        outbox.append(vec![confirmed(&format!("x{n}"))]);
    }
    let health = outbox.health();
    assert!(health.bytes <= 65_536 && health.dropped > 0);
    assert_eq!(health.length + health.dropped, 204);
}

const MAX: usize = crate::publish::MAX_PICTURE_BYTES;

#[test]
fn what_is_too_old_is_dropped_and_counted() {
    let folder = folder();
    let limits = config::Outbox {
        expire_after: Duration::from_secs(7200),
        ..ROOMY
    };
    let outbox = Outbox::open(folder.path(), limits);
    outbox.append(vec![pictured("a", 100)]);
    outbox.lock().age_by(Duration::from_secs(3601));
    outbox.append(vec![confirmed("b")]);
    let first = outbox.next_ready(&BTreeSet::new()).unwrap();
    assert_eq!(
        (first.event.id.as_str(), first.evidence),
        ("a", None),
        "pictures: one hour"
    );
    assert!(first.remaining <= Duration::from_secs(3599));
    outbox.lock().age_by(Duration::from_secs(3600));
    assert_eq!(ids(&outbox), ["b"]);
    outbox.lock().age_by(Duration::from_secs(3601));
    outbox.tend();
    let health = outbox.health();
    assert_eq!((health.length, health.expired, health.dropped), (0, 2, 0));
    drop(outbox);
    assert_eq!(Outbox::open(folder.path(), limits).health().length, 0);
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_new_one_started() {
    for damage in [
        |bytes: &mut Vec<u8>| bytes.iter_mut().for_each(|byte| *byte = 0x5a),
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 3),
        |bytes: &mut Vec<u8>| bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0xff),
        |bytes: &mut Vec<u8>| bytes[0..64].fill(0),
    ] {
        let folder = folder();
        let path = folder.path().join("outbox.redb");
        let outbox = Outbox::open(folder.path(), ROOMY);
        outbox.append(vec![confirmed("a")]);
        drop(outbox);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();

        let outbox = Outbox::open(folder.path(), ROOMY);
        let health = outbox.health();
        assert_eq!((health.corrupt_files, health.durable), (1, true));
        assert!(folder.path().join("outbox.redb.corrupt-1").exists());
        let sequences = outbox.append(vec![confirmed("b")]);
        assert!(sequences[0] > 1, "the sequence must not start again");
        drop(outbox);
        assert_eq!(
            waiting(&Outbox::open(folder.path(), ROOMY)),
            [(sequences[0], "b".to_owned())]
        );
    }
}

#[test]
fn an_empty_file_after_a_power_cut_is_a_new_outbox() {
    let folder = folder();
    fs::write(folder.path().join("outbox.redb"), b"").unwrap();
    let outbox = Outbox::open(folder.path(), ROOMY);
    outbox.append(vec![confirmed("a")]);
    assert!(outbox.health().durable);
}

/// An outbox on a disk that can be made to refuse.
fn on_a_bad_disk(folder: &Path) -> (Outbox, Switch) {
    let switch = Switch::new();
    let opener = super::failing::opener(switch.clone());
    (Outbox::with(Queue::open(folder, ROOMY, opener)), switch)
}

#[test]
fn on_a_full_disk_new_events_wait_behind_the_stored_ones() {
    let folder = folder();
    let (outbox, disk) = on_a_bad_disk(folder.path());
    outbox.append(vec![confirmed("a"), pictured("b", 2000)]);
    outbox.append(vec![pictured("c", 3000)]);
    disk.set(Mood::Full);
    outbox.append(vec![confirmed("d")]);
    outbox.append(vec![pictured("e", 1000), ended("a")]);
    assert!(!outbox.health().durable);
    assert_eq!(ids(&outbox), ["a", "b", "c", "d", "e", "a"]);
    outbox.acknowledge(1);
    outbox.drop_picture(3);
    let second = outbox.next_ready(&BTreeSet::new()).unwrap();
    assert_eq!(second.evidence.map(|jpeg| jpeg.len()), Some(2000));
    let third = outbox.next_ready(&BTreeSet::from([2])).unwrap();
    assert_eq!((third.evidence, third.event.evidence), (None, None));
    outbox.lock().hurry();
    outbox.tend();
    assert!(!outbox.health().durable, "it is still full");
    assert_eq!(ids(&outbox), ["b", "c", "d", "e", "a"]);

    disk.set(Mood::Fine);
    outbox.lock().hurry();
    outbox.tend();
    let health = outbox.health();
    assert_eq!(
        (health.durable, health.dropped, health.pictures_dropped),
        (true, 0, 1)
    );
    drop(outbox);
    let outbox = Outbox::open(folder.path(), ROOMY);
    assert_eq!(ids(&outbox), ["b", "c", "d", "e", "a"]);
    let third = outbox.next_ready(&BTreeSet::from([2])).unwrap();
    assert_eq!(third.evidence, None, "it stays given up");
}

#[test]
fn what_waits_on_a_disk_that_is_full_at_the_start_is_sent_first() {
    let folder = folder();
    let outbox = Outbox::open(folder.path(), ROOMY);
    outbox.append(vec![confirmed("a"), confirmed("b")]);
    drop(outbox);
    let switch = Switch::new();
    switch.set(Mood::Full);
    let opener = super::failing::opener(switch.clone());
    let outbox = Outbox::with(Queue::open(folder.path(), ROOMY, opener));
    assert_eq!(outbox.append(vec![ended("a")]), [3]);
    assert!(!outbox.health().durable);
    assert_eq!(ids(&outbox), ["a", "b", "a"]);
    assert_eq!(outbox.open_events().len(), 1);
    outbox.acknowledge(1);
    switch.set(Mood::Fine);
    outbox.lock().hurry();
    outbox.tend();
    drop(outbox);
    assert_eq!(ids(&Outbox::open(folder.path(), ROOMY)), ["b", "a"]);
}

#[test]
fn a_disk_that_refuses_degrades_to_memory_and_comes_back() {
    let folder = folder();
    let (outbox, disk) = on_a_bad_disk(folder.path());
    outbox.append(vec![confirmed("a"), confirmed("b")]);
    disk.set(Mood::Gone);
    assert_eq!(outbox.append(vec![confirmed("c"), ended("a")]), [3, 4]);
    assert!(!outbox.health().durable);
    assert_eq!(
        ids(&outbox),
        ["c", "a"],
        "the rest is on the disk that is away"
    );
    outbox.acknowledge(3);
    assert_eq!(outbox.append(vec![confirmed("d")]), [5]);

    disk.set(Mood::Fine);
    outbox.lock().hurry();
    outbox.tend();
    assert!(outbox.health().durable);
    assert_eq!(ids(&outbox), ["a", "b", "a", "d"]);
    drop(outbox);
    let outbox = Outbox::open(folder.path(), ROOMY);
    assert_eq!(ids(&outbox), ["a", "b", "a", "d"]);
    let open: Vec<String> = outbox.open_events().into_iter().map(|(id, _)| id).collect();
    assert_eq!(open, ["b", "c", "d"]);
    assert_eq!(outbox.append(vec![ended("b")]), [6]);
}

#[test]
fn a_folder_that_is_not_there_at_first_is_used_once_it_is() {
    let folder = folder();
    let state = folder.path().join("state");
    let outbox = Outbox::open(&state, ROOMY);
    let sequences = outbox.append(vec![confirmed("a")]);
    assert!(!outbox.health().durable);
    assert!(
        sequences[0] > 1_000_000,
        "over whatever a disk we cannot read may have had"
    );
    fs::create_dir(&state).unwrap();
    let earlier = Outbox::open(&state, ROOMY);
    earlier.append(vec![confirmed("old")]);
    drop(earlier);
    outbox.lock().hurry();
    outbox.append(vec![confirmed("b")]);
    assert!(outbox.health().durable);
    assert_eq!(ids(&outbox), ["old", "a", "b"]);
}

/// The variable that makes this test binary the process that is killed.
const CHILD: &str = "VEDETTA_TEST_OUTBOX_CHILD";

#[test]
fn a_killed_process_loses_nothing_that_was_stored() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let outbox = Outbox::open(Path::new(&folder), ROOMY);
        for n in 0.. {
            outbox.append(vec![pictured(&format!("x{n}"), 2000)]);
            println!("stored {n}");
        }
    }
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    let folder = folder();
    for round in 0..2 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "a_killed_process_loses_nothing_that_was_stored",
                "--nocapture",
            ])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines
            .map_while(Result::ok)
            .filter(|line| line.contains("stored "));
        let mut said = lines.by_ref().take(20 + round).count();
        child.kill().unwrap();
        child.wait().unwrap();
        said += lines.count();

        let outbox = Outbox::open(folder.path(), ROOMY);
        let found = waiting(&outbox);
        assert!(found.len() >= said, "{} of {said}", found.len());
        assert!(found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
        assert_eq!(outbox.open_events().len(), found.len());
        assert_eq!(outbox.health().corrupt_files, 0);
        for (sequence, _) in found {
            outbox.acknowledge(sequence);
        }
        outbox.append((0..200).map(|n| ended(&format!("x{n}"))).collect());
        for (sequence, _) in waiting(&outbox) {
            outbox.acknowledge(sequence);
        }
        outbox.flush();
    }
}
