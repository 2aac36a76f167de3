//! The daemon itself gets another bundle: over MQTT, from an HTTPS server, proved or given up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};

use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use vedetta::event::{BundleSource, Info, SignatureRule};

use crate::broker::Broker;
use crate::device::BASE;
use crate::download::{packed, sha256};
use crate::listener::Listener;
use crate::server::{Answer, Asked, Server};
use crate::tiny_bundle;

/// A board: photos for a camera, a bundle it came with, a broker, a server with another bundle.
struct Board {
    folder: tempfile::TempDir,
    broker: Broker,
    listener: Listener,
    server: Server,
    daemon: Option<Child>,
    file: Vec<u8>,
}

impl Board {
    /// With these lines in `[update]`.
    fn start(
        update: &str,
        handler: impl Fn(&[u8], &Asked) -> Answer + Send + Sync + 'static,
    ) -> Option<Self> {
        let broker = Broker::start()?;
        let listener = Listener::on(broker.port);
        let file = packed("nuovo");
        let served = file.clone();
        let server = Server::start(move |asked| handler(&served, asked));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let files = tiny_bundle::files();
        tiny_bundle::write(
            &path.join("models/demo"),
            &files,
            &tiny_bundle::manifest(&files),
        );
        fs::create_dir(path.join("photos")).unwrap();
        let stripes = |x: u32| match (x / 40).is_multiple_of(2) {
            true => Rgb([220, 30, 30]),
            false => Rgb([110, 15, 15]),
        };
        let photo = RgbImage::from_fn(320, 240, |x, _| stripes(x));
        photo.save(path.join("photos/rosso.png")).unwrap();
        let text = format!(
            "device = \"negozio-1\"\nstate_dir = \"state\"\n\
             [update]\nca_file = \"{}\"\n{update}\n\
             [mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\
             [[camera]]\nreplay = \"photos\"\nrepeat = true\nrate_fps = 20\n\
             [camera.gate]\nenabled = false\n\
             [[label]]\nnoun = \"rosso\"\n",
            server.ca_file().display(),
            broker.port
        );
        fs::write(path.join("vedetta.toml"), text).unwrap();
        let mut board = Self {
            folder,
            broker,
            listener,
            server,
            daemon: None,
            file,
        };
        board.power_on();
        Some(board)
    }

    fn power_on(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let daemon = Command::new(env!("CARGO_BIN_EXE_vedetta"))
            .args(["run", "--config"])
            .arg(self.path("vedetta.toml"))
            .env("VEDETTA_MODELS", self.path("models"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.daemon = Some(daemon.unwrap());
    }

    fn cut_power(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ask(&self, name: &str, payload: &Value) {
        let topic = format!("{BASE}/command/{name}");
        self.listener.say(&topic, payload.to_string());
    }

    fn ask_install(&self, id: &str, sha256: &str) {
        let url = self.server.url("nuovo.tar.zst");
        self.ask(
            "install-bundle",
            &json!({"id": id, "url": url, "sha256": sha256}),
        );
    }

    /// The last reply to the command `id`.
    fn outcome(&self, id: &str) -> Value {
        let topic = format!("{BASE}/reply/install-bundle");
        self.listener
            .wait(&topic, |heard| {
                let body = heard.json();
                body["id"] == id && body["done"] != false
            })
            .json()
    }

    /// The first `B/info` after the first `skip` that `fits`; how many came until then, and it.
    fn info(&self, skip: usize, fits: impl Fn(&Info) -> bool) -> (usize, Info) {
        let topic = format!("{BASE}/info");
        let mut seen = skip;
        loop {
            let all = self.listener.wait_count(&topic, seen + 1);
            for heard in &all[seen..] {
                seen += 1;
                let info: Info = serde_json::from_slice(&heard.payload).unwrap();
                if fits(&info) {
                    return (seen, info);
                }
            }
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "{}",
                fs::read_to_string(self.path("log")).unwrap_or_default()
            );
        }
        self.broker.kill();
    }
}

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
    for _ in 0..3 {
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
