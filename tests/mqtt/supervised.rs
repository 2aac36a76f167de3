//! What a service manager hears of the daemon: it is fed while every stage advances, not when one hangs.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::board::Board;
use crate::download::packed;
use crate::server::Answer;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(180);
/// Several times what lies between two feedings.
const QUIET: Duration = Duration::from_secs(4);

/// A board under a service manager that wants to be fed every two seconds.
struct Supervised {
    board: Board,
    manager: UnixDatagram,
}

impl Supervised {
    fn start() -> Option<Self> {
        let mut board = Board::serving(packed("nuovo"), "trial_s = 1", Answer::file)?;
        let manager = UnixDatagram::bind(board.path("notify")).unwrap();
        board.variables = vec![
            ("NOTIFY_SOCKET", board.path("notify")),
            ("WATCHDOG_USEC", "2000000".into()),
            ("STATE_DIRECTORY", board.path("state")),
        ];
        board.power_on();
        let supervised = Self { board, manager };
        supervised.hear("READY=1");
        supervised.hear("WATCHDOG=1");
        Some(supervised)
    }

    /// Makes a file of this name in the state directory, all at once.
    fn write(&self, name: &str, text: &str) {
        let new = self.board.path("state/new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.board.path("state").join(name)).unwrap();
    }

    fn next(&self, within: Duration) -> Option<String> {
        self.manager.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 1024];
        let length = self.manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The next message with `text` in it.
    fn hear(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while Instant::now() < end {
            match self.next(Duration::from_secs(1)) {
                Some(message) if message.contains(text) => return message,
                other => heard.extend(other),
            }
        }
        panic!("no {text}, but {heard:?}");
    }
}

/// The stage `told` is told to hang; `named` is what the service manager is told.
fn hangs(told: &str, named: &str) {
    let Some(supervised) = Supervised::start() else {
        return;
    };
    supervised.write("fault", told);
    let status = supervised.hear(&format!("STATUS={named}"));
    assert!(status.contains(" hangs"), "{status}");
    let end = Instant::now() + QUIET;
    while Instant::now() < end {
        let heard = supervised.next(Duration::from_millis(100));
        let fed = heard.is_some_and(|message| message.contains("WATCHDOG=1"));
        assert!(!fed, "fed while {named} hangs");
    }
}

#[test]
fn a_capture_thread_that_hangs_starves_the_watchdog() {
    hangs("capture", "capture-");
}

#[test]
fn an_inference_thread_that_hangs_starves_the_watchdog() {
    hangs("inference", "inference");
}

#[test]
fn an_mqtt_thread_that_hangs_starves_the_watchdog() {
    hangs("mqtt", "mqtt");
}

#[test]
fn another_model_may_take_its_time_to_load() {
    let Some(mut supervised) = Supervised::start() else {
        return;
    };
    supervised.write("hold", "model");
    let board = &mut supervised.board;
    board.configure("[update]", "[model]\nthreads = 2\n[update]");
    board.signal(Signal::HUP);
    supervised.hear("RELOADING=1");
    for _ in 0..3 {
        supervised.hear("WATCHDOG=1");
    }
    fs::remove_file(supervised.board.path("state/hold")).unwrap();
    supervised.hear("READY=1");
}
