//! Power cuts, kills and failing disks at every step of everything the store does.

use std::path::Path;

use proptest::prelude::*;

use super::model::{Fault, Model};
use super::*;

/// What is done with a store.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Install(u8),
    RollBack,
    Start,
    Excuse,
    Confirm,
    GiveUp,
    Clean,
}

/// How it is disturbed.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// Not at all, but the power is cut when it is done.
    CutAfter,
    /// The power is cut at this step.
    Cut(usize),
    /// The process is killed at this step.
    Kill(usize),
    /// The disk fails at this step, once.
    Fail(usize),
    None,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0u8..8).prop_map(Deed::Install),
        2 => Just(Deed::RollBack),
        2 => Just(Deed::Start),
        1 => Just(Deed::Excuse),
        2 => Just(Deed::Confirm),
        1 => Just(Deed::GiveUp),
        1 => Just(Deed::Clean),
    ]
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    prop_oneof![
        (0usize..32).prop_map(Disturbance::Cut),
        (0usize..32).prop_map(Disturbance::Kill),
        (0usize..32).prop_map(Disturbance::Fail),
        Just(Disturbance::CutAfter),
        Just(Disturbance::None),
    ]
}

const FILES: [&str; 3] = ["image.onnx", "text.onnx", "LICENSES.md"];

fn content(bundle: u8, name: &str) -> Vec<u8> {
    format!("{name} of {bundle}, ")
        .repeat(usize::from(bundle) + 1)
        .into_bytes()
}

fn sha256(bundle: u8) -> String {
    format!("{bundle:02x}").repeat(32)
}

fn bundle_of(folder: &Folder) -> u8 {
    let hash = folder.as_str().rsplit_once('-').unwrap().1;
    u8::from_str_radix(&hash[..2], 16).unwrap()
}

fn store(model: &Model) -> Store {
    Store::on(Box::new(model.clone()), Path::new("/"))
}

/// Bundles 1 to `bundles` were installed and proved; then the pointer became `rot`.
fn damaged(model: &Model, bundles: u8, rot: &str) -> Store {
    let store = store(model);
    for bundle in 1..=bundles {
        carry_out(&store, Deed::Install(bundle)).unwrap();
        carry_out(&store, Deed::Confirm).unwrap();
    }
    let path = store.root.join(POINTER);
    model.write(&path, &mut rot.as_bytes()).unwrap();
    store
}

/// As the daemon and the command line do it.
fn carry_out(store: &Store, deed: Deed) -> Result<Pointer, StoreError> {
    let lock = store.lock()?;
    match deed {
        Deed::Install(bundle) => {
            store.reserve(100)?;
            let folder = store.put_down(&lock, |shelf| {
                for name in FILES {
                    let content = content(bundle, name);
                    shelf
                        .put(name, &mut &content[..])
                        .map_err(|error| failed(Path::new(name), "written", error))?;
                }
                Ok(content(bundle, MANIFEST))
            })?;
            store.put_in_place(&lock, &folder, "prova", &sha256(bundle))
        }
        Deed::RollBack => store.roll_back(&lock),
        Deed::Start => store.change(&lock, Pointer::started),
        Deed::Excuse => store.change(&lock, Pointer::excused),
        Deed::Confirm => store.change(&lock, Pointer::confirmed),
        Deed::GiveUp => store.change(&lock, |pointer| pointer.failed("a test")),
        Deed::Clean => store.clean(&lock).map(|()| store.pointer()),
    }
}

/// What the pointer may say afterwards, besides what it said before.
fn intended(before: &Pointer, deed: Deed) -> Pointer {
    match deed {
        Deed::Install(bundle) => {
            // The serial depends on what is lying about.
            before.installed(Folder::new(0, "prova", &sha256(bundle)).unwrap())
        }
        Deed::RollBack => before.rolled_back().unwrap_or_else(|| before.clone()),
        Deed::Start => before.started(),
        Deed::Excuse => before.excused(),
        Deed::Confirm => before.confirmed(),
        Deed::GiveUp => before.failed("a test"),
        Deed::Clean => before.clone(),
    }
}

fn alike(a: &Pointer, b: &Pointer) -> bool {
    let ids = |p: &Pointer| [&p.current, &p.previous].map(|f| f.as_ref().map(bundle_of));
    ids(a) == ids(b) && a.trial_starts == b.trial_starts && a.failed == b.failed
}

/// Every bundle that the pointer names is there, whole.
fn assert_complete(model: &Model, when: &str) -> Pointer {
    let store = store(model);
    if let Ok(bytes) = model.read(&store.root.join(POINTER), MAX_POINTER_BYTES) {
        Pointer::parse(&bytes).unwrap_or_else(|error| panic!("{when}: the pointer {error}"));
    }
    let pointer = store.pointer();
    for folder in [&pointer.current, &pointer.previous].into_iter().flatten() {
        let bundle = bundle_of(folder);
        for name in FILES.into_iter().chain([MANIFEST]) {
            let path = store.path(folder).join(name);
            let found = model.read(&path, 1 << 20);
            let found = found.unwrap_or_else(|error| panic!("{when}: {path:?}: {error}"));
            assert_eq!(found, content(bundle, name), "{when}: {path:?}");
        }
    }
    pointer
}

fn tidy(model: &Model) {
    let store = store(model);
    if !store.exists() {
        return;
    }
    store.clean(&store.lock().unwrap()).unwrap();
    let pointer = store.pointer();
    for name in model.list(&store.root).unwrap() {
        let needed = Folder::parse(&name).is_some_and(|folder| pointer.refers_to(&folder));
        assert!(
            needed || [POINTER, LOCK].contains(&name.as_str()),
            "{name} is left over"
        );
    }
}

/// A file system, and what the pointer on disk may say: more than one thing after a process was
/// killed, or the disk failed, between writing and making safe.
struct Story {
    model: Model,
    possible: Vec<Pointer>,
}

impl Story {
    fn new(seed: u64) -> Self {
        Self {
            model: Model::new(seed),
            possible: vec![Pointer::default()],
        }
    }

    fn is_possible(&self, pointer: &Pointer) -> bool {
        self.possible.iter().any(|one| alike(one, pointer))
    }

    fn go_on(&mut self, deed: Deed, disturbance: Disturbance) {
        let model = self.model.clone();
        let store = store(&model);
        let before = store.pointer();
        match disturbance {
            Disturbance::Cut(at) | Disturbance::Kill(at) => model.set_fault(at, Fault::Stops),
            Disturbance::Fail(at) => model.set_fault(at, Fault::Fails),
            Disturbance::CutAfter | Disturbance::None => {}
        }
        let outcome = carry_out(&store, deed);
        let stopped = model.stopped();
        self.possible
            .extend([before.clone(), intended(&before, deed)]);
        let cut = match disturbance {
            Disturbance::Cut(_) => stopped,
            Disturbance::CutAfter => true,
            _ => false,
        };
        match cut {
            true => model.cut_power(),
            false => model.restart(),
        }
        let after = assert_complete(&model, "afterwards");
        match &outcome {
            Ok(promised) if !stopped => {
                assert_eq!(&after, promised, "what was promised");
                self.possible = vec![after.clone()];
            }
            _ => assert!(self.is_possible(&after), "{after:?} of {:?}", self.possible),
        }
        if cut {
            self.possible = vec![after];
        }
        // What a process sees may still be lost with the power, at any time.
        let copy = model.copy();
        copy.cut_power();
        let found = assert_complete(&copy, "after a later power cut");
        assert!(self.is_possible(&found), "{found:?} of {:?}", self.possible);
        tidy(&copy);
        assert_complete(&copy, "when it is tidy");
    }

    /// The first thing the next start does.
    fn tidy(&mut self) {
        tidy(&self.model);
        let pointer = assert_complete(&self.model, "when it is tidy");
        assert!(self.is_possible(&pointer));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_there_is_a_complete_current_bundle(
        seed: u64,
        story in proptest::collection::vec((deed(), disturbance(), any::<bool>()), 1..12),
    ) {
        let mut so_far = Story::new(seed);
        for (deed, disturbance, tidies) in story {
            so_far.go_on(deed, disturbance);
            if tidies {
                so_far.tidy();
            }
        }
    }
}

#[test]
fn every_step_of_an_installation_may_be_the_last() {
    let prepared = |seed| {
        let mut story = Story::new(seed);
        for bundle in [1, 2] {
            story.go_on(Deed::Install(bundle), Disturbance::None);
            story.go_on(Deed::Confirm, Disturbance::None);
        }
        story
    };
    let whole = prepared(0).model;
    let steps = whole.steps();
    carry_out(&store(&whole), Deed::Install(3)).unwrap();
    let steps = whole.steps() - steps;
    assert!(steps > 20, "{steps} steps");
    for seed in 0..20 {
        for at in 0..steps {
            for disturbance in [
                Disturbance::Cut(at),
                Disturbance::Kill(at),
                Disturbance::Fail(at),
            ] {
                prepared(seed).go_on(Deed::Install(3), disturbance);
            }
        }
    }
}

#[test]
fn two_bundles_are_kept_and_older_ones_removed() {
    let model = Model::new(1);
    let store = store(&model);
    for bundle in 1..=4 {
        carry_out(&store, Deed::Install(bundle)).unwrap();
        carry_out(&store, Deed::Confirm).unwrap();
    }
    let kept: Vec<u8> = store.folders().iter().map(bundle_of).collect();
    assert_eq!(kept, [3, 4]);
    let pointer = carry_out(&store, Deed::RollBack).unwrap();
    assert_eq!(bundle_of(&pointer.current.unwrap()), 3);
}

#[test]
fn a_full_disk_is_said_before_anything_is_written() {
    let model = Model::new(1);
    model.set_free_bytes(1000);
    let error = carry_out(&store(&model), Deed::Install(1)).unwrap_err();
    assert!(
        matches!(error, StoreError::Full { free: 1000, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("make room"), "{error}");
    tidy(&model);
}

#[test]
fn a_damaged_pointer_is_made_anew_from_complete_bundles() {
    let model = Model::new(1);
    let store = damaged(&model, 2, "{\"schema\":1,\"cur");
    let pointer = store.pointer();
    assert_eq!(pointer.current.as_ref().map(bundle_of), Some(2));
    assert_eq!(pointer.previous.as_ref().map(bundle_of), Some(1));
    tidy(&model);
    assert_eq!(store.folders().len(), 2);
}

#[test]
fn an_installation_over_a_damaged_pointer_keeps_the_bundle_before() {
    let model = Model::new(1);
    let store = damaged(&model, 2, "rot");
    let pointer = carry_out(&store, Deed::Install(3)).unwrap();
    assert_eq!(pointer.current.as_ref().map(bundle_of), Some(3));
    assert_eq!(pointer.previous.as_ref().map(bundle_of), Some(2));
    assert!(pointer.on_trial());
    let kept: Vec<u8> = store.folders().iter().map(bundle_of).collect();
    assert_eq!(kept, [2, 3]);
}

#[test]
fn a_damaged_pointer_is_written_anew_by_whoever_changes_the_store() {
    let model = Model::new(1);
    let store = damaged(&model, 1, "rot");
    let lock = store.lock().unwrap();
    let rebuilt = store.change(&lock, Pointer::clone).unwrap();
    let written = model
        .read(&store.root.join(POINTER), MAX_POINTER_BYTES)
        .unwrap();
    assert_eq!(Pointer::parse(&written), Ok(rebuilt));
}
