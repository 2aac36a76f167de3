//! A publisher with what belongs to it, and messages to publish.

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use vedetta::config::{Config, Environment, Id};
use vedetta::event::{Event, EventType, SCHEMA};
use vedetta::moment::Clock;
use vedetta::publish::{self, Command, Outbox, Outgoing, Publisher};

#[path = "../support/event.rs"]
mod example;

/// `B` of every device here.
pub const BASE: &str = "vedetta/negozio-1";
/// The discovery topic.
pub const DISCOVERY: &str = "homeassistant/device/vedetta_negozio-1/config";

pub struct Device {
    pub publisher: Publisher,
    pub commands: Receiver<Command>,
    pub outbox: Outbox,
    pub folder: Option<tempfile::TempDir>,
}

/// A configuration with the lines `mqtt` in its `[mqtt]` table.
pub fn config(state: &Path, port: u16, mqtt: &str) -> Config {
    let text = format!(
        "device = \"negozio-1\"\nstate_dir = \"{}\"\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = {port}\n{mqtt}\n\
         [[camera]]\nid = \"corsia4\"\ndevice = \"/dev/video0\"\n\
         [[camera.zone]]\nid = \"r2-f07\"\nrectangle = [0.1, 0.1, 0.5, 0.5]\n\
         [[label]]\nnoun = \"scaffale vuoto\"\n",
        state.display()
    );
    Config::from_toml(&text, "vedetta.toml", &[], &Environment::bare()).unwrap()
}

impl Device {
    pub fn start(port: u16, mqtt: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut device = Self::start_in(folder.path(), port, mqtt);
        device.folder = Some(folder);
        device
    }

    pub fn start_in(folder: &Path, port: u16, mqtt: &str) -> Self {
        let config = config(folder, port, mqtt);
        let outbox = Outbox::open(folder, config.outbox);
        let (sender, commands) = sync_channel(32);
        let publisher = publish::spawn(&config, "7f3a0001", outbox.clone(), sender).unwrap();
        Self {
            publisher,
            commands,
            outbox,
            folder: None,
        }
    }

    pub fn wait_connected(&self) {
        until("the connection", || self.publisher.is_connected());
    }

    pub fn command(&self) -> Command {
        self.commands
            .recv_timeout(Duration::from_secs(20))
            .expect("a command")
    }
}

/// Waits for `true`.
pub fn until(what: &str, met: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !met() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

/// A `confirmed` event; `n` makes its id.
pub fn event(n: u64) -> Outgoing {
    Outgoing::Event {
        event: Box::new(example::event(&format!("01J{n:023}"))),
        evidence: None,
        open: None,
    }
}

/// [`event`] with a picture of this size.
pub fn pictured(n: u64, bytes: usize) -> Outgoing {
    match event(n) {
        Outgoing::Event {
            mut event, open, ..
        } => {
            event.evidence = Some(event.id.clone());
            Outgoing::Event {
                event,
                evidence: Some(vec![0xd8; bytes]),
                open,
            }
        }
        other => other,
    }
}
