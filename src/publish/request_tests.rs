//! Requests as friends and others send them.

use proptest::prelude::*;

use super::*;
use crate::topics::COMMANDS;

fn topics() -> Topics {
    Topics::new("vedetta", &Id::new("negozio-1").unwrap())
}

fn ask(topic: &str, payload: &[u8]) -> Result<Command, Refused> {
    read(
        &topics(),
        &COMMANDS,
        &format!("vedetta/negozio-1/{topic}"),
        payload,
    )
    .unwrap()
}

fn code(topic: &str, payload: &[u8]) -> &'static str {
    ask(topic, payload).unwrap_err().code
}

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

#[test]
fn every_command_of_the_contract_is_understood() {
    assert_eq!(
        ask("command/snapshot", br#"{"id":"a","camera":"corsia4"}"#),
        Ok(Command::Snapshot {
            id: json!("a"),
            camera: Some(id("corsia4"))
        })
    );
    assert_eq!(
        ask("command/snapshot", br#"{"id":7}"#),
        Ok(Command::Snapshot {
            id: json!(7),
            camera: None
        })
    );
    assert_eq!(
        ask("command/reload", br#" {"id":"a"} "#),
        Ok(Command::Reload { id: json!("a") })
    );
    assert_eq!(
        ask("command/pause", br#"{"id":"a","seconds":90}"#),
        Ok(Command::Pause {
            id: json!("a"),
            time: Duration::from_secs(90)
        })
    );
    let set = |change| {
        Ok(Command::Set {
            id: json!("a"),
            change,
        })
    };
    assert_eq!(
        ask(
            "command/set",
            br#"{"id":"a","label":"mela","threshold":0.8}"#
        ),
        set(Change::Threshold {
            label: id("mela"),
            value: 0.8
        })
    );
    assert_eq!(
        ask(
            "command/set",
            br#"{"id":"a","label":"mela","prompt":" una mela verde "}"#
        ),
        set(Change::Prompt {
            label: id("mela"),
            text: "una mela verde".to_owned()
        })
    );
    assert_eq!(
        ask(
            "command/set",
            br#"{"id":"a","labels":[{"id":"pera","noun":"pera"}]}"#
        ),
        set(Change::Labels(vec![(id("pera"), "pera".to_owned())]))
    );
}

#[test]
fn bundles_are_asked_for_by_address_and_hash() {
    let hash = "ab".repeat(32);
    let payload = |url: &str, sha256: &str| {
        json!({"id": 1, "url": url, "sha256": sha256})
            .to_string()
            .into_bytes()
    };
    let url = "https://esempio.it/nuovo.tar.zst";
    assert_eq!(
        ask("command/install-bundle", &payload(url, &hash)),
        Ok(Command::InstallBundle {
            id: json!(1),
            remote: Remote::new(url, &hash).unwrap()
        })
    );
    assert_eq!(
        ask("command/rollback-bundle", br#"{"id":"a"}"#),
        Ok(Command::RollbackBundle { id: json!("a") })
    );
    for (url, hash) in [
        ("http://esempio.it/a", hash.as_str()),
        (url, "ab"),
        ("", ""),
    ] {
        let wrong = payload(url, hash);
        assert_eq!(code("command/install-bundle", &wrong), "bad-request");
    }
    assert_eq!(
        code("command/install-bundle", br#"{"id":1}"#),
        "bad-request"
    );
}

#[test]
fn a_setting_is_plain_text() {
    let set = |change| {
        Ok(Command::Set {
            id: Value::Null,
            change,
        })
    };
    assert_eq!(
        ask("config/mela/threshold/set", b"0.65\n"),
        set(Change::Threshold {
            label: id("mela"),
            value: 0.65
        })
    );
    assert_eq!(
        ask("config/mela/prompt/set", "una mela così".as_bytes()),
        set(Change::Prompt {
            label: id("mela"),
            text: "una mela così".to_owned()
        })
    );
    for wrong in [&b"0,65"[..], b"1.01", b"-0.1", b"NaN", b"inf", b"", b"\xff"] {
        assert_eq!(code("config/mela/threshold/set", wrong), "bad-request");
    }
    for wrong in [&b""[..], b"  ", b"una\nmela", b"\xff", &[b'x'; 257]] {
        assert_eq!(code("config/mela/prompt/set", wrong), "bad-request");
    }
}

#[test]
fn what_is_wrong_is_named_and_the_id_comes_back() {
    let refused = ask("command/pause", br#"{"id":"a","secondi":90}"#).unwrap_err();
    assert_eq!(refused.topic, "vedetta/negozio-1/reply/pause");
    assert_eq!((refused.id, refused.code), (json!("a"), "bad-request"));
    assert!(refused.message.contains("secondi"), "{}", refused.message);

    assert_eq!(code("command/pause", br#"{"seconds":90}"#), "bad-request");
    assert_eq!(
        code("command/pause", br#"{"id":null,"seconds":90}"#),
        "bad-request"
    );
    assert_eq!(
        code("command/pause", br#"{"id":"a","seconds":-1}"#),
        "bad-request"
    );
    assert_eq!(
        code("command/pause", br#"{"id":"a","seconds":1e300}"#),
        "bad-request"
    );
    assert_eq!(code("command/pause", b"90"), "bad-request");
    assert_eq!(code("command/pause", b""), "bad-json");
    assert_eq!(code("command/pause", b"\xff\xfe"), "bad-json");
    assert_eq!(
        code("command/snapshot", br#"{"id":"a","camera":"../b"}"#),
        "bad-request"
    );
    assert_eq!(
        code("command/set", br#"{"id":"a","label":"mela"}"#),
        "bad-request"
    );
    let both = br#"{"id":"a","label":"mela","threshold":0.5,"prompt":"mela"}"#;
    assert_eq!(code("command/set", both), "bad-request");
    assert_eq!(code("command/esplodi", br#"{"id":"a"}"#), "unknown-command");
}

#[test]
fn a_command_that_is_not_allowed_is_refused() {
    let topic = "vedetta/negozio-1/command/reload";
    let allowed = [CommandName::Pause];
    let refused = read(&topics(), &allowed, topic, br#"{"id":"a"}"#)
        .unwrap()
        .unwrap_err();
    assert_eq!((refused.id, refused.code), (json!("a"), "not-allowed"));
    let topic = "vedetta/negozio-1/config/mela/threshold/set";
    let refused = read(&topics(), &allowed, topic, b"0.5")
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.code, "not-allowed");
}

#[test]
fn large_and_deep_requests_are_refused() {
    let large = format!(
        r#"{{"id":"a","camera":"{}"}}"#,
        "x".repeat(MAX_REQUEST_BYTES)
    );
    assert_eq!(code("command/snapshot", large.as_bytes()), "too-large");
    let deep = format!(r#"{{"id":"a","x":{}"#, "[".repeat(4000));
    assert_eq!(code("command/snapshot", deep.as_bytes()), "bad-request");
    let deep = format!(r#"{{"id":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert_eq!(code("command/snapshot", deep.as_bytes()), "bad-json");
}

proptest! {
    #[test]
    fn no_payload_makes_the_parser_panic(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        text in r#"\{("id":("a"|1|\[|null),?)?("(label|threshold|seconds)":.{0,8},?)*\}?"#,
    ) {
        for topic in ["command/set", "command/pause", "config/mela/threshold/set"] {
            let _ = ask(topic, &payload);
            let _ = ask(topic, text.as_bytes());
        }
    }
}
