//! What a subscriber knows of one or more devices, from topics and payloads alone, as a table.
//!
//! `vedetta watch` and `vedetta demo` show it; both see exactly what any other subscriber sees.

pub mod line;
mod page;
mod screen;
mod subscriber;
mod thumbnail;

pub use page::{Page, Size};
pub use screen::Screen;
pub use subscriber::{Address, Heard, Subscriber};
pub use thumbnail::Thumbnail;

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use crate::event::{Attributes, Event, Health, Info};

/// Messages kept for the list below the table, and between two prints where there is no table.
const MESSAGES: usize = 512;
/// Rows a hostile or very large broker can make us keep.
const MAX_ROWS: usize = 1000;
/// Payloads longer than this are not looked into.
const MAX_PAYLOAD_BYTES: usize = 256 * 1024;
/// Events longer than this are counted, and listed as text only: ours have a few hundred bytes.
const MAX_EVENT_BYTES: usize = 8 * 1024;

/// One zone and label of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// `ON`, `OFF`, `UNKNOWN`; empty before the first.
    pub state: String,
    /// Numbers beside it.
    pub attributes: Option<Attributes>,
}

/// What a device reports of one of its labels under `B/config/`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSettings {
    /// The prompt people read.
    pub prompt: Option<String>,
    /// The enter threshold, 0–1.
    pub threshold: Option<f32>,
}

/// One message of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its topic, without control characters.
    pub topic: String,
    /// Its payload, shortened and without control characters.
    pub payload: String,
    /// The event it carried.
    pub event: Option<Box<Event>>,
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
    /// Prompt and threshold by device and label.
    pub settings: BTreeMap<(String, String), LabelSettings>,
    /// Last health by device; its encode times are those of the last period that had any.
    pub health: BTreeMap<String, Health>,
    /// Last info by device.
    pub info: BTreeMap<String, Info>,
    /// The newest messages, oldest first. Health and the numbers beside a state are left out: they
    /// come all the time and the table shows them.
    pub messages: VecDeque<Message>,
    /// Messages that were ever put into `messages`.
    pub listed: u64,
    /// Messages heard.
    pub heard: u64,
    /// Events heard, by type.
    pub events: BTreeMap<&'static str, u64>,
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
        if let ["camera", _, "snapshot"] | ["evidence", _] = levels.as_slice() {
            let shown = format!("<JPEG, {} KiB>", payload.len().div_ceil(1024));
            self.list(topic, &shown, None);
            return true;
        }
        let Ok(text) = std::str::from_utf8(payload) else {
            return false;
        };
        let mut event = None;
        match levels.as_slice() {
            ["status"] => set(&mut self.devices, device.to_owned(), text),
            ["camera", camera, "status"] => {
                let key = (device.to_owned(), (*camera).to_owned());
                set(&mut self.cameras, key, text);
            }
            ["zone", zone, label, "state"] => self.state(device, zone, label, text),
            ["zone", zone, label, "attributes"] => {
                return self.attributes(device, zone, label, text);
            }
            ["event"] => match parse::<Event>(text) {
                Some(parsed) => {
                    *self.events.entry(parsed.kind.as_str()).or_default() += 1;
                    event = (text.len() <= MAX_EVENT_BYTES).then(|| Box::new(parsed));
                }
                None => return false,
            },
            ["health"] => return self.health(device, text),
            ["info"] => {
                if !set_parsed(&mut self.info, device, text) {
                    return false;
                }
            }
            ["config", label, setting] => self.setting(device, label, setting, text),
            ["config" | "command" | "reply", ..] => {}
            _ => return false,
        }
        self.list(topic, text, event);
        true
    }

    fn state(&mut self, device: &str, zone: &str, label: &str, state: &str) {
        let key = (device.to_owned(), zone.to_owned(), label.to_owned());
        if state.is_empty() {
            self.rows.remove(&key);
        } else if let Some(row) = entry_capped(&mut self.rows, key) {
            state.clone_into(&mut row.state);
        }
    }

    fn attributes(&mut self, device: &str, zone: &str, label: &str, text: &str) -> bool {
        let key = (device.to_owned(), zone.to_owned(), label.to_owned());
        // Cleared together with its state.
        if text.is_empty() {
            return true;
        }
        let Some(attributes) = parse(text) else {
            return false;
        };
        if let Some(row) = entry_capped(&mut self.rows, key) {
            row.attributes = Some(attributes);
        }
        true
    }

    fn health(&mut self, device: &str, text: &str) -> bool {
        let before = self.health.get(device);
        let before = before.map_or((None, None), |h| (h.encode_p50_ms, h.encode_p95_ms));
        if !set_parsed(&mut self.health, device, text) {
            return false;
        }
        if let Some(health) = self.health.get_mut(device)
            && health.encode_p50_ms.is_none()
        {
            // Nothing was encoded in this period: the last numbers still hold.
            (health.encode_p50_ms, health.encode_p95_ms) = before;
        }
        true
    }

    fn setting(&mut self, device: &str, label: &str, setting: &str, value: &str) {
        let key = (device.to_owned(), label.to_owned());
        let Some(settings) = entry_capped(&mut self.settings, key) else {
            return;
        };
        match setting {
            "prompt" => settings.prompt = Some(value.chars().take(256).collect()),
            "threshold" => settings.threshold = value.parse().ok(),
            _ => {}
        }
    }

    fn list(&mut self, topic: &str, payload: &str, event: Option<Box<Event>>) {
        if self.messages.len() == MESSAGES {
            self.messages.pop_front();
        }
        let clean = |text: &str, most| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(most)
                .collect()
        };
        let (topic, payload) = (clean(topic, 512), clean(payload, 1000));
        self.messages.push_back(Message {
            topic,
            payload,
            event,
        });
        self.listed += 1;
    }
}

fn entry_capped<K: Ord, V: Default>(map: &mut BTreeMap<K, V>, key: K) -> Option<&mut V> {
    if map.len() >= MAX_ROWS && !map.contains_key(&key) {
        return None;
    }
    Some(map.entry(key).or_default())
}

fn set<K: Ord>(map: &mut BTreeMap<K, String>, key: K, text: &str) {
    if let Some(value) = entry_capped(map, key) {
        *value = text.chars().take(64).collect();
    }
}

fn set_parsed<T: for<'a> Deserialize<'a>>(
    map: &mut BTreeMap<String, T>,
    device: &str,
    text: &str,
) -> bool {
    let Some(value) = parse(text) else {
        return false;
    };
    if map.len() < MAX_ROWS || map.contains_key(device) {
        map.insert(device.to_owned(), value);
    }
    true
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
        assert_eq!((live.heard, live.garbled, live.listed), (2, 0, 1));
    }

    #[test]
    fn encode_times_outlive_a_period_in_which_nothing_changed() {
        let mut live = Live::new("vedetta");
        let mut health = Health::default();
        let reports = [
            (None, None),
            (Some(40.0), Some(40.0)),
            (None, Some(40.0)),
            (Some(50.0), Some(50.0)),
        ];
        for (p50, shown) in reports {
            health.encode_p50_ms = p50;
            live.hear("vedetta/a/health", &serde_json::to_vec(&health).unwrap());
            assert_eq!(live.health["a"].encode_p50_ms, shown);
        }
    }

    #[test]
    fn what_a_device_reports_of_its_labels_is_known() {
        let mut live = Live::new("vedetta");
        live.hear("vedetta/a/config/mela/prompt", "una mela".as_bytes());
        live.hear("vedetta/a/config/mela/threshold", b"0.7");
        let settings = &live.settings[&("a".into(), "mela".into())];
        assert_eq!(settings.prompt.as_deref(), Some("una mela"));
        assert_eq!(settings.threshold, Some(0.7));
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
            live.hear(&format!("vedetta/a/config/l{n}/prompt"), b"x");
        }
        assert!(live.rows.len() <= MAX_ROWS && live.devices.len() <= MAX_ROWS);
        assert!(live.settings.len() <= MAX_ROWS);
        assert_eq!(live.messages.len(), MESSAGES);
    }
}
