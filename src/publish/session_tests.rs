//! A session against a broker on strings.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::link::Options;
use super::listening::Listening;
use super::outbox::Outbox;
use super::publisher::Shared;
use super::session::Session;
use crate::config::{Config, Environment};
use crate::topics::Topics;

#[path = "../../tests/mqtt/puppet.rs"]
mod puppet;

use puppet::{CONNECT, Puppet, SUBSCRIBE};

/// MQTT 3.1.1: accepted, no session.
const ACCEPTED: &[u8] = &[0x20, 2, 0, 0];

#[test]
fn a_connection_that_stands_listens_again_after_the_rest() {
    let broker = Puppet::saying(ACCEPTED);
    let text = format!(
        "device = \"a\"\n[mqtt]\nhost = \"127.0.0.1\"\nport = {}\nversion = \"3.1.1\"\n\
         [[camera]]\nid = \"c\"\ndevice = \"/dev/video0\"\n[[label]]\nnoun = \"mela\"\n",
        broker.port
    );
    let config = Config::from_toml(&text, "vedetta.toml", &[], &Environment::bare()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let topics = Topics::new(&config.mqtt.topic_prefix, &config.device);
    let options = Options {
        mqtt: config.mqtt.clone(),
        tls: None,
        status_topic: topics.status(),
        boot: "7f3a0001".to_owned(),
    };
    let shared = Arc::new(Shared::default());
    let outbox = Outbox::open(folder.path(), config.outbox);
    let (commands, _requests) = sync_channel(1);
    let mut session = Session::new(options, topics, None, Arc::clone(&shared), outbox, commands);
    session.listening = Listening::resting(Duration::from_millis(700));
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime
            .enable_all()
            .build()
            .unwrap()
            .block_on(session.run())
    });
    broker.wait(SUBSCRIBE, 1);
    shared.ask_to_stop(Instant::now() + Duration::from_secs(5));
    assert!(thread.join().unwrap());
    assert_eq!((broker.count(CONNECT), broker.count(SUBSCRIBE)), (1, 1));
}
