//! Brokers and wires that fail, processes that are killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vedetta::event::{CameraStatus, QueueHealth};
use vedetta::publish::Outgoing;

use crate::broker::{Broker, Wire, free_port};
use crate::device::{BASE, Device, event, id, pictured, until};
use crate::listener::{Heard, Listener};
use crate::puppet::{CONNECT, PINGREQ, PUBLISH, Puppet};

fn topic(rest: &str) -> String {
    format!("{BASE}/{rest}")
}

fn assert_in_order(first: &[u64]) {
    assert!(first.windows(2).all(|pair| pair[0] < pair[1]), "{first:?}");
}

fn is_delayed(heard: &Heard) -> bool {
    heard.json()["delayed"].as_bool().unwrap()
}

#[test]
fn a_broker_restart_in_mid_stream_loses_nothing_and_keeps_the_order() {
    let Some(mut broker) = Broker::start() else {
        return;
    };
    let wire = Wire::to(&broker);
    let listener = Listener::on(broker.port);
    let device = Device::start(wire.port, "");
    device.publisher.send(Outgoing::Camera {
        camera: id("corsia4"),
        status: CameraStatus::Lost,
    });
    device.wait_connected();
    for n in 1..=100 {
        device.publisher.send(event(n));
    }
    listener.wait_count(&topic("event"), 20);
    broker.kill();
    wire.unplug();
    until("the loss to be seen", || !device.publisher.is_connected());
    for n in 101..=200 {
        device.publisher.send(event(n));
    }
    let before = listener.all();
    broker.restart();
    let listener = Listener::on(broker.port);
    wire.mend();

    let heard_before: Vec<u64> = before
        .iter()
        .filter(|heard| heard.topic == topic("event"))
        .map(|heard| heard.json()["sequence"].as_u64().unwrap())
        .collect();
    // What was acknowledged before the kill is not sent again.
    let missing = 101..=200;
    let (first, heard) = listener.wait_sequences(&topic("event"), missing);
    assert_in_order(&heard_before);
    assert_in_order(&first);
    assert!(heard.iter().all(is_delayed));
    for n in 1..=100 {
        assert!(
            heard_before.contains(&n) || first.contains(&n),
            "event {n} is lost"
        );
    }
    listener.wait_text(&topic("status"), "online");
    listener.wait_text(&topic("camera/corsia4/status"), "lost");
    device.publisher.send(event(201));
    let fresh = listener.wait(&topic("event"), |heard| heard.json()["sequence"] == 201);
    assert!(!is_delayed(&fresh));
    until("the last acknowledgement", || {
        device.publisher.queue_health().length == 0
    });
    assert_eq!(device.publisher.queue_health().dropped, 0);
}

fn cuts(version: &str) {
    let Some(broker) = Broker::start() else {
        return;
    };
    let wire = Wire::to(&broker);
    let listener = Listener::on(broker.port);
    let device = Device::start(wire.port, &format!("version = \"{version}\""));
    let mut sent = 0;
    for _ in 0..3 {
        device.wait_connected();
        for _ in 0..40 {
            sent += 1;
            device.publisher.send(pictured(sent, 3000));
        }
        wire.cut();
        until("the loss to be seen", || !device.publisher.is_connected());
    }
    let (first, heard) = listener.wait_sequences(&topic("event"), 1..=sent);
    assert_in_order(&first);
    assert!(heard.iter().any(is_delayed));
    let everything = listener.all();
    // The picture that was under way each of the three times is given up, its event is not.
    let mut without_picture = 0;
    for event in heard {
        let Some(evidence) = event.json()["evidence"].as_str().map(str::to_owned) else {
            without_picture += 1;
            continue;
        };
        let picture = topic(&format!("evidence/{evidence}"));
        let place = |topic: &str| everything.iter().position(|heard| heard.topic == topic);
        assert!(
            place(&picture).is_some(),
            "{picture} was announced and did not come"
        );
    }
    until("the last acknowledgement", || {
        device.publisher.queue_health().length == 0
    });
    let dropped = device.publisher.queue_health().pictures_dropped;
    assert!(without_picture <= 1 && without_picture <= dropped);
}

#[test]
fn a_wire_cut_in_mid_packet_loses_nothing_and_keeps_the_order() {
    cuts("5");
}

#[test]
fn a_wire_cut_in_mid_packet_loses_nothing_with_mqtt_3_1_1() {
    cuts("3.1.1");
}

#[test]
fn events_of_a_run_without_a_broker_come_delayed_in_the_next_run() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let device = Device::start_in(folder.path(), free_port(), "");
    device.publisher.send_all([event(1), event(2)]);
    until("the failure", || device.publisher.last_error().is_some());
    let started = Instant::now();
    assert!(!device.publisher.shutdown(Duration::from_millis(1500)));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a broker that is gone costs no time"
    );
    drop(device);

    let listener = Listener::on(broker.port);
    let device = Device::start_in(folder.path(), broker.port, "");
    device.wait_connected();
    device.publisher.send(event(3));
    let (first, heard) = listener.wait_sequences(&topic("event"), 1..=3);
    assert_eq!(first, [1, 2, 3]);
    assert_eq!(
        heard.iter().map(is_delayed).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(device.publisher.last_error(), None);
}

#[test]
fn a_shutdown_sends_what_waits_and_says_goodbye() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    let device = Device::start(broker.port, "");
    device.wait_connected();
    device.publisher.send_all((1..=50).map(event));
    let lost = Outgoing::Camera {
        camera: id("corsia4"),
        status: CameraStatus::Lost,
    };
    device.publisher.send(lost);
    assert!(device.publisher.shutdown(Duration::from_secs(10)));
    assert_eq!(device.outbox.health().length, 0);
    let (first, _) = listener.wait_sequences(&topic("event"), 1..=50);
    assert_in_order(&first);
    listener.wait_text(&topic("camera/corsia4/status"), "lost");
    listener.wait_text(&topic("status"), "offline");
    let last = listener.all().pop().unwrap();
    assert_eq!(last.topic, topic("status"), "the farewell is the last word");
    // A second publisher of the device, as after a reload, is not disturbed by the first.
    let second = Device::start(broker.port, "");
    second.wait_connected();
    drop(device);
    second.publisher.send(event(51));
    listener.wait(&topic("event"), |heard| {
        heard.json()["id"].as_str().unwrap().ends_with("51")
    });
    assert!(second.publisher.is_connected());
}

#[test]
fn a_broker_that_accepts_and_says_nothing_does_not_delay_a_shutdown() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let device = Device::start(deaf.local_addr().unwrap().port(), "");
    let (_connection, _) = deaf.accept().unwrap();
    device.publisher.send_all([event(1), event(2)]);
    let started = Instant::now();
    assert!(!device.publisher.shutdown(Duration::from_millis(300)));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(device.outbox.health().length, 2);
}

/// Makes this test binary the device that is killed: `<version> <port> <folder>`.
const CHILD: &str = "VEDETTA_TEST_MQTT_CHILD";

fn killed(version: &str, test: &str) {
    if let Ok(orders) = std::env::var(CHILD) {
        let orders: Vec<&str> = orders.splitn(3, ' ').collect();
        let port = orders[1].parse().unwrap();
        let version = format!("version = \"{}\"", orders[0]);
        let device = Device::start_in(Path::new(orders[2]), port, &version);
        device.wait_connected();
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let Some(broker) = Broker::start() else {
        return;
    };
    let listener = Listener::on(broker.port);
    let folder = tempfile::tempdir().unwrap();
    let orders = format!("{version} {} {}", broker.port, folder.path().display());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(CHILD, orders)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    listener.wait_text(&topic("status"), "online");
    child.kill().unwrap();
    child.wait().unwrap();
    let dead = Instant::now();
    listener.wait_text(&topic("status"), "offline");
    if version == "5" {
        assert!(
            dead.elapsed() > Duration::from_secs(8),
            "the will waits for a quick return"
        );
    }
    let late = Listener::on(broker.port);
    assert!(late.wait_text(&topic("status"), "offline").retained);
}

#[test]
fn the_last_will_of_a_killed_process_is_published_after_a_delay() {
    killed(
        "5",
        "faults::the_last_will_of_a_killed_process_is_published_after_a_delay",
    );
}

#[test]
fn the_last_will_of_a_killed_process_is_published_with_mqtt_3_1_1() {
    killed(
        "3.1.1",
        "faults::the_last_will_of_a_killed_process_is_published_with_mqtt_3_1_1",
    );
}

#[test]
fn a_quick_return_is_not_reported_as_offline() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let wire = Wire::to(&broker);
    let listener = Listener::on(broker.port);
    let device = Device::start(wire.port, "");
    listener.wait_text(&topic("status"), "online");
    wire.cut();
    until("the loss to be seen", || !device.publisher.is_connected());
    device.wait_connected();
    listener.wait_count(&topic("status"), 2);
    assert!(
        listener
            .all()
            .iter()
            .all(|heard| heard.payload != b"offline")
    );
}

#[test]
fn the_thread_shows_progress_also_without_a_broker() {
    let device = Device::start(free_port(), "");
    let progress = device.publisher.progress();
    until("the failure", || device.publisher.last_error().is_some());
    let now = progress.load(std::sync::atomic::Ordering::Relaxed);
    until("progress", || {
        progress.load(std::sync::atomic::Ordering::Relaxed) > now + 1
    });
    assert!(!device.publisher.is_connected());
}

/// A picture larger than the broker takes, and an event after it.
fn picture_over_the_limit(version: &str) {
    let Some(broker) = Broker::with(|_| "max_packet_size 50000\n".to_owned()) else {
        return;
    };
    let listener = Listener::on(broker.port);
    let device = Device::start(broker.port, &format!("version = \"{version}\""));
    device.wait_connected();
    device.publisher.send_all([pictured(1, 90_000), event(2)]);
    let (first, heard) = listener.wait_sequences(&topic("event"), 1..=2);
    assert_eq!(first, [1, 2]);
    assert!(heard[0].json()["evidence"].is_null());
    until("the acknowledgements", || {
        device.publisher.queue_health().length == 0
    });
    let QueueHealth {
        dropped,
        pictures_dropped,
        ..
    } = device.publisher.queue_health();
    assert_eq!((dropped, pictures_dropped), (0, 1));
}

#[test]
fn a_picture_over_the_announced_limit_is_left_out_and_counted() {
    picture_over_the_limit("5");
}

#[test]
fn a_picture_the_broker_hangs_up_on_does_not_hold_the_events_with_mqtt_3_1_1() {
    picture_over_the_limit("3.1.1");
}

#[test]
fn a_broker_that_switches_keep_alive_off_is_not_pinged_to_death() {
    // MQTT 5: accepted, with the property Server Keep Alive = 0.
    let broker = Puppet::saying(&[0x20, 6, 0, 0, 3, 0x13, 0, 0]);
    let device = Device::start(broker.port, "discovery = false");
    device.wait_connected();
    for n in 1..=20 {
        device.publisher.send(event(n));
        until("the acknowledgement", || {
            device.publisher.queue_health().length == 0
        });
    }
    // What it is sent besides: that it is online.
    broker.wait(PUBLISH, 21);
    assert!(device.publisher.shutdown(Duration::from_secs(10)));
    assert_eq!(broker.count(CONNECT), 1);
    assert!(
        broker.count(PINGREQ) <= 2,
        "{} pings",
        broker.count(PINGREQ)
    );
}
