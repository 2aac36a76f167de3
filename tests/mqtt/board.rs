//! The daemon itself, as it runs on a board.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use image::{Rgb, RgbImage};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use vedetta::event::Info;

use crate::broker::Broker;
use crate::device::BASE;
use crate::download::packed;
use crate::listener::Listener;
use crate::server::{Answer, Asked, Server};
use crate::tiny_bundle;

/// A board: photos for a camera, a bundle it came with, a broker, a server with another bundle.
pub struct Board {
    pub folder: tempfile::TempDir,
    pub broker: Broker,
    pub listener: Listener,
    pub server: Server,
    pub daemon: Option<Child>,
    pub file: Vec<u8>,
    /// Variables of the daemon.
    pub variables: Vec<(&'static str, PathBuf)>,
}

impl Board {
    /// With these lines in `[update]`.
    pub fn start(
        update: &str,
        handler: impl Fn(&[u8], &Asked) -> Answer + Send + Sync + 'static,
    ) -> Option<Self> {
        let mut board = Self::serving(packed("nuovo"), update, handler)?;
        board.power_on();
        Some(board)
    }

    /// Not powered on, beside a server that has `file`.
    pub fn serving(
        file: Vec<u8>,
        update: &str,
        handler: impl Fn(&[u8], &Asked) -> Answer + Send + Sync + 'static,
    ) -> Option<Self> {
        let broker = Broker::start()?;
        let listener = Listener::on(broker.port);
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
        Some(Self {
            folder,
            broker,
            listener,
            server,
            daemon: None,
            file,
            variables: Vec::new(),
        })
    }

    /// The configuration with `old` replaced by `new`.
    pub fn configure(&self, old: &str, new: &str) {
        let path = self.path("vedetta.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{text}");
        fs::write(path, text.replace(old, new)).unwrap();
    }

    /// Another picture before the camera.
    pub fn show(&self, picture: &RgbImage) {
        let new = self.path("new.png");
        picture.save(&new).unwrap();
        fs::rename(new, self.path("photos/rosso.png")).unwrap();
    }

    pub fn power_on(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        // WATCHDOG_PID has to be the process itself, which only a shell knows beforehand.
        let daemon = Command::new("sh")
            .args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_vedetta"))
            .args(["run", "--config"])
            .arg(self.path("vedetta.toml"))
            .env("VEDETTA_MODELS", self.path("models"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.daemon = Some(daemon.unwrap());
    }

    pub fn cut_power(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Asks for `signal`, and waits for the end where that is what it means.
    pub fn signal(&mut self, signal: Signal) {
        let daemon = self.daemon.as_mut().unwrap();
        kill_process(Pid::from_child(daemon), signal).unwrap();
        if signal == Signal::TERM {
            daemon.wait().unwrap();
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn ask(&self, name: &str, payload: &Value) {
        let topic = format!("{BASE}/command/{name}");
        self.listener.say(&topic, payload.to_string());
    }

    pub fn ask_install(&self, id: &str, sha256: &str) {
        let url = self.server.url("nuovo.tar.zst");
        self.ask(
            "install-bundle",
            &json!({"id": id, "url": url, "sha256": sha256}),
        );
    }

    /// The last reply to the command `id`.
    pub fn outcome(&self, id: &str) -> Value {
        let topic = format!("{BASE}/reply/install-bundle");
        self.listener
            .wait(&topic, |heard| {
                let body = heard.json();
                body["id"] == id && body["done"] != false
            })
            .json()
    }

    /// The first `B/info` after the first `skip` that `fits`; how many came until then, and it.
    pub fn info(&self, skip: usize, fits: impl Fn(&Info) -> bool) -> (usize, Info) {
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
