//! The daemon itself gets another bundle: over MQTT, from an HTTPS server, proved or given up.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::{Value, json};
use vedetta::event::{BundleSource, Info, SignatureRule};

use crate::board::Board;
use crate::device::BASE;
use crate::download::{packed, sha256};
use crate::server::Answer;
use crate::tiny_bundle;

const UNSIGNED: &str = "require_signature = false\ntrial_s = 1";

#[test]
fn a_bundle_is_installed_proves_itself_and_is_rolled_back() {
    // The server waits in the middle of the download.
    let (go_on, wait): (SyncSender<()>, _) = mpsc::sync_channel(1);
    let wait = Mutex::new(wait);
    let Some(board) = Board::start(UNSIGNED, move |file, asked| {
        wait.lock().unwrap().recv().unwrap();
        Answer::file(file, asked)
    }) else {
        return;
    };
    let (seen, info) = board.info(0, |_| true);
    assert!(info.bundle.starts_with("tiny@"), "{info:?}");
    assert_eq!(info.update.source, BundleSource::Shipped);
    assert_eq!(info.update.signature, SignatureRule::Off);

    board.ask_install("a", &sha256(&board.file));
    let topic = format!("{BASE}/reply/install-bundle");
    board
        .listener
        .wait(&topic, |heard| heard.json()["stage"] == "started");
    // While it downloads everything else goes on, and a second one has to wait.
    board.ask("pause", &json!({"id": 1, "seconds": 0}));
    board
        .listener
        .wait(&format!("{BASE}/reply/pause"), |heard| {
            heard.json()["ok"] == true
        });
    board.ask_install("b", &sha256(&board.file));
    assert_eq!(board.outcome("b")["code"], "busy");
    go_on.send(()).unwrap();

    let outcome = board.outcome("a");
    assert_eq!(outcome["ok"], true, "{outcome}");
    assert!(outcome["bundle"].as_str().unwrap().starts_with("nuovo@"));
    let is_new = |info: &Info| info.bundle.starts_with("nuovo@");
    let (seen, info) = board.info(seen, is_new);
    assert_eq!(info.update.source, BundleSource::Installed);
    assert_eq!(info.update.previous.as_deref(), Some("shipped"));
    let (seen, _) = board.info(seen - 1, |info| is_new(info) && !info.update.trial);

    let rolled_back = |id: u32| {
        board.ask("rollback-bundle", &json!({"id": id}));
        let topic = format!("{BASE}/reply/rollback-bundle");
        let reply = board
            .listener
            .wait(&topic, |heard| heard.json()["id"] == id)
            .json();
        assert_eq!(reply["ok"], true, "{reply}");
    };
    rolled_back(2);
    let (seen, info) = board.info(seen, |info| info.bundle.starts_with("tiny@"));
    assert!(info.update.previous.unwrap().starts_with("nuovo@"));
    rolled_back(3);
    board.info(seen, is_new);
}

#[test]
fn a_bundle_that_does_not_survive_three_starts_is_given_up() {
    let update = "require_signature = false\ntrial_s = 3600";
    let Some(mut board) = Board::start(update, Answer::file) else {
        return;
    };
    let (seen, _) = board.info(0, |_| true);
    board.ask_install("a", &sha256(&board.file));
    assert_eq!(board.outcome("a")["ok"], true);
    let (mut seen, info) = board.info(seen, |info| info.bundle.starts_with("nuovo@"));
    assert!(info.update.trial);
    // A stop on purpose says nothing about the bundle.
    for _ in 0..4 {
        board.signal(Signal::TERM);
        board.power_on();
        let (now, info) = board.info(seen, |_| true);
        assert!(info.update.trial, "{info:?}");
        seen = now;
    }
    // The start that was going on counts when its power is cut.
    for _ in 0..2 {
        board.cut_power();
        board.power_on();
        let (now, info) = board.info(seen, |_| true);
        assert!(
            info.bundle.starts_with("nuovo@") && info.update.trial,
            "{info:?}"
        );
        seen = now;
    }
    board.cut_power();
    board.power_on();
    let (_, info) = board.info(seen, |_| true);
    assert!(info.bundle.starts_with("tiny@"), "{info:?}");
    let failed = info.update.failed.unwrap();
    assert!(failed.bundle.starts_with("nuovo@"), "{failed:?}");
    assert!(failed.reason.contains("3 starts"), "{failed:?}");
}

#[test]
fn an_installed_bundle_that_rots_on_the_disk_is_given_up_at_the_next_start() {
    let Some(mut board) = Board::start(UNSIGNED, Answer::file) else {
        return;
    };
    let (seen, _) = board.info(0, |_| true);
    board.ask_install("a", &sha256(&board.file));
    assert_eq!(board.outcome("a")["ok"], true);
    let is_kept = |info: &Info| info.bundle.starts_with("nuovo@") && !info.update.trial;
    let (seen, _) = board.info(seen, is_kept);
    board.cut_power();
    let bundles = fs::read_dir(board.path("state/bundles")).unwrap();
    let folder = bundles
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir());
    fs::write(folder.unwrap().join("image.onnx"), "rot").unwrap();
    board.power_on();
    let (_, info) = board.info(seen, |_| true);
    assert!(info.bundle.starts_with("tiny@"), "{info:?}");
    assert!(info.update.failed.unwrap().reason.contains("image.onnx"));
}

#[test]
fn what_is_refused_is_answered_with_the_reason() {
    let Some(board) = Board::start(UNSIGNED, Answer::file) else {
        return;
    };
    board.info(0, |_| true);
    let refused = |id: &str, payload: Value| {
        board.ask("install-bundle", &payload);
        let outcome = board.outcome(id);
        assert_eq!(outcome["ok"], false, "{outcome}");
        outcome["code"].as_str().unwrap().to_owned()
    };
    let hash = sha256(&board.file);
    let (url, plain) = (board.server.url("a"), "http://127.0.0.1/a");
    let wrong = "0".repeat(64);
    assert_eq!(
        refused("1", json!({"id": "1", "url": plain, "sha256": hash})),
        "bad-request"
    );
    assert_eq!(
        refused("2", json!({"id": "2", "url": url, "sha256": "ab"})),
        "bad-request"
    );
    assert_eq!(refused("3", json!({"id": "3", "url": url})), "bad-request");
    assert_eq!(
        refused("4", json!({"id": "4", "url": url, "sha256": wrong})),
        "wrong-hash"
    );
    board.ask("rollback-bundle", &json!({"id": "5"}));
    let topic = format!("{BASE}/reply/rollback-bundle");
    assert_eq!(
        board.listener.wait(&topic, |_| true).json()["code"],
        "no-other"
    );
}

#[test]
fn a_bundle_from_the_command_line_is_taken_at_a_reload() {
    let Some(mut board) = Board::start(UNSIGNED, Answer::file) else {
        return;
    };
    let (seen, _) = board.info(0, |_| true);
    fs::write(board.path("nuovo.tar.zst"), &board.file).unwrap();
    let config = board.path("vedetta.toml");
    let bundle = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vedetta"));
        let command = command.arg("bundle").args(arguments).arg("--config");
        let command = command
            .arg(&config)
            .env("VEDETTA_MODELS", board.path("models"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let file = board.path("nuovo.tar.zst");
    let said = bundle(&["install", file.to_str().unwrap()]);
    assert!(said.contains("systemctl reload vedetta"), "{said}");
    let said = bundle(&["list"]);
    assert!(
        said.contains("in use, on trial") && said.contains("for rollback"),
        "{said}"
    );
    board.signal(Signal::HUP);
    let is_kept = |info: &Info| info.bundle.starts_with("nuovo@") && !info.update.trial;
    let (seen, _) = board.info(seen, is_kept);

    // A configuration that names a bundle goes before what is installed.
    let text = fs::read_to_string(&config).unwrap();
    let named = text.replace("[update]", "[model]\nbundle = \"models/demo\"\n[update]");
    fs::write(&config, named).unwrap();
    board.signal(Signal::HUP);
    let (_, info) = board.info(seen, |info| info.bundle.starts_with("tiny@"));
    assert_eq!(info.update.source, BundleSource::Configured);
    board.ask_install("a", &sha256(&board.file));
    assert_eq!(board.outcome("a")["code"], "not-used");
}

#[test]
fn a_killed_installation_leaves_the_bundle_before_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let files = tiny_bundle::files();
    tiny_bundle::write(&path.join("demo"), &files, &tiny_bundle::manifest(&files));
    for name in ["uno", "due"] {
        fs::write(path.join(format!("{name}.tar.zst")), packed(name)).unwrap();
    }
    let text = "state_dir = \"state\"\n[update]\nrequire_signature = false\n\
                [[camera]]\nreplay = \"photos\"\n[[label]]\nnoun = \"rosso\"\n";
    fs::write(path.join("vedetta.toml"), text).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vedetta"));
        let command = command.current_dir(path).arg("bundle").args(arguments);
        let command = command.args(["--config", "vedetta.toml"]);
        let command = command.env("VEDETTA_MODELS", path.join("demo"));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let install = |name: &str| run(&["install", &format!("{name}.tar.zst")]);
    let first = install("uno").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(
        first.status.success() && said.contains("is installed"),
        "{first:?}"
    );
    let store = vedetta::bundle::store::Store::open(&path.join("state"));
    let current = || {
        let limits = vedetta::bundle::Limits::default();
        let bundle = vedetta::bundle::Bundle::open(&store.current().unwrap(), &limits);
        bundle.unwrap().manifest().name.clone()
    };
    assert_eq!(current(), "uno");
    let mut finished = 0;
    for turn in 0..40 {
        let before = current();
        let other = if before == "uno" { "due" } else { "uno" };
        let mut child = install(other);
        std::thread::sleep(std::time::Duration::from_millis(turn * 5));
        // It may be done already.
        let _ = child.kill();
        child.wait().unwrap();
        let after = current();
        assert!(after == before || after == other);
        finished += u32::from(after == other);
    }
    println!("{finished} of 40 installations were done before they were killed");
    let last = install("uno").wait_with_output().unwrap();
    assert!(last.status.success(), "{last:?}");
    let list = run(&["list"]).wait_with_output().unwrap();
    assert!(
        String::from_utf8_lossy(&list.stdout).starts_with("uno@"),
        "{list:?}"
    );
    let left: Vec<_> = fs::read_dir(store.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("partial") || name.starts_with("gone"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let back = run(&["rollback"]).wait_with_output().unwrap();
    assert!(back.status.success(), "{back:?}");
}

fn minisign(folder: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new("minisign");
    let done = command
        .current_dir(folder)
        .args(arguments)
        .stdout(Stdio::null());
    done.status().is_ok_and(|status| status.success())
}

#[test]
fn only_what_the_configured_key_signed_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    if !minisign(path, &["-G", "-W", "-p", "a.pub", "-s", "a.key"]) {
        println!("SKIPPED: there is no minisign here (apt install minisign)");
        return;
    }
    fs::write(path.join("nuovo.tar.zst"), packed("nuovo")).unwrap();
    assert!(minisign(
        path,
        &["-S", "-s", "a.key", "-m", "nuovo.tar.zst"]
    ));
    let good = fs::read(path.join("nuovo.tar.zst.minisig")).unwrap();
    let signature = Arc::new(Mutex::new(Vec::new()));
    let served = Arc::clone(&signature);
    let key = path.join("a.pub").display().to_string();
    let update = format!("public_key = \"{key}\"\ntrial_s = 1");
    let Some(board) = Board::start(&update, move |file, asked| {
        if asked.path.ends_with(".minisig") {
            let signature = served.lock().unwrap().clone();
            return match signature.is_empty() {
                true => Answer::status(404, &[]),
                false => Answer::file(&signature, asked),
            };
        }
        Answer::file(file, asked)
    }) else {
        return;
    };
    let (_, info) = board.info(0, |_| true);
    assert_eq!(info.update.signature, SignatureRule::Required);
    let hash = sha256(&board.file);
    board.ask_install("none", &hash);
    assert_eq!(board.outcome("none")["code"], "download-failed");
    *signature.lock().unwrap() = b"untrusted comment: x\nno\n".to_vec();
    board.ask_install("garbage", &hash);
    assert_eq!(board.outcome("garbage")["code"], "bad-signature");
    *signature.lock().unwrap() = good;
    board.ask_install("good", &hash);
    assert_eq!(board.outcome("good")["ok"], true);
}
