//! The serde mirror of the TOML file: every key, unchecked. What the keys mean and what is legal
//! stands in the example configuration and in the checked types of [`super`].

use serde::{Deserialize, Serialize};

use super::read::{Field, Key};

/// `[[…]]`.
pub(super) type List<T> = Key<Vec<Field<T>>>;

/// A key that holds text.
pub(super) type Text = Key<String>;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub device: Key<String>,
    pub device_name: Key<String>,
    pub state_dir: Key<String>,
    pub log_level: Key<String>,
    pub model: Key<Model>,
    pub mqtt: Key<Mqtt>,
    pub outbox: Key<Outbox>,
    pub decision: Key<Decision>,
    pub negatives: Key<Negatives>,
    pub label: List<Label>,
    pub camera: List<Camera>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Model {
    pub bundle: Key<String>,
    pub threads: Key<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Camera {
    pub id: Key<String>,
    pub name: Key<String>,
    pub device: Key<String>,
    pub format: Key<String>,
    pub size: Key<Vec<u64>>,
    pub replay: Key<String>,
    pub repeat: Key<bool>,
    pub rate_fps: Key<f64>,
    pub stall_after_s: Key<f64>,
    pub frozen_after_s: Key<f64>,
    pub gate: Key<Gate>,
    pub zone: List<Zone>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Gate {
    pub enabled: Key<bool>,
    pub threshold: Key<f64>,
    pub force_every_s: Key<f64>,
    pub dark_below: Key<f64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Zone {
    pub id: Key<String>,
    pub name: Key<String>,
    pub rectangle: Key<Vec<f64>>,
    pub polygon: Key<Vec<Vec<f64>>>,
    pub labels: Key<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Label {
    pub id: Key<String>,
    pub noun: Key<String>,
    pub prompts: Key<Vec<String>>,
    pub group: Key<String>,
    pub enter: Key<f64>,
    pub leave: Key<f64>,
    pub dwell_s: Key<f64>,
    pub window: Key<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Decision {
    pub enter: Key<f64>,
    pub leave: Key<f64>,
    pub dwell_s: Key<f64>,
    pub window: Key<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Negatives {
    pub builtin: Key<bool>,
    pub extra: Key<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mqtt {
    pub host: Key<String>,
    pub port: Key<u64>,
    pub version: Key<String>,
    pub username: Key<String>,
    pub password: Key<String>,
    pub password_file: Key<String>,
    pub client_id: Key<String>,
    pub topic_prefix: Key<String>,
    pub keep_alive_s: Key<u64>,
    pub discovery: Key<bool>,
    pub discovery_prefix: Key<String>,
    pub evidence: Key<bool>,
    pub health_every_s: Key<f64>,
    pub commands: Key<Vec<String>>,
    pub tls: Key<Tls>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    pub ca_file: Key<String>,
    pub cert_file: Key<String>,
    pub key_file: Key<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Outbox {
    pub max_events: Key<u64>,
    pub max_bytes: Key<u64>,
    pub expire_after_s: Key<f64>,
}
