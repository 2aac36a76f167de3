//! Requests from friends, and from others.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use vedetta::event::Health;
use vedetta::publish::{Change, Command, Outgoing};

use crate::broker::Broker;
use crate::device::{BASE, Device, id, until};
use crate::listener::Listener;

struct Scene {
    broker: Broker,
    listener: Listener,
    device: Device,
}

fn scene(mqtt: &str) -> Option<Scene> {
    Some(Scene::with(Broker::start()?, mqtt))
}

impl Scene {
    fn with(broker: Broker, mqtt: &str) -> Self {
        let listener = Listener::on(broker.port);
        let device = Device::start(broker.port, mqtt);
        listener.wait_text(&format!("{BASE}/status"), "online");
        Self {
            broker,
            listener,
            device,
        }
    }

    fn ask(&self, name: &str, payload: impl Into<Vec<u8>>) {
        self.listener
            .say(&format!("{BASE}/command/{name}"), payload);
    }

    fn refusal(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let topic = format!("{BASE}/reply/{name}");
        let found = self
            .listener
            .wait(&topic, |heard| fits(&heard.json()))
            .json();
        assert_eq!(found["ok"], false);
        assert!(
            found["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
        found
    }

    fn health(&self) -> Health {
        let topic = format!("{BASE}/health");
        let so_far = self
            .listener
            .all()
            .iter()
            .filter(|h| h.topic == topic)
            .count();
        self.device.publisher.send(Outgoing::Health(Box::default()));
        let heard = self.listener.wait_count(&topic, so_far + 1);
        serde_json::from_slice(&heard.last().unwrap().payload).unwrap()
    }
}

fn understood(version: &str) {
    let Some(scene) = scene(&format!("version = \"{version}\"")) else {
        return;
    };
    scene.ask("snapshot", r#"{"id":"a","camera":"corsia4"}"#);
    let camera = Some(id("corsia4"));
    assert_eq!(
        scene.device.command(),
        Command::Snapshot {
            id: json!("a"),
            camera
        }
    );
    scene.ask("pause", r#"{"id":2,"seconds":60}"#);
    let time = Duration::from_secs(60);
    assert_eq!(
        scene.device.command(),
        Command::Pause { id: json!(2), time }
    );
    let topic = format!("{BASE}/config/scaffale-vuoto/threshold/set");
    scene.listener.say(&topic, "0.8");
    let change = Change::Threshold {
        label: id("scaffale-vuoto"),
        value: 0.8,
    };
    assert_eq!(
        scene.device.command(),
        Command::Set {
            id: Value::Null,
            change
        }
    );
    let body = json!({"id": 2, "ok": true, "message": "paused"});
    let command = vedetta::config::CommandName::Pause;
    scene.device.publisher.send(Outgoing::Reply {
        command,
        body: body.clone(),
    });
    let reply = scene
        .listener
        .wait(&format!("{BASE}/reply/pause"), |_| true);
    assert_eq!(reply.json(), body);
}

#[test]
fn commands_arrive_and_are_answered_with_mqtt_5() {
    understood("5");
}

#[test]
fn commands_arrive_and_are_answered_with_mqtt_3_1_1() {
    understood("3.1.1");
}

#[test]
fn hostile_requests_are_answered_with_a_code_and_harm_nothing() {
    let Some(scene) = scene("commands = [\"pause\"]") else {
        return;
    };
    let code = |code: &'static str| move |reply: &Value| reply["code"] == code;
    scene.ask("reload", r#"{"id":"r"}"#);
    assert_eq!(scene.refusal("reload", code("not-allowed"))["id"], "r");
    scene.ask("esplodi", r#"{"id":"e"}"#);
    assert_eq!(scene.refusal("esplodi", code("unknown-command"))["id"], "e");
    scene.ask("pause", vec![0xff, 0xfe, 0x80]);
    scene.refusal("pause", code("bad-json"));
    scene.ask("pause", format!(r#"{{"id":{}"#, "[".repeat(5000)));
    scene.refusal("pause", |r| r["code"] == "bad-json" && r["id"].is_null());
    scene.ask(
        "pause",
        format!(r#"{{"id":"x","seconds":1,"y":"{}"}}"#, "y".repeat(9000)),
    );
    scene.refusal("pause", code("too-large"));
    scene.ask("pause", r#"{"id":"u","seconds":1,"extra":true}"#);
    assert_eq!(scene.refusal("pause", code("bad-request"))["id"], "u");
    scene
        .listener
        .say(&format!("{BASE}/config/a/threshold/set"), "0.5");
    scene.refusal("set", code("not-allowed"));
    // Topics that are nobody's.
    scene.listener.say(&format!("{BASE}/command/A B"), "{}");
    scene
        .listener
        .say(&format!("{BASE}/config/../prompt/set"), "x");
    assert_eq!(scene.health().mqtt.refused, 7);
    assert!(scene.device.commands.try_recv().is_err());
}

#[test]
fn a_retained_request_is_ignored_and_counted() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    listener.say_retained(&format!("{BASE}/command/reload"), r#"{"id":"old"}"#);
    listener.wait(&format!("{BASE}/command/reload"), |_| true);
    let device = Device::start(broker.port, "");
    let scene = Scene {
        broker,
        listener,
        device,
    };
    scene
        .listener
        .wait_text(&format!("{BASE}/status"), "online");
    scene.ask("pause", r#"{"id":1,"seconds":0}"#);
    assert!(matches!(scene.device.command(), Command::Pause { .. }));
    assert_eq!(scene.health().mqtt.retained_ignored, 1);
    assert!(
        scene
            .listener
            .all()
            .iter()
            .all(|heard| !heard.topic.contains("/reply/"))
    );
    drop(scene.broker);
}

#[test]
fn a_flood_of_requests_is_limited_and_answered() {
    let Some(scene) = scene("") else { return };
    for n in 0..40 {
        scene.ask("reload", format!(r#"{{"id":{n}}}"#));
    }
    let refused = scene.refusal("reload", |reply| reply["code"] == "rate-limited");
    assert!(refused["id"].as_u64().is_some());
    let mqtt = scene.health().mqtt;
    assert!(mqtt.rate_limited >= 1);
    let taken = std::iter::from_fn(|| scene.device.commands.try_recv().ok()).count();
    assert!((20..40).contains(&taken), "{taken}");
}

/// Asks ten thousand times in one go and waits for as many answers.
fn burst(scene: &Scene, id: impl Fn(usize) -> String) {
    const ASKED: usize = 10_000;
    let answer_what_is_taken = || {
        while let Ok(Command::Reload { id }) = scene.device.commands.try_recv() {
            let body = json!({"id": id, "ok": true, "message": "reloaded"});
            let command = vedetta::config::CommandName::Reload;
            scene
                .device
                .publisher
                .send(Outgoing::Reply { command, body });
        }
    };
    for n in 0..ASKED {
        scene.ask("reload", json!({"id": id(n)}).to_string());
        answer_what_is_taken();
    }
    let topic = format!("{BASE}/reply/reload");
    let mut answered = 0;
    while answered < ASKED {
        until("another answer", || {
            answer_what_is_taken();
            scene.listener.count(&topic) > answered
        });
        answered = scene.listener.count(&topic);
    }
    let ids: BTreeSet<String> = (scene.listener.all().iter())
        .filter(|heard| heard.topic == topic)
        .map(|heard| heard.json()["id"].to_string())
        .collect();
    assert_eq!((answered, ids.len()), (ASKED, ASKED));
    let health = scene.health();
    assert_eq!((health.dropped_messages, health.mqtt.connections), (0, 1));
}

#[test]
fn every_one_of_ten_thousand_requests_is_answered() {
    let Some(scene) = scene("") else { return };
    burst(&scene, |n| n.to_string());
}

/// Their answers do not fit into the device all at once: the broker has to keep requests back.
fn kept_back(version: &str) {
    let limited = |_: &std::path::Path| "max_inflight_messages 20\n".to_owned();
    let Some(broker) = Broker::with(limited) else {
        return;
    };
    let scene = Scene::with(broker, &format!("version = \"{version}\""));
    burst(&scene, |n| format!("{n:05}{}", "\u{1F34C}".repeat(120)));
}

#[test]
fn ten_thousand_long_requests_are_answered_with_mqtt_5() {
    kept_back("5");
}

#[test]
fn ten_thousand_long_requests_are_answered_with_mqtt_3_1_1() {
    kept_back("3.1.1");
}

#[test]
fn ten_megabytes_do_not_reach_a_device_with_mqtt_5() {
    let Some(scene) = scene("") else { return };
    scene.ask("reload", vec![b'x'; 10 << 20]);
    scene.ask("reload", r#"{"id":1}"#);
    assert!(matches!(scene.device.command(), Command::Reload { .. }));
    assert_eq!(scene.health().mqtt.connections, 1);
}

#[test]
fn ten_megabytes_cost_a_connection_with_mqtt_3_1_1_and_it_recovers() {
    let Some(scene) = scene("version = \"3.1.1\"") else {
        return;
    };
    scene.ask("reload", vec![b'x'; 10 << 20]);
    until("the loss to be seen", || {
        !scene.device.publisher.is_connected()
    });
    scene.device.wait_connected();
    scene.listener.wait_count(&format!("{BASE}/status"), 2);
    scene.ask("reload", r#"{"id":1}"#);
    assert!(matches!(scene.device.command(), Command::Reload { .. }));
    let mqtt = scene.health().mqtt;
    assert_eq!((mqtt.oversized, mqtt.connections), (1, 2));
}

#[test]
fn a_retained_giant_turns_commands_off_and_not_the_device() {
    let Some(scene) = scene("version = \"3.1.1\"") else {
        return;
    };
    let giant = vec![b'x'; 1 << 20];
    scene
        .listener
        .say_retained(&format!("{BASE}/command/reload"), giant);
    let topic = format!("{BASE}/health");
    until("three connections", || {
        // Health is forgotten while there is no connection: ask again and again.
        scene
            .device
            .publisher
            .send(Outgoing::Health(Box::default()));
        let all = scene.listener.all();
        let last = all.iter().rfind(|heard| heard.topic == topic);
        last.is_some_and(|heard| heard.json()["mqtt"]["connections"] == 3)
    });
    scene.device.publisher.send(crate::device::event(1));
    scene.listener.wait(&format!("{BASE}/event"), |_| true);
    let mqtt = scene.health().mqtt;
    assert_eq!(
        (mqtt.oversized, mqtt.connections, mqtt.commands_off),
        (2, 3, 1)
    );
}
