//! Topics and payloads as a broker may deliver them, at both ends: the daemon's commands and what
//! `vedetta watch` hears.

use vedetta::config::Id;
use vedetta::live::Live;
use vedetta::publish::request;
use vedetta::topics::{COMMANDS, Topics};

/// A topic, a line break, a payload.
pub fn read(input: &[u8]) -> bool {
    let split = input
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(input.len());
    let (topic, payload) = input.split_at(split);
    let topic = String::from_utf8_lossy(topic);
    let device = Id::new("negozio-1").expect("it is an id");
    let topics = Topics::new("vedetta", &device);
    let asked = request::read(&topics, &COMMANDS, &topic, payload);
    for name in COMMANDS {
        let _ = request::read(&topics, &COMMANDS, &topics.command(name), payload);
    }
    let mut live = Live::new("vedetta");
    live.hear(&topic, payload);
    asked.is_some_and(|command| command.is_ok())
}
