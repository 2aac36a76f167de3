//! The demo as a user starts it: the real binary, its broker, subscribers beside it.
#![cfg(feature = "demo")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use image::{Rgb, RgbImage};
use support::tiny_bundle;
use tempfile::TempDir;

const COLOURS: [(&str, [u8; 3]); 3] = [
    ("rosso", [220, 30, 30]),
    ("verde", [30, 220, 30]),
    ("blu", [30, 30, 220]),
];

/// A bundle that knows colours, photos of colours, and a folder for temporary files.
fn stage() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = tiny_bundle::files();
    let mut manifest = tiny_bundle::manifest(&files);
    // Sure of itself among the negatives, whose words it does not know.
    manifest.scoring.logit_scale = 60.0;
    tiny_bundle::write(&folder.path().join("bundle"), &files, &manifest);
    fs::create_dir(folder.path().join("photos")).unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    for (n, (name, colour)) in COLOURS.into_iter().enumerate() {
        // A smooth picture would count as a covered lens.
        let dark = colour.map(|value| value / 2);
        let stripes = |x: u32| {
            if x / 40 % 2 == 0 {
                Rgb(colour)
            } else {
                Rgb(dark)
            }
        };
        let photo = RgbImage::from_fn(320, 240, |x, _| stripes(x));
        photo
            .save(folder.path().join(format!("photos/{n}-{name}.png")))
            .unwrap();
    }
    folder
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn demo(port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vedetta"));
    command.args(["demo", "--port", &port.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn demo_of_colours(folder: &Path, port: u16) -> Command {
    let mut command = demo(port);
    command.arg("--bundle").arg(folder.join("bundle"));
    command.arg("--photos").arg(folder.join("photos"));
    command.args([
        "--pace", "2", "--label", "rosso", "--label", "verde", "--label", "blu",
    ]);
    command.env("TMPDIR", folder.join("tmp"));
    command
}

/// Waits until the demo has said where its broker is, and keeps what it said.
fn broker_is_up(child: &mut Child) -> (String, BufReader<std::process::ChildStdout>) {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("mosquitto_sub") {
        if reader.read_line(&mut said).unwrap() == 0 {
            let mut why = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut why)
                .unwrap();
            panic!("the demo ended: {said}{why}");
        }
    }
    (said, reader)
}

/// `mosquitto_sub`, when it is installed.
fn mosquitto_sub(port: u16) -> Option<Child> {
    let mut command = Command::new("mosquitto_sub");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-t",
        "vedetta/#",
        "-v",
    ]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    child
        .inspect_err(|error| println!("skipped beside it: mosquitto_sub: {error}"))
        .ok()
}

/// Runs `command` to its end with a `mosquitto_sub` beside it: what both wrote.
fn play(mut command: Command, port: u16) -> (String, Option<String>) {
    let mut child = command.spawn().unwrap();
    let (mut said, mut reader) = broker_is_up(&mut child);
    let beside = mosquitto_sub(port);
    reader.read_to_string(&mut said).unwrap();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{status}\n{said}\n{stderr}");
    let heard = beside.map(|mut child| {
        // The broker went with the demo; it would try again for ever.
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    (said, heard)
}

fn confirmed(lines: &str, label: &str) -> bool {
    let names_it = |line: &str| line.contains(&format!("\"label\":\"{label}\""));
    lines
        .lines()
        .any(|line| line.contains("\"type\":\"confirmed\"") && names_it(line))
}

#[test]
fn every_photo_is_confirmed_to_the_demo_and_to_a_subscriber_beside_it() {
    let folder = stage();
    let port = free_port();
    let mut command = demo_of_colours(folder.path(), port);
    command.args(["--seconds", "7"]);
    let (said, heard) = play(command, port);
    for (label, _) in COLOURS {
        assert!(confirmed(&said, label), "{label}:\n{said}");
        if let Some(heard) = &heard {
            assert!(confirmed(heard, label), "{label}:\n{heard}");
        }
    }
    assert!(said.contains("3 right, 0 wrong"), "{said}");
    assert!(said.contains("vedetta/demo/status offline"), "{said}");
    if let Some(heard) = heard {
        assert!(
            heard.contains("vedetta/demo/zone/banco/rosso/state ON"),
            "{heard}"
        );
    }
    let left = fs::read_dir(folder.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files are left");
}

#[test]
fn the_bundled_photos_are_recognised() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("models/demo/bundle.toml").is_file() {
        println!("skipped: there is no models/demo");
        return;
    }
    let port = free_port();
    let mut command = demo(port);
    command.current_dir(root).args(["--seconds", "34"]);
    let (said, heard) = play(command, port);
    let said = heard.as_ref().unwrap_or(&said);
    let labels = [
        "banana", "carota", "latte", "mela", "arancia", "pomodoro", "ananas", "limone",
    ];
    let seen = labels.iter().filter(|label| confirmed(said, label)).count();
    assert!(seen >= 6, "{seen} of {labels:?}:\n{said}");
}

#[test]
fn an_interrupted_demo_says_goodbye_and_exits_with_0() {
    let folder = stage();
    let port = free_port();
    let mut command = demo_of_colours(folder.path(), port);
    let mut child = command.args(["--seconds", "20"]).spawn().unwrap();
    let (mut said, mut reader) = broker_is_up(&mut child);
    while !said.contains("confirmed") {
        assert_ne!(reader.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    reader.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(said.contains("vedetta/demo/status offline"), "{said}");
    assert!(said.contains("events"), "{said}");
    let left = fs::read_dir(folder.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files are left");
}

#[test]
fn watch_shows_what_the_demo_publishes() {
    let folder = stage();
    let port = free_port();
    let mut command = demo_of_colours(folder.path(), port);
    let mut child = command.args(["--seconds", "20"]).spawn().unwrap();
    let (mut said, mut reader) = broker_is_up(&mut child);
    while !said.contains("confirmed") {
        assert_ne!(reader.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let mut watch = Command::new(env!("CARGO_BIN_EXE_vedetta"));
    watch.args([
        "watch",
        "--host",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--seconds",
        "3",
    ]);
    let watched = watch.output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let text = String::from_utf8_lossy(&watched.stdout);
    assert!(watched.status.success());
    // Retained, or published while it watched.
    for topic in [
        "status online",
        "camera/foto/status online",
        "zone/banco/rosso/state O",
    ] {
        assert!(
            text.contains(&format!("vedetta/demo/{topic}")),
            "{topic}:\n{text}"
        );
    }
}

#[test]
fn a_missing_model_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = demo(free_port());
    command
        .current_dir(folder.path())
        .env("VEDETTA_MODELS", folder.path());
    let output = command.output().unwrap();
    if output.status.success() {
        println!("skipped: a bundle is installed on this machine");
        return;
    }
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("VEDETTA_MODELS") && text.contains("--bundle"),
        "{text}"
    );
}

#[test]
fn a_taken_port_is_said() {
    let folder = stage();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = demo_of_colours(folder.path(), port).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains(&format!("port {port} cannot be used")),
        "{text}"
    );
}
