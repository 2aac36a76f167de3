use super::*;

const SECOND: Duration = Duration::from_secs(1);
const UNO: &str = "0001-uno-0123456789ab";
const DUE: &str = "0002-due-0123456789ab";
const TRE: &str = "0003-tre-0123456789ab";

fn change(store: &Store, change: impl FnOnce(&Pointer) -> Pointer) -> Pointer {
    let lock = store.lock().unwrap();
    store.change(&lock, change).unwrap()
}

fn folder(name: &str) -> Folder {
    Folder::parse(name).unwrap()
}

/// A daemon that runs `due` on trial, `uno` before it proved.
fn on_trial() -> (tempfile::TempDir, Updates) {
    let state = tempfile::tempdir().unwrap();
    let mut updates = Updates {
        store: Store::open(state.path()),
        record: Arc::default(),
        trial: None,
        worker: None,
    };
    change(&updates.store, |pointer| {
        let proved = pointer.installed(folder(UNO)).confirmed();
        proved.installed(folder(DUE)).started()
    });
    let running = updates.store.root().join(DUE);
    updates.adopted(&running, Duration::ZERO, SECOND);
    assert!(updates.trial.is_some());
    (state, updates)
}

fn named(folder: Option<&Folder>) -> Option<&str> {
    folder.map(Folder::as_str)
}

#[test]
fn what_was_installed_meanwhile_is_not_proved_by_what_runs() {
    let (_state, mut updates) = on_trial();
    let other = change(&updates.store, |pointer| pointer.installed(folder(TRE)));
    (0..100).for_each(|_| updates.record.scored());
    assert_eq!(updates.judge(2 * SECOND, true), Judgement::Open);
    updates.excuse();
    assert_eq!(updates.store.pointer(), other);
    assert_eq!(named(other.current.as_ref()), Some(TRE));
    assert!(other.on_trial());
}

#[test]
fn what_was_rolled_back_to_meanwhile_is_not_blamed_for_what_runs() {
    let (_state, mut updates) = on_trial();
    let back = change(&updates.store, |pointer| pointer.rolled_back().unwrap());
    (0..100).for_each(|_| updates.record.failed());
    let failed = updates.judge(SECOND, true);
    let Judgement::Failed(reason) = failed else {
        panic!("{failed:?}");
    };
    let running = updates.store.root().join(DUE);
    updates.give_up(&running, &reason).unwrap();
    assert_eq!(updates.store.pointer(), back);
    assert_eq!(named(back.current.as_ref()), Some(UNO));
}

#[test]
fn a_trial_whose_bundle_is_still_the_current_one_counts() {
    let (_state, mut updates) = on_trial();
    (0..10).for_each(|_| updates.record.scored());
    assert_eq!(updates.judge(SECOND, true), Judgement::Proved);
    assert!(!updates.store.pointer().on_trial());

    let (_state, mut updates) = on_trial();
    let running = updates.store.root().join(DUE);
    updates.give_up(&running, "as a test").unwrap();
    let pointer = updates.store.pointer();
    assert_eq!(named(pointer.current.as_ref()), Some(UNO));
    assert_eq!(pointer.failed.unwrap().reason, "as a test");
}
