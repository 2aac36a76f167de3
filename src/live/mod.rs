//! What a subscriber knows of one or more devices, from topics and payloads alone, as a table.
//!
//! `vedetta watch` and `vedetta demo` show it; both see exactly what any other subscriber sees.

mod screen;

pub use screen::Screen;

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use crate::event::{Attributes, Event, EventType, Health, Info};

/// Messages kept for the list below the table.
const MESSAGES: usize = 10;
/// Rows a hostile or very large broker can make us keep.
const MAX_ROWS: usize = 1000;
/// Payloads longer than this are not looked into.
const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// One zone and label of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// `ON`, `OFF`, `UNKNOWN`; empty before the first.
    pub state: String,
    /// Numbers beside it.
    pub attributes: Option<Attributes>,
    /// The prompt people read, from the last event.
    pub prompt: Option<String>,
}

/// Everything that was heard under one topic prefix.
#[derive(Clone, Debug, Default)]
pub struct Live {
    prefix: String,
    /// Device status by device.
    pub devices: BTreeMap<String, String>,
    /// Camera status by device and camera.
    pub cameras: BTreeMap<(String, String), String>,
    /// Rows by device, zone and label.
    pub rows: BTreeMap<(String, String, String), Row>,
    /// Last health by device.
    pub health: BTreeMap<String, Health>,
    /// Last info by device.
    pub info: BTreeMap<String, Info>,
    /// The newest messages, oldest first: topic and payload, shortened.
    pub messages: VecDeque<(String, String)>,
    /// Messages heard.
    pub heard: u64,
    /// Events heard, by type.
    pub events: BTreeMap<&'static str, u64>,
    /// Labels confirmed at least once.
    pub confirmed: BTreeMap<String, u64>,
    /// Messages that could not be understood.
    pub garbled: u64,
}

impl Live {
    /// Listens under `prefix` (`vedetta`).
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: format!("{}/", prefix.trim_end_matches('/')),
            ..Self::default()
        }
    }

    /// The filter to subscribe to.
    pub fn filter(&self) -> String {
        format!("{}#", self.prefix)
    }

    /// Takes one message in. Anything may arrive: what is not understood is counted.
    pub fn hear(&mut self, topic: &str, payload: &[u8]) {
        self.heard += 1;
        if !self.understand(topic, payload) {
            self.garbled += 1;
        }
    }

    fn understand(&mut self, topic: &str, payload: &[u8]) -> bool {
        let Some(rest) = topic.strip_prefix(&self.prefix) else {
            return false;
        };
        let Some((device, rest)) = rest.split_once('/') else {
            return false;
        };
        let levels: Vec<&str> = rest.split('/').collect();
        if payload.len() > MAX_PAYLOAD_BYTES || topic.len() > 512 {
            return false;
        }
        let text = std::str::from_utf8(payload).ok();
        let device = device.to_owned();
        let loud = match (levels.as_slice(), text) {
            (["camera", _, "snapshot"] | ["evidence", _], _) => {
                let shown = format!("<JPEG, {} KiB>", payload.len().div_ceil(1024));
                self.remember(topic, &shown);
                return true;
            }
            (_, None) => return false,
            (["status"], Some(text)) => {
                insert_capped(&mut self.devices, device, text.to_owned());
                true
            }
            (["camera", camera, "status"], Some(text)) => {
                let key = (device, (*camera).to_owned());
                insert_capped(&mut self.cameras, key, text.to_owned());
                true
            }
            (["zone", zone, label, "state"], Some(text)) => {
                let key = (device, (*zone).to_owned(), (*label).to_owned());
                if text.is_empty() {
                    self.rows.remove(&key);
                } else if let Some(row) = self.row(key) {
                    text.clone_into(&mut row.state);
                }
                true
            }
            (["zone", zone, label, "attributes"], Some(text)) => {
                let key = (device, (*zone).to_owned(), (*label).to_owned());
                match parse(text) {
                    Some(attributes) => {
                        if let Some(row) = self.row(key) {
                            row.attributes = Some(attributes);
                        }
                    }
                    None if text.is_empty() => {}
                    None => return false,
                }
                false
            }
            (["event"], Some(text)) => {
                let Some(event) = parse::<Event>(text) else {
                    return false;
                };
                self.event(device, &event);
                true
            }
            (["health"], Some(text)) => {
                let Some(health) = parse(text) else {
                    return false;
                };
                insert_capped(&mut self.health, device, health);
                false
            }
            (["info"], Some(text)) => {
                let Some(info) = parse(text) else {
                    return false;
                };
                insert_capped(&mut self.info, device, info);
                true
            }
            (["config" | "command" | "reply", ..], Some(_)) => true,
            _ => return false,
        };
        if loud {
            self.remember(topic, text.unwrap_or_default());
        }
        true
    }

    fn event(&mut self, device: String, event: &Event) {
        let kind = match event.kind {
            EventType::Confirmed => "confirmed",
            EventType::Updated => "updated",
            EventType::Ended => "ended",
        };
        *self.events.entry(kind).or_default() += 1;
        if event.kind == EventType::Confirmed && self.confirmed.len() < MAX_ROWS {
            *self.confirmed.entry(event.prompt.clone()).or_default() += 1;
        }
        if let Some(row) = self.row((device, event.zone.clone(), event.label.clone())) {
            row.prompt = Some(event.prompt.clone());
        }
    }

    fn row(&mut self, key: (String, String, String)) -> Option<&mut Row> {
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&key) {
            return None;
        }
        Some(self.rows.entry(key).or_default())
    }

    fn remember(&mut self, topic: &str, payload: &str) {
        if self.messages.len() == MESSAGES {
            self.messages.pop_front();
        }
        let shown: String = payload
            .chars()
            .filter(|c| !c.is_control())
            .take(400)
            .collect();
        let topic = topic.chars().filter(|c| !c.is_control()).collect();
        self.messages.push_back((topic, shown));
    }
}

fn insert_capped<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) {
    if map.len() < MAX_ROWS || map.contains_key(&key) {
        map.insert(key, value);
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_numbers_of_a_zone_meet_in_one_row() {
        let mut live = Live::new("vedetta");
        live.hear("vedetta/negozio/zone/corsia/banana/state", b"ON");
        live.hear(
            "vedetta/negozio/zone/corsia/banana/attributes",
            br#"{"probability":0.83,"margin":0.3,"since":"2026-10-02T09:13:20Z"}"#,
        );
        let row = &live.rows[&("negozio".into(), "corsia".into(), "banana".into())];
        assert_eq!(row.state, "ON");
        assert_eq!(row.attributes.as_ref().unwrap().probability, 0.83);
        assert_eq!((live.heard, live.garbled), (2, 0));
    }

    #[test]
    fn a_cleared_state_removes_its_row() {
        let mut live = Live::new("vedetta");
        live.hear("vedetta/a/zone/z/l/state", b"OFF");
        live.hear("vedetta/a/zone/z/l/state", b"");
        assert!(live.rows.is_empty());
    }

    #[test]
    fn what_is_not_ours_is_counted_and_kept_out() {
        let mut live = Live::new("vedetta");
        for (topic, payload) in [
            ("other/a/status", b"online".as_slice()),
            ("vedetta/a/zone/z/l/attributes", b"{"),
            ("vedetta/a/event", b"[[[[["),
            ("vedetta/a/status", b"\xff\xfe"),
            ("vedetta/", b""),
            ("vedetta/a/b/c/d/e/f", b"x"),
        ] {
            live.hear(topic, payload);
        }
        assert_eq!((live.heard, live.garbled), (6, 6));
        assert!(live.rows.is_empty() && live.devices.is_empty());
    }

    #[test]
    fn a_flood_of_topics_does_not_grow_the_table_without_bound() {
        let mut live = Live::new("vedetta");
        for n in 0..2 * MAX_ROWS {
            live.hear(&format!("vedetta/a/zone/z{n}/l/state"), b"ON");
            live.hear(&format!("vedetta/a{n}/status"), b"online");
        }
        assert!(live.rows.len() <= MAX_ROWS && live.devices.len() <= MAX_ROWS);
        assert_eq!(live.messages.len(), MESSAGES);
    }
}
