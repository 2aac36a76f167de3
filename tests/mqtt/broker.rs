//! A real mosquitto in a temporary folder, and a wire to it that can be cut.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where Debian and others put it.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"];

/// The program `name`, from `PATH` or the usual places.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PLACES.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A broker that is stopped when dropped.
pub struct Broker {
    child: Option<Child>,
    /// Without login or TLS, for the test itself.
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Broker {
    /// A broker without login; `None`, and a line that says so, where mosquitto is not installed.
    pub fn start() -> Option<Self> {
        Self::with(|_| String::new())
    }

    /// A broker with more lines in its configuration, made for a folder.
    pub fn with(more: impl FnOnce(&Path) -> String) -> Option<Self> {
        if program("mosquitto").is_none() {
            println!("skipped: mosquitto is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let more = more(folder.path());
        // No limit in flight: what is acknowledged is also passed on at once, or a broker that is
        // killed would take messages with it that nobody else has any more.
        let text = format!(
            "per_listener_settings true\npersistence false\nmax_queued_messages 0\n\
             max_inflight_messages 0\n\
             listener {port} 127.0.0.1\nallow_anonymous true\n{more}"
        );
        fs::write(folder.path().join("mosquitto.conf"), text).unwrap();
        let mut broker = Self {
            child: None,
            port,
            folder,
        };
        broker.restart();
        Some(broker)
    }

    /// Kills it, as a power cut would, and starts it anew on the same port.
    pub fn restart(&mut self) {
        self.kill();
        let log = fs::File::create(self.folder.path().join("mosquitto.log")).unwrap();
        let child = Command::new(program("mosquitto").unwrap())
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                Instant::now() < until,
                "mosquitto does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("mosquitto.log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Writes a password file for `user`; its path.
pub fn password_file(folder: &Path, user: &str, password: &str) -> PathBuf {
    let path = folder.join("passwords");
    let done = Command::new(program("mosquitto_passwd").expect("it comes with mosquitto"))
        .args(["-b", "-c"])
        .arg(&path)
        .args([user, password])
        .status()
        .unwrap();
    assert!(done.success());
    path
}

/// A port nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A wire to a broker that can be cut and mended.
pub struct Wire {
    pub port: u16,
    open: Arc<AtomicBool>,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    pub fn to(broker: &Broker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), broker.port);
        let open = Arc::new(AtomicBool::new(true));
        let ends: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let wire = Self {
            port,
            open: Arc::clone(&open),
            ends: Arc::clone(&ends),
        };
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else {
                    continue;
                };
                let both = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                ends.lock().unwrap().extend(both);
                let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || carry(near, far));
                std::thread::spawn(move || carry(far_too, near_too));
            }
        });
        wire
    }

    /// Ends every connection, in the middle of whatever it carries.
    pub fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Cuts, and refuses new connections until [`Wire::mend`].
    pub fn unplug(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.cut();
    }

    pub fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

/// In small pieces, so that a cut hits packets in the middle.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; 700];
    let mut copy = || -> io::Result<()> {
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(()),
                n => to.write_all(&piece[..n])?,
            }
        }
    };
    let _ = copy();
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
