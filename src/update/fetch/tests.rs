//! A server on plain HTTP, since only what is done with the bytes matters here; `tests/mqtt` has one
//! with TLS.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;

use super::*;

const MIB: usize = 1 << 20;

/// Answers every request with `answer` of the request's number; its URL.
fn server(answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            // A client that has enough hangs up.
            let _ = reader.get_mut().write_all(&answer(n));
        }
    });
    format!("http://127.0.0.1:{port}/a")
}

/// An answer that does not say how long it is.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut answer =
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(MIB) {
        answer.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        answer.extend(piece);
        answer.extend(b"\r\n");
    }
    answer.extend(b"0\r\n\r\n");
    answer
}

fn plain_agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

struct Case {
    folder: tempfile::TempDir,
    cap: u64,
    free: u64,
    asked: Cell<u32>,
}

impl Case {
    fn new(cap: usize, free: usize) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            cap: cap as u64,
            free: free as u64,
            asked: Cell::new(0),
        }
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("download-a.part")
    }

    fn run(&self, url: &str, hash: &str) -> Result<(), FetchError> {
        let part = self.part();
        let room = |bytes| {
            self.asked.set(self.asked.get() + 1);
            match length(&part) + bytes > self.free {
                true => Err("no room".to_owned()),
                false => Ok(()),
            }
        };
        let remote = Remote::unchecked(url, hash);
        let download = Download {
            remote: &remote,
            cap: self.cap,
            room: &room,
            progress: &mut |_, _| {},
        };
        download.run(&plain_agent(), &part)
    }
}

#[test]
fn a_download_of_unknown_length_asks_for_room_as_it_grows() {
    let body = vec![7; 20 * MIB];
    let hash = sha256(&body);
    let url = server(move |_| chunked(&body));
    let case = Case::new(64 * MIB, 64 * MIB);
    case.run(&url, &hash).unwrap();
    assert!(case.asked.get() >= 5, "{} times", case.asked.get());
    assert_eq!(length(&case.part()), 20 * MIB as u64);

    let case = Case::new(64 * MIB, 10 * MIB);
    let error = case.run(&url, &hash).unwrap_err();
    assert!(matches!(error, FetchError::NoRoom(_)), "{error}");
    assert!(!case.part().exists(), "a full disk is not left full");
}

#[test]
fn a_download_that_does_not_say_that_it_is_too_long_is_cut_off_and_removed() {
    let body = vec![7; 5 * MIB];
    let hash = sha256(&body);
    let url = server(move |_| chunked(&body));
    let case = Case::new(3 * MIB, 64 * MIB);
    let error = case.run(&url, &hash).unwrap_err();
    assert!(matches!(error, FetchError::TooLarge(_)), "{error}");
    assert!(!case.part().exists());
}

#[test]
fn a_part_of_a_file_that_was_not_asked_for_is_not_taken() {
    let url = server(|_| {
        b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx".to_vec()
    });
    let case = Case::new(MIB, MIB);
    let error = case.run(&url, &sha256(b"x")).unwrap_err();
    assert!(matches!(error, FetchError::Lost { .. }), "{error}");
    assert!(!case.part().exists());
}

#[test]
fn a_file_that_changes_between_two_attempts_is_fetched_again() {
    let (old, new) = (vec![1; 1000], vec![2; 1000]);
    let hash = sha256(&new);
    let url = server(move |n| {
        let head = |status, more: &str| {
            format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {more}\r\n\r\n")
                .into_bytes()
        };
        match n {
            0 => [head(200, "1000"), old[..600].to_vec()].concat(),
            1 => {
                let range = "400\r\nContent-Range: bytes 600-999/1000";
                [head(206, range), new[600..].to_vec()].concat()
            }
            _ => [head(200, "1000"), new.clone()].concat(),
        }
    });
    let case = Case::new(MIB, MIB);
    case.run(&url, &hash).unwrap();
}

#[test]
fn a_signature_that_somebody_else_left_is_replaced() {
    let url = server(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nnew".to_vec()
    });
    let case = Case::new(MIB, MIB);
    let left = beside(&case.part());
    let other = case.folder.path().join("other");
    fs::write(&left, "left").unwrap();
    fs::hard_link(&left, &other).unwrap();
    let remote = Remote::unchecked(&url, &sha256(b""));
    signature(&plain_agent(), &remote, &case.part()).unwrap();
    assert_eq!(fs::read(&left).unwrap(), b"new");
    assert_eq!(
        fs::read(&other).unwrap(),
        b"left",
        "the file itself is another one"
    );
}

#[test]
fn one_unfinished_download_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let touch = |name: &str| fs::write(folder.path().join(name), "").unwrap();
    let left = || {
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    for name in ["download-a.part", "download-b.part", "current.json"] {
        touch(name);
    }
    tidy(folder.path(), None);
    assert_eq!(left().len(), 3, "they are young");
    tidy(folder.path(), Some("download-b.part"));
    assert_eq!(left(), ["current.json", "download-b.part"]);
}

#[test]
fn a_server_that_dribbles_is_told_from_one_that_is_slow() {
    let start = Instant::now();
    let mut dribbles = Pace::begin(start, 0);
    let mut slow = Pace::begin(start, 0);
    for minute in 1..=10 {
        let now = start + SLOWEST * minute - Duration::from_secs(1);
        assert!(slow.keeps_up(now, ENOUGH_BYTES * u64::from(minute)));
        let is_first = minute == 1;
        assert_eq!(dribbles.keeps_up(now, u64::from(minute)), is_first);
    }
}

#[test]
fn a_content_range_is_read_or_ignored() {
    assert_eq!(
        content_range("bytes 600-999/1000"),
        Some((Some(600), Some(1000)))
    );
    assert_eq!(content_range("bytes */1000"), Some((None, Some(1000))));
    assert_eq!(content_range("bytes 600-999/*"), Some((Some(600), None)));
    for wrong in ["", "bytes", "lines 1-2/3", "bytes 1/3", "bytes -1-2/3"] {
        assert_eq!(content_range(wrong), None, "{wrong}");
    }
}
