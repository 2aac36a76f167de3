//! Bundles from a real HTTPS server on a bad line.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use vedetta::bundle::store::Store;
use vedetta::bundle::{Bundle, Limits, pack};
use vedetta::config::Update;
use vedetta::update::{
    FetchError, Origin, Outcome, Remote, Stage, Steps, TryOut, UpdateError, install,
};

use crate::server::{Answer, Server};
use crate::tiny_bundle;

pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A packed bundle of this name that knows colours, long enough to be cut into pieces.
pub fn packed(name: &str) -> Vec<u8> {
    packed_with(name, tiny_bundle::files())
}

/// [`packed`] with these files.
pub fn packed_with(name: &str, mut files: tiny_bundle::Files) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let noise = (0..60_000u32).map(|n| b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26);
    files.insert("LICENSES.md".to_owned(), noise.collect());
    let mut manifest = tiny_bundle::manifest(&files);
    manifest.name = name.to_owned();
    manifest.scoring.logit_scale = 60.0;
    tiny_bundle::write(&folder.path().join("b"), &files, &manifest);
    let bundle = Bundle::open(&folder.path().join("b"), &Limits::default()).unwrap();
    let mut bytes = Vec::new();
    pack(&bundle, &mut bytes).unwrap();
    bytes
}

/// A board without daemon.
struct Board {
    state: tempfile::TempDir,
    rules: Update,
}

impl Board {
    fn new(ca_file: &Path) -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            rules: Update {
                public_key: None,
                require_signature: false,
                ca_file: ca_file.to_owned(),
                trial: Duration::from_secs(1),
            },
        }
    }

    fn store(&self) -> Store {
        Store::open(self.state.path())
    }

    fn install(&self, url: &str, sha256: &str) -> Result<Outcome, UpdateError> {
        let origin = Origin::Remote(Remote::new(url, sha256).unwrap());
        let tried = TryOut {
            round: Duration::from_millis(1),
            real_frames: false,
        };
        let mut steps = Steps {
            try_out: &mut |_| Ok(tried),
            progress: &mut |_: Stage| {},
        };
        install(&self.store(), &self.rules, &origin, &mut steps)
    }

    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store().root()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock")
            .collect();
        names.sort();
        names
    }

    fn part(&self) -> PathBuf {
        let part = self.left().into_iter().find(|name| name.ends_with(".part"));
        self.store()
            .root()
            .join(part.expect("a download to continue"))
    }

    fn installed(&self) -> String {
        let path = self.store().current().expect("a bundle");
        Bundle::open(&path, &Limits::default()).unwrap().id()
    }
}

#[test]
fn a_download_that_breaks_off_is_continued_where_it_was() {
    let file = packed("nuovo");
    let served = file.clone();
    let server = Server::start(move |asked| match asked.from {
        None => Answer::file(&served, asked).cut_after(served.len() / 3),
        Some(from) if from < served.len() / 2 => {
            Answer::file(&served, asked).cut_after(served.len() / 3)
        }
        Some(_) => Answer::file(&served, asked),
    });
    let board = Board::new(&server.ca_file());
    let outcome = board
        .install(&server.url("a.tar.zst"), &sha256(&file))
        .unwrap();
    assert!(matches!(outcome, Outcome::Installed { signed: None, .. }));
    assert!(board.installed().starts_with("nuovo@"));
    let from: Vec<_> = server.asked().iter().map(|asked| asked.from).collect();
    assert_eq!(from.len(), 3, "{from:?}");
    assert_eq!(from[0], None);
    assert!(from[1] < from[2], "{from:?}");
    assert!(from[2] < Some(file.len()), "{from:?}");
    assert!(!board.left().iter().any(|name| name.contains("download")));
    let again = board
        .install(&server.url("a.tar.zst"), &sha256(&file))
        .unwrap();
    assert!(matches!(again, Outcome::Already(_)), "{again:?}");
}

#[test]
fn a_download_that_was_given_up_is_continued_the_next_time() {
    let file = packed("nuovo");
    let served = file.clone();
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/weak" => Answer::file(&served, asked).cut_after(match asked.from {
            None => 1000,
            Some(_) => 0,
        }),
        _ => Answer::file(&served, asked),
    });
    let board = Board::new(&server.ca_file());
    let error = board
        .install(&server.url("weak"), &sha256(&file))
        .unwrap_err();
    assert!(
        matches!(error, UpdateError::Fetch(FetchError::Lost { .. })),
        "{error}"
    );
    assert_eq!(error.code(), "download-failed");
    let have = usize::try_from(fs::metadata(board.part()).unwrap().len()).unwrap();
    assert!(have > 0 && have <= 1000, "{have}");
    board
        .install(&server.url("strong"), &sha256(&file))
        .unwrap();
    let last = server.asked().pop().unwrap();
    assert_eq!(last.from, Some(have));
}

#[test]
fn a_server_that_cannot_continue_starts_again() {
    let file = packed("nuovo");
    let served = file.clone();
    let server = Server::start(move |asked| {
        let whole = crate::server::Asked {
            from: None,
            ..asked.clone()
        };
        let answer = Answer::file(&served, &whole);
        match asked.from {
            None => answer.cut_after(served.len() / 2),
            Some(_) => answer,
        }
    });
    let board = Board::new(&server.ca_file());
    board.install(&server.url("a"), &sha256(&file)).unwrap();
    assert!(board.installed().starts_with("nuovo@"));
}

#[test]
fn what_lay_there_before_does_not_count_when_the_hash_is_wrong() {
    let file = packed("nuovo");
    let served = file.clone();
    let server = Server::start(move |asked| Answer::file(&served, asked));
    let board = Board::new(&server.ca_file());
    drop(board.store().lock().unwrap());
    let part = format!("download-{}.part", &sha256(&file)[..16]);
    fs::write(board.store().root().join(part), "not its beginning").unwrap();
    board.install(&server.url("a"), &sha256(&file)).unwrap();
    let from: Vec<_> = server.asked().iter().map(|asked| asked.from).collect();
    assert_eq!(from, [Some(17), None]);
}

#[test]
fn a_file_with_another_hash_leaves_nothing_behind() {
    let file = packed("nuovo");
    let server = Server::start(move |asked| Answer::file(&file, asked));
    let board = Board::new(&server.ca_file());
    let error = board
        .install(&server.url("a"), &"0".repeat(64))
        .unwrap_err();
    assert_eq!(error.code(), "wrong-hash");
    assert!(board.left().is_empty(), "{:?}", board.left());
    assert!(board.store().current().is_none());
}

#[test]
fn what_is_too_long_is_not_even_begun() {
    let server = Server::start(|_| Answer {
        status: 200,
        headers: vec!["Content-Length: 3221225472".to_owned()],
        body: Vec::new(),
        cut_after: Some(0),
    });
    let board = Board::new(&server.ca_file());
    let error = board
        .install(&server.url("a"), &"0".repeat(64))
        .unwrap_err();
    assert_eq!(error.code(), "too-large");
    assert!(board.left().is_empty(), "{:?}", board.left());
}

#[test]
fn no_redirect_leads_away_from_https() {
    let file = packed("nuovo");
    let served = file.clone();
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/there" => Answer::file(&served, asked),
        "/here" => Answer::status(302, &["Location: /there".to_owned()]),
        "/loop" => Answer::status(302, &["Location: /loop".to_owned()]),
        "/gone" => Answer::status(404, &[]),
        _ => Answer::status(301, &["Location: http://127.0.0.1:1/there".to_owned()]),
    });
    let board = Board::new(&server.ca_file());
    let refused = |path: &str| {
        board
            .install(&server.url(path), &sha256(&file))
            .unwrap_err()
    };
    let error = refused("plain");
    assert!(
        matches!(error, UpdateError::Fetch(FetchError::Insecure)),
        "{error}"
    );
    let error = refused("gone");
    assert!(error.to_string().contains("404"), "{error}");
    board.install(&server.url("here"), &sha256(&file)).unwrap();
}

#[test]
fn an_archive_that_is_cut_off_is_refused_even_with_the_right_hash() {
    let mut file = packed("nuovo");
    file.truncate(file.len() * 2 / 3);
    let served = file.clone();
    let server = Server::start(move |asked| Answer::file(&served, asked));
    let board = Board::new(&server.ca_file());
    let error = board.install(&server.url("a"), &sha256(&file)).unwrap_err();
    assert_eq!(error.code(), "bad-bundle");
    assert!(board.left().is_empty(), "{:?}", board.left());
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_believed() {
    let file = packed("nuovo");
    let served = file.clone();
    let server = Server::start(move |asked| Answer::file(&served, asked));
    let other = Server::start(|_| Answer::status(404, &[]));
    let board = Board::new(&other.ca_file());
    let error = board.install(&server.url("a"), &sha256(&file)).unwrap_err();
    assert!(server.asked().is_empty());
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn without_a_key_nothing_is_installed() {
    let server = Server::start(|_| Answer::status(404, &[]));
    let mut board = Board::new(&server.ca_file());
    board.rules.require_signature = true;
    let error = board
        .install(&server.url("a"), &"0".repeat(64))
        .unwrap_err();
    assert_eq!(error.code(), "no-key");
    assert!(error.to_string().contains("update.public_key"));
    assert!(server.asked().is_empty());
}
