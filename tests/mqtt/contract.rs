//! Every topic of the contract, in both protocol versions.

use serde_json::json;
use vedetta::config::CommandName;
use vedetta::event::{Attributes, CameraStatus, Health, Info, SCHEMA, UpdateInfo, ZoneState};
use vedetta::publish::Outgoing;
use vedetta::topics::Setting;

use crate::broker::Broker;
use crate::device::{BASE, DISCOVERY, Device, config, event, id, pictured};
use crate::listener::Listener;

fn zone(state: ZoneState) -> Outgoing {
    Outgoing::Zone {
        zone: id("r2-f07"),
        label: id("scaffale-vuoto"),
        state,
        attributes: Attributes {
            probability: 0.83,
            margin: 0.31,
            since: "2026-10-02T09:13:20Z".parse().unwrap(),
        },
    }
}

fn info() -> Outgoing {
    Outgoing::Info(Box::new(Info {
        schema: SCHEMA,
        version: "0.1.0".to_owned(),
        bundle: "demo@sha256:ab12".to_owned(),
        language: "it".to_owned(),
        boot: "7f3a0001".to_owned(),
        backend: "tract-cpu f32, 1 thread".to_owned(),
        machine: "test".to_owned(),
        update: UpdateInfo::default(),
    }))
}

fn everything() -> Vec<Outgoing> {
    vec![
        info(),
        zone(ZoneState::On),
        Outgoing::Camera {
            camera: id("corsia4"),
            status: CameraStatus::Online,
        },
        Outgoing::Snapshot {
            camera: id("corsia4"),
            jpeg: vec![0xff, 0xd8, 0xff],
        },
        Outgoing::Health(Box::default()),
        Outgoing::ConfigValue {
            label: id("scaffale-vuoto"),
            setting: Setting::Threshold,
            value: "0.7".to_owned(),
        },
        Outgoing::ConfigValue {
            label: id("scaffale-vuoto"),
            setting: Setting::Prompt,
            value: "uno scaffale vuoto".to_owned(),
        },
        Outgoing::Reply {
            command: CommandName::Pause,
            body: json!({"id": "a", "ok": true}),
        },
        pictured(1, 90_000),
    ]
}

fn every_topic(version: &str) {
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    let device = Device::start(broker.port, &format!("version = \"{version}\""));
    device.wait_connected();
    device.publisher.send_all(everything());

    let topic = |rest: &str| format!("{BASE}/{rest}");
    let state = "zone/r2-f07/scaffale-vuoto/state";
    let texts = [
        ("status", "online"),
        (state, "ON"),
        ("camera/corsia4/status", "online"),
        ("config/scaffale-vuoto/threshold", "0.7"),
        ("config/scaffale-vuoto/prompt", "uno scaffale vuoto"),
    ];
    for (rest, text) in texts {
        assert_eq!(listener.wait_text(&topic(rest), text).qos, 1, "{rest}");
    }
    let attributes = listener.wait(&topic("zone/r2-f07/scaffale-vuoto/attributes"), |_| true);
    assert_eq!(attributes.qos, 0);
    assert_eq!(attributes.json()["probability"], json!(0.83));
    assert_eq!(
        listener.wait(&topic("info"), |_| true).json()["language"],
        "it"
    );
    let health = listener.wait(&topic("health"), |_| true);
    let read: Health = serde_json::from_slice(&health.payload).unwrap();
    assert!(read.queue.durable);
    assert_eq!((health.qos, read.mqtt.connections), (0, 1));
    assert_eq!(
        listener.wait(&topic("reply/pause"), |_| true).json()["id"],
        "a"
    );
    let discovery = listener.wait(DISCOVERY, |_| true);
    assert_eq!(discovery.json()["dev"]["ids"], json!(["vedetta_negozio-1"]));

    let event = listener.wait(&topic("event"), |_| true);
    let body = event.json();
    assert_eq!(
        (&body["sequence"], &body["delayed"]),
        (&json!(1), &json!(false))
    );
    let evidence = topic(&format!("evidence/{}", body["evidence"].as_str().unwrap()));
    let picture = listener.wait(&evidence, |_| true);
    assert_eq!(picture.payload.len(), 90_000);
    let order: Vec<String> = listener
        .all()
        .into_iter()
        .map(|heard| heard.topic)
        .collect();
    let place = |topic: &String| order.iter().position(|heard| heard == topic).unwrap();
    assert!(
        place(&evidence) < place(&event.topic),
        "the picture comes first"
    );

    let late = Listener::on(broker.port);
    for rest in [
        "status",
        "info",
        state,
        "camera/corsia4/status",
        "camera/corsia4/snapshot",
    ] {
        assert!(late.wait(&topic(rest), |_| true).retained, "{rest}");
    }
    assert!(late.wait(DISCOVERY, |_| true).retained);
    late.wait(&topic("config/scaffale-vuoto/threshold"), |heard| {
        heard.retained
    });
    late.wait(&topic("zone/r2-f07/scaffale-vuoto/attributes"), |heard| {
        heard.retained
    });
    for heard in late.all() {
        let fleeting = ["event", "health", "reply/pause"].map(topic);
        assert!(
            !fleeting.contains(&heard.topic),
            "{} is not retained",
            heard.topic
        );
    }

    if version == "5" {
        for heard in [&event, &picture, &health] {
            assert_eq!(heard.user_property("schema"), Some("1"));
            assert_eq!(heard.user_property("boot"), Some("7f3a0001"));
        }
        let expiry = |heard: &crate::listener::Heard| heard.properties.message_expiry_interval;
        assert!((86_390..=86_400).contains(&expiry(&event).unwrap()));
        assert!((3590..=3600).contains(&expiry(&picture).unwrap()));
        assert!((80..=90).contains(&expiry(&health).unwrap()));
        assert_eq!(
            picture.properties.content_type.as_deref(),
            Some("image/jpeg")
        );
    }
    crate::device::until("the acknowledgement", || {
        device.publisher.queue_health().length == 0
    });
    assert!(device.publisher.shutdown(std::time::Duration::from_secs(5)));
    listener.wait_text(&topic("status"), "offline");
}

#[test]
fn every_topic_arrives_with_mqtt_5() {
    every_topic("5");
}

#[test]
fn every_topic_arrives_with_mqtt_3_1_1() {
    every_topic("3.1.1");
}

#[test]
fn a_zone_that_is_gone_has_its_retained_topics_cleared() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    let device = Device::start(broker.port, "");
    device.publisher.send_all([zone(ZoneState::On), event(1)]);
    let topic = format!("{BASE}/zone/r2-f07/scaffale-vuoto/state");
    listener.wait_text(&topic, "ON");
    let gone = Outgoing::RemovedZone {
        zone: id("r2-f07"),
        label: id("scaffale-vuoto"),
    };
    device.publisher.send(gone);
    listener.wait_text(&topic, "");
    listener.wait_text(&format!("{BASE}/zone/r2-f07/scaffale-vuoto/attributes"), "");
    let late = Listener::on(broker.port);
    late.wait_text(&format!("{BASE}/status"), "online");
    assert!(
        late.all()
            .iter()
            .all(|heard| !heard.topic.contains("/zone/"))
    );
}

#[test]
fn home_assistant_coming_online_gets_the_device_announced_again() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    let device = Device::start(broker.port, "");
    listener.wait_count(DISCOVERY, 1);
    listener.say("homeassistant/status", "offline");
    listener.say("homeassistant/status", "online");
    let announced = listener.wait_count(DISCOVERY, 2);
    assert_eq!(announced[0].payload, announced[1].payload);
    assert!(device.commands.try_recv().is_err());
}

/// The component of the label that the device starts with.
const GONE: &str = "zone_r2-f07_scaffale-vuoto";

fn without_the_label(folder: &std::path::Path, port: u16) -> vedetta::config::Config {
    let mut config = config(folder, port, "");
    config.labels[0].id = id("mela");
    config
}

#[test]
fn entities_that_are_gone_are_removed_by_name_after_a_reload() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    let folder = tempfile::tempdir().unwrap();
    let device = Device::start_in(folder.path(), broker.port, "");
    let first = listener.wait_count(DISCOVERY, 1).remove(0).json();
    assert_eq!(first["cmps"][GONE]["p"], "binary_sensor");
    device.publisher.send(Outgoing::ConfigValue {
        label: id("scaffale-vuoto"),
        setting: Setting::Threshold,
        value: "0.7".to_owned(),
    });
    let threshold = format!("{BASE}/config/scaffale-vuoto/threshold");
    listener.wait_text(&threshold, "0.7");
    assert!(
        device
            .publisher
            .announce(&without_the_label(folder.path(), broker.port))
    );
    let heard = listener.wait_count(DISCOVERY, 3);
    assert_eq!(heard[1].json()["cmps"][GONE], json!({"p": "binary_sensor"}));
    assert!(heard[2].json()["cmps"].get(GONE).is_none());
    assert!(heard[2].json()["cmps"].get("zone_r2-f07_mela").is_some());
    listener.wait_text(&threshold, "");
    let other_broker = without_the_label(folder.path(), broker.port + 1);
    assert!(!device.publisher.announce(&other_broker));
}

#[test]
fn entities_that_are_gone_are_removed_by_name_after_a_restart() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    let mut old = json!({"cmps": {}});
    old["cmps"][GONE] = json!({"p": "binary_sensor"});
    old["cmps"]["zone_old_old"] = json!({"p": "binary_sensor", "name": "old"});
    listener.say_retained(DISCOVERY, old.to_string());
    listener.wait_count(DISCOVERY, 1);
    let _device = Device::start(broker.port, "");
    let heard = listener.wait_count(DISCOVERY, 4);
    let old_in = |n: usize| heard[n].json()["cmps"].get("zone_old_old").cloned();
    assert_eq!(old_in(1), None);
    assert_eq!(old_in(2), Some(json!({"p": "binary_sensor"})));
    assert_eq!(old_in(3), None);
    assert!(Listener::on(broker.port).wait(DISCOVERY, |_| true).retained);
}

#[test]
fn without_discovery_nothing_is_announced() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    let device = Device::start(broker.port, "discovery = false");
    device.publisher.send(event(1));
    listener.wait(&format!("{BASE}/event"), |_| true);
    assert!(
        listener
            .all()
            .iter()
            .all(|heard| heard.topic.starts_with(BASE))
    );
}
