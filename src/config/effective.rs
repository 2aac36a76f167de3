//! The effective configuration as TOML, every default filled in, secrets hidden.

use std::path::Path;
use std::time::Duration;

use super::checked::{COMMANDS, FORMATS, LOG_LEVELS, VERSIONS};
use super::read::{Field, key};
use super::{Camera, Config, Label, Mqtt, PromptSource, Rule, Shape, Source, Zone, defaults, raw};
use crate::encoder::BACKENDS;

/// What stands for a password.
const HIDDEN: &str = "(hidden)";

impl Config {
    /// The configuration as TOML that would give it again, but for the password.
    pub fn to_toml(&self) -> String {
        let raw = raw::Config {
            device: text(&self.device),
            device_name: text(&self.device_name),
            state_dir: path(&self.state_dir),
            log_level: word(self.log_level, &LOG_LEVELS),
            model: key(raw::Model {
                // One that is not named is looked for again.
                bundle: match self.model.shipped {
                    None => path(&self.model.bundle),
                    Some(_) => None,
                },
                calibration: self.model.calibration.as_deref().and_then(path),
                threads: whole(self.model.threads.get()),
                backend: word(self.model.backend, &BACKENDS),
            }),
            update: key(raw::Update {
                public_key: self.update.public_key.as_ref().and_then(text),
                require_signature: key(self.update.require_signature),
                ca_file: path(&self.update.ca_file),
                trial_s: seconds(self.update.trial),
            }),
            mqtt: key(mqtt(&self.mqtt)),
            outbox: key(raw::Outbox {
                max_events: whole(self.outbox.max_events),
                max_bytes: key(self.outbox.max_bytes),
                expire_after_s: seconds(self.outbox.expire_after),
            }),
            heat: key(raw::Heat {
                enabled: key(self.heat.enabled),
                start_c: self.heat.start_c.and_then(number),
                step_c: number(self.heat.step_c),
                hysteresis_c: number(self.heat.hysteresis_c),
            }),
            decision: None,
            negatives: key(raw::Negatives {
                builtin: key(self.negatives.builtin),
                extra: key(self.negatives.extra.clone()),
            }),
            label: list(&self.labels, label),
            camera: list(&self.cameras, |one| camera(one, &self.labels)),
        };
        // The mirror holds text, numbers and tables only: TOML can say all of it.
        toml::to_string(&raw).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

fn mqtt(mqtt: &Mqtt) -> raw::Mqtt {
    let credentials = mqtt.credentials.as_ref();
    let prefix = mqtt.discovery_prefix.as_deref();
    let commands = mqtt.commands.iter().filter_map(|one| name(*one, &COMMANDS));
    raw::Mqtt {
        host: text(&mqtt.host),
        port: key(u64::from(mqtt.port)),
        version: word(mqtt.version, &VERSIONS),
        username: credentials.and_then(|login| text(&login.username)),
        password: credentials
            .filter(|login| !login.password.is_empty())
            .and_then(|_| text(&HIDDEN)),
        password_file: None,
        client_id: text(&mqtt.client_id),
        topic_prefix: text(&mqtt.topic_prefix),
        keep_alive_s: key(mqtt.keep_alive.as_secs()),
        discovery: key(prefix.is_some()),
        discovery_prefix: text(&prefix.unwrap_or(defaults::DISCOVERY_PREFIX)),
        evidence: key(mqtt.evidence),
        health_every_s: seconds(mqtt.health_every),
        commands: key(commands.map(str::to_owned).collect()),
        tls: mqtt.tls.as_ref().and_then(|tls| {
            let (cert, private) = tls
                .client
                .as_ref()
                .map_or((None, None), |(cert, private)| (path(cert), path(private)));
            key(raw::Tls {
                ca_file: path(&tls.ca_file),
                cert_file: cert,
                key_file: private,
            })
        }),
    }
}

fn label(label: &Label) -> raw::Label {
    let (noun, prompts) = match &label.prompts {
        PromptSource::Noun(noun) => (text(noun), None),
        PromptSource::Prompts(prompts) => (None, key(prompts.clone())),
    };
    let Rule {
        enter,
        leave,
        dwell,
        window,
    } = label.rule;
    raw::Label {
        id: text(&label.id),
        noun,
        prompts,
        group: label.group.as_ref().and_then(text),
        enter: number(enter.get()),
        leave: number(leave.get()),
        dwell_s: seconds(dwell),
        window: whole(window),
    }
}

fn camera(camera: &Camera, labels: &[Label]) -> raw::Camera {
    let mut raw = raw::Camera {
        id: text(&camera.id),
        name: text(&camera.name),
        rate_fps: number(camera.rate_fps),
        stall_after_s: seconds(camera.stall_after),
        frozen_after_s: camera.frozen_after.and_then(seconds),
        gate: key(raw::Gate {
            enabled: key(camera.gate.enabled),
            threshold: number(camera.gate.threshold),
            force_every_s: seconds(camera.gate.force_every),
            dark_below: number(camera.gate.dark_below),
        }),
        baseline: camera.baseline.and_then(|rule| {
            key(raw::Baseline {
                enabled: key(true),
                deviations: number(rule.deviations),
                forget_after_s: seconds(rule.forget_after),
            })
        }),
        zone: list(&camera.zones, |one| zone(one, labels)),
        ..raw::Camera::default()
    };
    match &camera.source {
        Source::V4l2 {
            device,
            format,
            size_px,
        } => {
            raw.device = path(device);
            raw.format = format.and_then(|format| word(format, &FORMATS));
            raw.size = size_px.and_then(|(w, h)| key(vec![u64::from(w), u64::from(h)]));
        }
        Source::Replay { folder, repeat, .. } => {
            raw.replay = path(folder);
            raw.repeat = key(*repeat);
        }
    }
    raw
}

fn zone(zone: &Zone, labels: &[Label]) -> raw::Zone {
    let (rectangle, polygon) = match &zone.shape {
        Shape::Full => (None, None),
        Shape::Rectangle {
            x,
            y,
            width,
            height,
        } => (key([*x, *y, *width, *height].map(widened).to_vec()), None),
        Shape::Polygon(corners) => {
            let corners = corners.iter().map(|corner| corner.map(widened).to_vec());
            (None, key(corners.collect()))
        }
    };
    let named = zone.labels.iter().filter_map(|index| labels.get(*index));
    raw::Zone {
        id: text(&zone.id),
        name: text(&zone.name),
        rectangle,
        polygon,
        labels: key(named.map(|label| label.id.to_string()).collect()),
    }
}

fn text(value: &impl ToString) -> raw::Text {
    key(value.to_string())
}

fn path(path: &Path) -> raw::Text {
    key(path.display().to_string())
}

fn whole(value: usize) -> super::read::Key<u64> {
    key(u64::try_from(value).unwrap_or(u64::MAX))
}

fn number(value: f32) -> super::read::Key<f64> {
    key(widened(value))
}

fn seconds(value: Duration) -> super::read::Key<f64> {
    key(value.as_secs_f64())
}

fn word<T: PartialEq + Copy>(value: T, words: &[(&str, T)]) -> raw::Text {
    name(value, words).and_then(|word| key(word.to_owned()))
}

fn name<'w, T: PartialEq + Copy>(value: T, words: &[(&'w str, T)]) -> Option<&'w str> {
    words
        .iter()
        .find(|(_, one)| *one == value)
        .map(|(word, _)| *word)
}

fn list<T, R>(items: &[T], raw: impl Fn(&T) -> R) -> raw::List<R> {
    let field = |item| Field {
        place: super::problem::PlaceId::default(),
        value: Some(raw(item)),
    };
    key(items.iter().map(field).collect())
}

/// The `f64` that prints like this `f32`: 0.7, not 0.699999988079071.
fn widened(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
