//! The serde mirror of the TOML file: every key, unchecked. What the keys mean and what is legal
//! stands in the example configuration and in the checked types of [`super`].

use serde::{Deserialize, Serialize};

use super::read::{Field, Key};

/// `[[…]]`.
pub(super) type List<T> = Key<Vec<Field<T>>>;

/// A key that holds text.
pub(super) type Text = Key<String>;

/// Structs with a [`Key`] per line, each of which may be missing; another key is an error.
macro_rules! tables {
    ($($name:ident { $($key:ident: $value:ty,)* })*) => {$(
        #[derive(Debug, Default, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {
            $(pub $key: Key<$value>,)*
        }
    )*};
}

tables! {
    Config {
        device: String,
        device_name: String,
        state_dir: String,
        log_level: String,
        model: Model,
        update: Update,
        mqtt: Mqtt,
        outbox: Outbox,
        heat: Heat,
        decision: Decision,
        negatives: Negatives,
        label: Vec<Field<Label>>,
        camera: Vec<Field<Camera>>,
    }

    Model {
        bundle: String,
        calibration: String,
        threads: u64,
        backend: String,
    }

    Update {
        public_key: String,
        require_signature: bool,
        ca_file: String,
        trial_s: f64,
    }

    Camera {
        id: String,
        name: String,
        device: String,
        format: String,
        size: Vec<u64>,
        replay: String,
        repeat: bool,
        rate_fps: f64,
        stall_after_s: f64,
        frozen_after_s: f64,
        gate: Gate,
        baseline: Baseline,
        zone: Vec<Field<Zone>>,
    }

    Gate {
        enabled: bool,
        threshold: f64,
        force_every_s: f64,
        dark_below: f64,
    }

    Baseline {
        enabled: bool,
        deviations: f64,
        forget_after_s: f64,
    }

    Zone {
        id: String,
        name: String,
        rectangle: Vec<f64>,
        polygon: Vec<Vec<f64>>,
        labels: Vec<String>,
    }

    Label {
        id: String,
        noun: String,
        prompts: Vec<String>,
        group: String,
        enter: f64,
        leave: f64,
        dwell_s: f64,
        window: u64,
    }

    Decision {
        enter: f64,
        leave: f64,
        dwell_s: f64,
        window: u64,
    }

    Negatives {
        builtin: bool,
        extra: Vec<String>,
    }

    Mqtt {
        host: String,
        port: u64,
        version: String,
        username: String,
        password: String,
        password_file: String,
        client_id: String,
        topic_prefix: String,
        keep_alive_s: u64,
        discovery: bool,
        discovery_prefix: String,
        evidence: bool,
        health_every_s: f64,
        commands: Vec<String>,
        tls: Tls,
    }

    Tls {
        ca_file: String,
        cert_file: String,
        key_file: String,
    }

    Heat {
        enabled: bool,
        start_c: f64,
        step_c: f64,
        hysteresis_c: f64,
    }

    Outbox {
        max_events: u64,
        max_bytes: u64,
        expire_after_s: f64,
    }
}
