use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha2::{Digest, Sha256};

const ID: &str = "qualcuno/piccolo";
const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it came: path, range, whether the token was right.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    range: Option<String>,
    authorized: bool,
}

/// What happens to the first request for the whole of the weights.
#[derive(Clone, Copy, PartialEq)]
enum First {
    /// The hub hangs up in the middle.
    Cut,
    /// 503.
    Unavailable,
}

/// A hub with one model.
struct Hub {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    fn start(folder: PathBuf, first: First) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (folder, log) = (folder.clone(), Arc::clone(&log));
                std::thread::spawn(move || serve(stream.unwrap(), &folder, first, &log));
            }
        });
        Self { address, seen }
    }

    fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// Answers one request and closes the connection.
fn serve(stream: TcpStream, folder: &Path, first: First, log: &Mutex<Vec<Request>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let line = lines.next()?.ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let request = Request {
        path: path.clone(),
        range: headers.get("range").cloned(),
        authorized: headers.get("authorization").map(String::as_str) == Some("Bearer segreto"),
    };
    let mut seen = log.lock().unwrap();
    let whole = |range: &Option<String>| range.as_ref().is_some_and(|range| range.ends_with('-'));
    let began = |r: &Request| r.path == path && whole(&r.range);
    let first_time = !seen.iter().any(began);
    seen.push(request.clone());
    drop(seen);

    let mut stream = stream;
    if path.starts_with("/api/models/") {
        let names = fs::read_dir(folder)
            .ok()?
            .map(|entry| entry.unwrap().file_name());
        let told = path.contains("blobs=true");
        let sibling = |name: std::ffi::OsString| {
            let bytes = fs::read(folder.join(&name)).unwrap();
            let mut entry = json!({"rfilename": name.to_str().unwrap()});
            if told {
                entry["size"] = json!(bytes.len());
            }
            if told && name == "model.safetensors" {
                let hash = Sha256::digest(&bytes);
                let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                entry["lfs"] = json!({"sha256": hash, "size": bytes.len(), "pointerSize": 134});
            }
            entry
        };
        let siblings: Vec<_> = names.map(sibling).collect();
        let body = json!({"siblings": siblings, "sha": REVISION}).to_string();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .ok()?;
        return Some(());
    }
    let name = path.strip_prefix(&format!("/{ID}/resolve/{REVISION}/"))?;
    let bytes = fs::read(folder.join(name)).ok()?;
    let (from, to) = request
        .range?
        .strip_prefix("bytes=")?
        .split_once('-')
        .map(|(a, b)| {
            let last = b.parse::<usize>().map_or(bytes.len(), |last| last + 1);
            (a.parse::<usize>().unwrap(), last)
        })?;
    let first_of_weights = name == "model.safetensors" && first_time && to == bytes.len();
    if first_of_weights && first == First::Unavailable {
        let answer = "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return stream.write_all(answer.as_bytes()).ok();
    }
    if from >= bytes.len() {
        let answer = "HTTP/1.1 416 Range\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return stream.write_all(answer.as_bytes()).ok();
    }
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\netag: \"{name}-etag\"\r\nx-repo-commit: {REVISION}\r\n\
         content-range: bytes {from}-{}/{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        to - 1,
        bytes.len(),
        to - from
    )
    .ok()?;
    let cut = first_of_weights && first == First::Cut;
    let end = if cut { to / 2 } else { to };
    stream.write_all(&bytes[from..end]).ok()
}

fn import(hub: &str, home: &Path, out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vedetta-train"))
        .args(["import", ID, "-o"])
        .arg(out)
        .env("HF_ENDPOINT", hub)
        .env("HF_HOME", home)
        .env("HF_TOKEN", "segreto")
        .output()
        .unwrap()
}

/// The fixture's files that an import needs, without the other formats.
fn model() -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import/dual-encoder");
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
    ] {
        fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("training_args.bin"), "not asked for").unwrap();
    folder
}

#[test]
fn an_id_is_downloaded_continued_and_served_from_the_cache_afterwards() {
    let (model, home, out) = (
        model(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let hub = Hub::start(model.path().to_owned(), First::Cut);
    let bundle = out.path().join("first");
    let output = import(&hub.address, home.path(), &bundle);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let manifest = fs::read_to_string(bundle.join("bundle.toml")).unwrap();
    assert!(manifest.contains("name = \"piccolo\""), "{manifest}");
    let source = format!("{ID}@{}, model.safetensors sha256:", &REVISION[..12]);
    assert!(manifest.contains(&source), "{manifest}");

    let requests = hub.requests();
    assert!(requests.iter().all(|request| request.authorized));
    assert!(
        !requests
            .iter()
            .any(|request| request.path.contains("training_args"))
    );
    let half = fs::metadata(model.path().join("model.safetensors"))
        .unwrap()
        .len()
        / 2;
    let range = format!("bytes={half}-");
    let continued = |request: &Request| {
        request.path.ends_with("model.safetensors") && request.range.as_ref() == Some(&range)
    };
    assert!(requests.iter().any(continued), "{requests:?}");

    // Nobody listens on port 9 of this machine.
    let again = import(
        "http://127.0.0.1:9",
        home.path(),
        &out.path().join("second"),
    );
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success(), "{said}");
    let second = fs::read(out.path().join("second/image.onnx")).unwrap();
    assert!(second == fs::read(bundle.join("image.onnx")).unwrap());

    let nothing = tempfile::tempdir().unwrap();
    let failed = import(
        "http://127.0.0.1:9",
        nothing.path(),
        &out.path().join("third"),
    );
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).contains("is the hub reachable"));
}

/// Where the cache keeps the weights: whole, and while they come.
fn blob(home: &Path, name: &str) -> PathBuf {
    let blobs = home.join("hub/models--qualcuno--piccolo/blobs");
    fs::create_dir_all(&blobs).unwrap();
    blobs.join(name)
}

fn imports(hub: &Hub, home: &Path) {
    let out = tempfile::tempdir().unwrap();
    let output = import(&hub.address, home, &out.path().join("bundle"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{:?}", hub.requests());
}

#[test]
fn whatever_an_earlier_run_left_the_weights_in_the_cache_are_the_hubs() {
    let model = model();
    let weights = fs::read(model.path().join("model.safetensors")).unwrap();
    let third = &weights[..weights.len() / 3];
    let whole = [&weights[..], b"more"].concat();
    let other = vec![7; third.len()];
    for (what, left) in [
        ("a part", third),
        ("all, not yet renamed", &weights),
        ("more than all", &whole),
        ("a part of something else", &other),
    ] {
        let home = tempfile::tempdir().unwrap();
        // What the hub's cache calls it while it comes.
        fs::write(blob(home.path(), "model.part"), left).unwrap();
        let hub = Hub::start(model.path().to_owned(), First::Unavailable);
        imports(&hub, home.path());
        let kept = fs::read(blob(home.path(), "model.safetensors-etag")).unwrap();
        assert!(kept == weights, "{what}: {} bytes", kept.len());
    }
}

/// As versions before this one left them behind.
#[test]
fn damaged_weights_in_the_cache_are_fetched_again() {
    let (model, home) = (model(), tempfile::tempdir().unwrap());
    let hub = Hub::start(model.path().to_owned(), First::Cut);
    imports(&hub, home.path());
    let blob = blob(home.path(), "model.safetensors-etag");
    let weights = fs::read(&blob).unwrap();
    let long = [&weights[..100], &weights].concat();
    let mut wrong = weights.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for damaged in [long, wrong] {
        fs::write(&blob, damaged).unwrap();
        imports(&hub, home.path());
        assert!(fs::read(&blob).unwrap() == weights);
    }
}
