//! Topic names of the MQTT contract, schema 1, and the way back from a topic to a command.
//!
//! Every variable level is an [`Id`], so no name, label or device can smuggle a `/`, `+` or `#`
//! into a topic. `B` below is `<topic_prefix>/<device>`.

use crate::config::{CommandName, Id};

/// Makes the topics of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

/// What a topic under `B` that carries requests asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `B/command/<name>`; `None` when no command has this name.
    Command(Id, Option<CommandName>),
    /// `B/config/<label>/<setting>/set`.
    Setting(Id, Setting),
}

/// Settings of a label that can be changed through `B/config/<label>/<setting>/set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// Enter threshold, 0–1 as text.
    Threshold,
    /// Italian noun or prompt.
    Prompt,
}

impl Setting {
    /// Topic level.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Threshold => "threshold",
            Self::Prompt => "prompt",
        }
    }

    fn parse(level: &str) -> Option<Self> {
        [Self::Threshold, Self::Prompt]
            .into_iter()
            .find(|setting| setting.as_str() == level)
    }
}

/// Every command, in the order help texts list them.
pub const COMMANDS: [CommandName; 6] = [
    CommandName::Snapshot,
    CommandName::Reload,
    CommandName::Set,
    CommandName::Pause,
    CommandName::InstallBundle,
    CommandName::RollbackBundle,
];

/// Topic level of a command.
pub fn command_level(name: CommandName) -> &'static str {
    match name {
        CommandName::Snapshot => "snapshot",
        CommandName::Reload => "reload",
        CommandName::Set => "set",
        CommandName::Pause => "pause",
        CommandName::InstallBundle => "install-bundle",
        CommandName::RollbackBundle => "rollback-bundle",
    }
}

impl Topics {
    /// Topics under `<prefix>/<device>`. `prefix` is the checked `mqtt.topic_prefix`: 1 to 4
    /// levels of ids.
    pub fn new(prefix: &str, device: &Id) -> Self {
        Self {
            base: format!("{prefix}/{device}"),
        }
    }

    /// `B`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `B/status`: `online`, or `offline` from the last will.
    pub fn status(&self) -> String {
        format!("{}/status", self.base)
    }

    /// `B/info`.
    pub fn info(&self) -> String {
        format!("{}/info", self.base)
    }

    /// `B/health`.
    pub fn health(&self) -> String {
        format!("{}/health", self.base)
    }

    /// `B/event`.
    pub fn event(&self) -> String {
        format!("{}/event", self.base)
    }

    /// `B/evidence/<event-id>`. Event ids are ULIDs; anything else than ASCII letters and digits
    /// is left out, so that a stored event that was tampered with cannot leave its level.
    pub fn evidence(&self, event_id: &str) -> String {
        let id: String = event_id
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        format!("{}/evidence/{id}", self.base)
    }

    /// `B/camera/<cam>/status`.
    pub fn camera_status(&self, camera: &Id) -> String {
        format!("{}/camera/{camera}/status", self.base)
    }

    /// `B/camera/<cam>/snapshot`: retained JPEG for Home Assistant's image entity.
    pub fn snapshot(&self, camera: &Id) -> String {
        format!("{}/camera/{camera}/snapshot", self.base)
    }

    /// `B/zone/<zone>/<label>/state`.
    pub fn zone_state(&self, zone: &Id, label: &Id) -> String {
        format!("{}/zone/{zone}/{label}/state", self.base)
    }

    /// `B/zone/<zone>/<label>/attributes`.
    pub fn zone_attributes(&self, zone: &Id, label: &Id) -> String {
        format!("{}/zone/{zone}/{label}/attributes", self.base)
    }

    /// `B/config/<label>/<setting>`: the reported value.
    pub fn setting(&self, label: &Id, setting: Setting) -> String {
        format!("{}/config/{label}/{}", self.base, setting.as_str())
    }

    /// `B/config/<label>/<setting>/set`: the requested value.
    pub fn setting_request(&self, label: &Id, setting: Setting) -> String {
        format!("{}/set", self.setting(label, setting))
    }

    /// `B/command/<name>`.
    pub fn command(&self, name: CommandName) -> String {
        format!("{}/command/{}", self.base, command_level(name))
    }

    /// `B/reply/<name>`.
    pub fn reply(&self, name: CommandName) -> String {
        self.reply_to(command_level(name))
    }

    /// `B/reply/<name>` for a command that does not exist.
    pub fn reply_unknown(&self, name: &Id) -> String {
        self.reply_to(name.as_str())
    }

    fn reply_to(&self, level: &str) -> String {
        format!("{}/reply/{level}", self.base)
    }

    /// Start of every topic of a camera.
    pub fn camera_prefix(&self, camera: &Id) -> String {
        format!("{}/camera/{camera}/", self.base)
    }

    /// Start of every topic of a label's settings.
    pub fn setting_prefix(&self, label: &Id) -> String {
        format!("{}/config/{label}/", self.base)
    }

    /// Starts of the topics that belong to one camera or one label each.
    pub fn shared_prefixes(&self) -> [String; 2] {
        [
            format!("{}/camera/", self.base),
            format!("{}/config/", self.base),
        ]
    }

    /// What the device subscribes to: `B/command/+` and `B/config/+/+/set`.
    pub fn request_filters(&self) -> [String; 2] {
        [
            format!("{}/command/+", self.base),
            format!("{}/config/+/+/set", self.base),
        ]
    }

    /// Parses the topic of an incoming message. `None` when it is not a request to this device or
    /// one of its levels is not an [`Id`].
    pub fn parse_request(&self, topic: &str) -> Option<Request> {
        let levels = topic.strip_prefix(&self.base)?.strip_prefix('/')?;
        let levels: Vec<&str> = levels.splitn(5, '/').collect();
        match levels.as_slice() {
            ["command", name] => {
                let id = Id::new(name)?;
                let known = COMMANDS.into_iter().find(|c| command_level(*c) == *name);
                Some(Request::Command(id, known))
            }
            ["config", label, setting, "set"] => {
                Some(Request::Setting(Id::new(label)?, Setting::parse(setting)?))
            }
            _ => None,
        }
    }
}

/// `<discovery_prefix>/status`, where Home Assistant announces itself.
pub fn home_assistant_status(discovery_prefix: &str) -> String {
    format!("{discovery_prefix}/status")
}

/// `<discovery_prefix>/device/<node>/config`; `node` is [`discovery_node`].
pub fn discovery(discovery_prefix: &str, node: &str) -> String {
    format!("{discovery_prefix}/device/{node}/config")
}

/// Home Assistant's id of a device, unique among all prefixes: `[a-z0-9-_]` only.
pub fn discovery_node(prefix: &str, device: &Id) -> String {
    format!("{}_{device}", prefix.replace('/', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Id {
        Id::new(text).unwrap()
    }

    fn topics() -> Topics {
        Topics::new("vedetta", &id("negozio-1"))
    }

    #[test]
    fn the_names_are_those_of_the_contract() {
        let (t, zone, label) = (topics(), id("r2-f07"), id("scaffale-vuoto"));
        let base = "vedetta/negozio-1";
        assert_eq!(t.status(), format!("{base}/status"));
        assert_eq!(t.info(), format!("{base}/info"));
        assert_eq!(t.health(), format!("{base}/health"));
        assert_eq!(t.event(), format!("{base}/event"));
        assert_eq!(t.evidence("01J8Z"), format!("{base}/evidence/01J8Z"));
        assert_eq!(
            t.camera_status(&id("corsia4")),
            format!("{base}/camera/corsia4/status")
        );
        assert_eq!(
            t.snapshot(&id("corsia4")),
            format!("{base}/camera/corsia4/snapshot")
        );
        assert_eq!(
            t.zone_state(&zone, &label),
            format!("{base}/zone/r2-f07/scaffale-vuoto/state")
        );
        assert_eq!(
            t.zone_attributes(&zone, &label),
            format!("{base}/zone/r2-f07/scaffale-vuoto/attributes")
        );
        assert_eq!(
            t.setting_request(&label, Setting::Threshold),
            format!("{base}/config/scaffale-vuoto/threshold/set")
        );
        assert_eq!(t.reply(CommandName::Pause), format!("{base}/reply/pause"));
        assert_eq!(
            discovery("homeassistant", &discovery_node("a/b", &id("negozio-1"))),
            "homeassistant/device/a_b_negozio-1/config"
        );
    }

    #[test]
    fn every_request_topic_finds_its_way_back() {
        let t = topics();
        for name in COMMANDS {
            let parsed = t.parse_request(&t.command(name));
            assert_eq!(
                parsed,
                Some(Request::Command(id(command_level(name)), Some(name)))
            );
        }
        for setting in [Setting::Threshold, Setting::Prompt] {
            let parsed = t.parse_request(&t.setting_request(&id("mela"), setting));
            assert_eq!(parsed, Some(Request::Setting(id("mela"), setting)));
        }
        assert_eq!(
            t.parse_request("vedetta/negozio-1/command/esplodi"),
            Some(Request::Command(id("esplodi"), None))
        );
    }

    #[test]
    fn a_topic_of_somebody_else_is_not_a_request() {
        let t = topics();
        for topic in [
            "",
            "/",
            "vedetta/negozio-1",
            "vedetta/negozio-12/command/pause",
            "vedetta/negozio-1/command/",
            "vedetta/negozio-1/command/a/b",
            "vedetta/negozio-1/command/../pause",
            "vedetta/negozio-1/config/mela/threshold",
            "vedetta/negozio-1/config/mela/colour/set",
            "vedetta/negozio-1/config/MELA/threshold/set",
            "vedetta/negozio-1/config/a/b/threshold/set",
        ] {
            assert_eq!(t.parse_request(topic), None, "{topic}");
        }
    }

    proptest! {
        #[test]
        fn no_topic_makes_the_parser_panic(topic in ".{0,80}") {
            let _ = topics().parse_request(&topic);
            let _ = topics().parse_request(&format!("vedetta/negozio-1/{topic}"));
        }

        #[test]
        fn evidence_stays_on_its_level(event in ".{0,40}") {
            let topic = topics().evidence(&event);
            prop_assert_eq!(topic.matches('/').count(), 3);
            prop_assert!(!topic.contains(['+', '#', '\0']));
        }
    }
}
