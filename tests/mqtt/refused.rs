//! Configurations that no restart makes right: the daemon says where the mistake is, ends with 78, and
//! has touched nothing. And a setting that it cannot take while it runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use vedetta::bundle::store::{Folder, Pointer, Store};

use crate::board::Board;
use crate::device::BASE;
use crate::server::Answer;
use crate::tiny_bundle;

/// Runs the daemon with this configuration; its exit code and what it said. A bundle on trial has lost
/// none of its starts.
fn run(path: &Path, text: &str) -> (Option<i32>, String) {
    let files = tiny_bundle::files();
    tiny_bundle::write(&path.join("tiny"), &files, &tiny_bundle::manifest(&files));
    fs::create_dir_all(path.join("state")).unwrap();
    fs::write(path.join("vedetta.toml"), text).unwrap();
    let store = Store::open(&path.join("state"));
    let lock = store.lock().unwrap();
    let folder = Folder::parse("0001-uno-0123456789ab").unwrap();
    let on_trial = store.change(&lock, |_| Pointer::default().installed(folder));
    drop(lock);
    let output = Command::new(env!("CARGO_BIN_EXE_vedetta"))
        .args(["run", "--config"])
        .arg(path.join("vedetta.toml"))
        .env("VEDETTA_MODELS", path.join("tiny"))
        .output()
        .unwrap();
    assert_eq!(store.pointer(), on_trial.unwrap());
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

fn config(model: &str, tls: &str) -> String {
    format!(
        "state_dir = \"state\"\n[model]\n{model}\n[mqtt]\nhost = \"127.0.0.1\"\n{tls}\n\
         [[camera]]\nreplay = \"photos\"\n[[label]]\nnoun = \"rosso\"\n"
    )
}

#[test]
fn tls_files_that_cannot_be_used_are_named_with_their_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("no.pem"), "no certificate").unwrap();
    crate::login::certificates(path);
    for (tls, place) in [
        (
            "ca_file = \"no.pem\"",
            ":7: mqtt.tls.ca_file = \"no.pem\": ",
        ),
        (
            "ca_file = \"gone.pem\"",
            ":7: mqtt.tls.ca_file = \"gone.pem\": ",
        ),
        (
            "ca_file = \"ca.pem\"\ncert_file = \"no.pem\"\nkey_file = \"client.key\"",
            ":8: mqtt.tls.cert_file = \"no.pem\": ",
        ),
        (
            "ca_file = \"ca.pem\"\ncert_file = \"client.pem\"\nkey_file = \"no.pem\"",
            ":9: mqtt.tls.key_file = \"no.pem\": ",
        ),
    ] {
        let text = config("bundle = \"tiny\"", &format!("[mqtt.tls]\n{tls}"));
        let (code, said) = run(path, &text);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(&format!("vedetta.toml{place}")), "{said}");
    }
}

#[test]
fn a_named_bundle_that_is_not_there_is_a_mistake_in_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = run(folder.path(), &config("bundle = \"gone\"", ""));
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("vedetta.toml:3: model.bundle = \"gone\": "),
        "{said}"
    );
}

#[test]
fn a_setting_by_topic_that_cannot_be_taken_is_answered() {
    let Some(board) = Board::start("trial_s = 1", Answer::file) else {
        return;
    };
    board.info(0, |_| true);
    let topic = format!("{BASE}/config/pera/threshold/set");
    board.listener.say(&topic, "0.5");
    let topic = format!("{BASE}/reply/set");
    let reply = board.listener.wait(&topic, |_| true).json();
    assert_eq!(reply["ok"], false, "{reply}");
    assert_eq!(reply["id"], serde_json::Value::Null);
    assert!(
        reply["message"].as_str().unwrap().contains("pera"),
        "{reply}"
    );
}
