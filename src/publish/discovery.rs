//! Home Assistant's MQTT discovery, device based (2024.11 and later): one retained configuration
//! that names every entity. Keys are those of the integration's schemas and its abbreviation table
//! (<https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>).

use serde_json::{Map, Value, json};

use crate::config::{Camera, Config, Label, PromptSource};
use crate::topics::{Setting, Topics};

/// Home Assistant's longest state, and so the longest text it can set.
const MAX_STATE_CHARS: usize = 255;

/// The configuration of this device. `node` is its id in Home Assistant; a component's key and
/// unique id never depend on names or order, so that entities survive both.
pub(super) fn device(config: &Config, topics: &Topics, node: &str) -> Value {
    let device = Device {
        config,
        topics,
        node,
    };
    let mut components = Map::new();
    for camera in &config.cameras {
        device.camera(camera, &mut components);
    }
    for label in &config.labels {
        device.label(label, &mut components);
    }
    device.diagnostics(&mut components);
    json!({
        "dev": {
            "ids": [node],
            "name": config.device_name,
            "mf": "vedetta",
            "mdl": "camera lookout",
            "sw": env!("CARGO_PKG_VERSION"),
        },
        "o": { "name": "vedetta", "sw": env!("CARGO_PKG_VERSION") },
        "avty": [{ "topic": topics.status() }],
        "avty_mode": "all",
        "qos": 1,
        "cmps": components,
    })
}

/// The kinds of entity that [`device`] makes, or ever made.
const PLATFORMS: [&str; 6] = [
    "binary_sensor",
    "event",
    "image",
    "number",
    "sensor",
    "text",
];

/// Home Assistant keeps an entity until it is told to remove it: an announcement of `new` that does
/// so for what is only in `old`, the configuration announced before, as the broker gives it back. `None`
/// when nothing went.
pub fn removals(old: &[u8], new: &[u8]) -> Option<Value> {
    let old: Value = serde_json::from_slice(old).ok()?;
    let mut new: Value = serde_json::from_slice(new).ok()?;
    let components = new.get_mut("cmps")?.as_object_mut()?;
    let before = components.len();
    for (key, component) in old.get("cmps")?.as_object()? {
        let platform = component.get("p").and_then(Value::as_str);
        if let Some(platform) = platform.filter(|platform| PLATFORMS.contains(platform)) {
            // A component with nothing but its platform is a removal.
            components
                .entry(key.as_str())
                .or_insert_with(|| json!({ "p": platform }));
        }
    }
    (components.len() > before).then_some(new)
}

struct Device<'a> {
    config: &'a Config,
    topics: &'a Topics,
    node: &'a str,
}

impl Device<'_> {
    /// `key` is made of ids, which have no underscore, joined by underscores.
    fn add(&self, components: &mut Map<String, Value>, key: &str, mut component: Value) {
        component["uniq_id"] = Value::String(format!("{}_{key}", self.node));
        components.insert(key.to_owned(), component);
    }

    /// The device is online and the camera is: only then is there something to show.
    fn availability(&self, camera: &Camera) -> Value {
        json!([
            { "topic": self.topics.status() },
            {
                "topic": self.topics.camera_status(&camera.id),
                "val_tpl": "{{ 'online' if value == 'online' else 'offline' }}",
            },
        ])
    }

    fn camera(&self, camera: &Camera, components: &mut Map<String, Value>) {
        let image = json!({
            "p": "image",
            "name": camera.name,
            "img_t": self.topics.snapshot(&camera.id),
            "cont_type": "image/jpeg",
            "avty": self.availability(camera),
        });
        self.add(components, &format!("image_{}", camera.id), image);
        // Available whenever the device is: it is there to say that the camera is not.
        let connection = json!({
            "p": "binary_sensor",
            "name": format!("{} connection", camera.name),
            "stat_t": self.topics.camera_status(&camera.id),
            "val_tpl": "{{ 'OFF' if value in ('lost', 'stalled') else 'ON' }}",
            "dev_cla": "connectivity",
            "ent_cat": "diagnostic",
        });
        self.add(components, &format!("connection_{}", camera.id), connection);
        let fps = json!({
            "p": "sensor",
            "name": format!("{} fps", camera.name),
            "stat_t": self.topics.health(),
            "val_tpl": format!(
                "{{% set c = value_json.cameras | selectattr('camera', 'eq', '{}') | first | \
                 default(none) %}}{{{{ c.fps | round(2) if c else none }}}}",
                camera.id
            ),
            "unit_of_meas": "fps",
            "stat_cla": "measurement",
            "ent_cat": "diagnostic",
            "exp_aft": self.health_expires_s(),
        });
        self.add(components, &format!("fps_{}", camera.id), fps);
        for zone in &camera.zones {
            for label in zone
                .labels
                .iter()
                .filter_map(|n| self.config.labels.get(*n))
            {
                let sensor = json!({
                    "p": "binary_sensor",
                    "name": format!("{} {}", zone.name, noun(label)),
                    "stat_t": self.topics.zone_state(&zone.id, &label.id),
                    // Home Assistant's word for a state that is not known.
                    "val_tpl": "{{ 'None' if value == 'UNKNOWN' else value }}",
                    "pl_on": "ON",
                    "pl_off": "OFF",
                    "json_attr_t": self.topics.zone_attributes(&zone.id, &label.id),
                    "avty": self.availability(camera),
                });
                let key = format!("zone_{}_{}", zone.id, label.id);
                self.add(components, &key, sensor);
            }
        }
    }

    fn label(&self, label: &Label, components: &mut Map<String, Value>) {
        let threshold = json!({
            "p": "number",
            "name": format!("{} threshold", noun(label)),
            "stat_t": self.topics.setting(&label.id, Setting::Threshold),
            "cmd_t": self.topics.setting_request(&label.id, Setting::Threshold),
            "min": 0,
            "max": 1,
            "step": 0.01,
            "mode": "box",
            "ent_cat": "config",
        });
        self.add(components, &format!("threshold_{}", label.id), threshold);
        let prompt = json!({
            "p": "text",
            "name": format!("{} prompt", label.id),
            "stat_t": self.topics.setting(&label.id, Setting::Prompt),
            "cmd_t": self.topics.setting_request(&label.id, Setting::Prompt),
            "min": 1,
            "max": MAX_STATE_CHARS,
            "ent_cat": "config",
        });
        self.add(components, &format!("prompt_{}", label.id), prompt);
    }

    fn diagnostics(&self, components: &mut Map<String, Value>) {
        let event = json!({
            "p": "event",
            "name": "Event",
            "stat_t": self.topics.event(),
            "evt_typ": ["confirmed", "updated", "ended"],
            "val_tpl": "{{ dict(value_json, event_type=value_json.type) | to_json }}",
        });
        self.add(components, "event", event);
        let sensor = |name: &str, template: &str, unit: &str, class: &str| {
            json!({
                "p": "sensor",
                "name": name,
                "stat_t": self.topics.health(),
                "val_tpl": template,
                "unit_of_meas": unit,
                "dev_cla": class,
                "stat_cla": "measurement",
                "ent_cat": "diagnostic",
                "exp_aft": self.health_expires_s(),
            })
        };
        let encode = sensor(
            "Encode time",
            "{% set ms = value_json.encode_p50_ms %}{{ ms | round(1) if ms is not none else none }}",
            "ms",
            "duration",
        );
        self.add(components, "encode", encode);
        let temperature = sensor(
            "Temperature",
            "{{ value_json.temperature_c }}",
            "°C",
            "temperature",
        );
        self.add(components, "temperature", temperature);
    }

    /// Three messages missed.
    fn health_expires_s(&self) -> u64 {
        (self.config.mqtt.health_every * 3).as_secs().max(1)
    }
}

/// What people call the label.
fn noun(label: &Label) -> &str {
    match &label.prompts {
        PromptSource::Noun(noun) => noun,
        PromptSource::Prompts(_) => label.id.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::topics;

    const CONFIG: &str = r#"
        device = "negozio-1"
        device_name = "Negozio di via Roma"
        [mqtt]
        health_every_s = 20
        [[camera]]
        id = "corsia4"
        name = "Corsia 4"
        device = "/dev/video0"
        [[camera.zone]]
        id = "r2-f07"
        name = "Ripiano 2"
        rectangle = [0.1, 0.1, 0.5, 0.5]
        [[label]]
        noun = "scaffale vuoto"
        [[label]]
        id = "mele"
        prompts = ["una foto di mele"]
    "#;

    #[test]
    fn what_is_gone_is_removed_by_name() {
        let old = json!({"cmps": {
            "zone_a_b": {"p": "binary_sensor", "name": "old"},
            "zone_c_d": {"p": "binary_sensor", "name": "old"},
            "odd": {"p": "camera"},
            "odder": 7,
        }});
        let new = json!({"dev": 1, "cmps": {"zone_a_b": {"p": "binary_sensor", "name": "new"}}});
        let found = removals(old.to_string().as_bytes(), new.to_string().as_bytes());
        let expected = json!({"dev": 1, "cmps": {
            "zone_a_b": {"p": "binary_sensor", "name": "new"},
            "zone_c_d": {"p": "binary_sensor"},
        }});
        assert_eq!(found, Some(expected));
        let same = new.to_string();
        assert_eq!(removals(same.as_bytes(), same.as_bytes()), None);
        for hostile in ["", "7", "{}", r#"{"cmps":[]}"#, &"[".repeat(100_000)] {
            assert_eq!(removals(hostile.as_bytes(), same.as_bytes()), None);
        }
    }

    #[test]
    fn the_configuration_of_a_device_is_the_golden_one() {
        let config = Config::from_toml(CONFIG, "vedetta.toml", &[], &Environment::bare()).unwrap();
        let topics = Topics::new(&config.mqtt.topic_prefix, &config.device);
        let node = topics::discovery_node(&config.mqtt.topic_prefix, &config.device);
        let mut found = device(&config, &topics, &node);
        for part in ["dev", "o"] {
            assert_eq!(found[part]["sw"], env!("CARGO_PKG_VERSION"));
            found[part]["sw"] = "1.2.3".into();
        }
        let golden: Value = serde_json::from_str(include_str!("discovery.golden.json")).unwrap();
        let printed = serde_json::to_string_pretty(&found).unwrap();
        assert_eq!(found, golden, "the new one is:\n{printed}");
    }
}
