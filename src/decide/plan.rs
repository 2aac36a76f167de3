//! What a board watches, and what has to be kept of an open event.

use serde::{Deserialize, Serialize};

use crate::calibrate::Platt;
use crate::config::{BaselineRule, Config, Id, Label, Probability, Rule, Shape};
use crate::event::{EndReason, Event, EventType};
use crate::moment::Moment;

/// One zone of a [`Board`](super::Board).
#[derive(Clone, Debug, PartialEq)]
pub struct ZonePlan {
    /// Camera id.
    pub camera: Id,
    /// Zone id.
    pub zone: Id,
    /// The zone's place; moving it makes it another zone.
    pub shape: Shape,
    /// What stands out from the usual score; `None`: a score counts as it is.
    pub baseline: Option<BaselineRule>,
    /// Labels, in the order of the scores.
    pub labels: Vec<LabelPlan>,
}

/// One label of a [`ZonePlan`].
#[derive(Clone, Debug, PartialEq)]
pub struct LabelPlan {
    /// Slug, prompts, group and rule.
    pub label: Label,
    /// The Italian prompt people read in events.
    pub prompt: String,
    /// From the score to how often it is right, for the bundle in use; the default changes nothing.
    pub calibration: Platt,
}

/// All zones of `config`, cameras and zones in its order; `prompt` gives the text people read.
pub fn plan(config: &Config, prompt: impl Fn(&Label) -> String) -> Vec<ZonePlan> {
    let of_camera = |camera: &crate::config::Camera| {
        let id = camera.id.clone();
        let of_zone = |zone: &crate::config::Zone| ZonePlan {
            camera: id.clone(),
            zone: zone.id.clone(),
            shape: zone.shape.clone(),
            baseline: camera.baseline,
            labels: zone
                .labels
                .iter()
                .filter_map(|&index| config.labels.get(index))
                .map(|label| LabelPlan {
                    label: label.clone(),
                    prompt: prompt(label),
                    calibration: Platt::default(),
                })
                .collect(),
        };
        camera.zones.iter().map(of_zone).collect::<Vec<_>>()
    };
    config.cameras.iter().flat_map(of_camera).collect()
}

/// `rule` with another enter threshold and the same distance to the leave threshold, which stays
/// within 0–`enter`.
pub fn with_enter(rule: Rule, enter: Probability) -> Rule {
    let gap = rule.enter.get() - rule.leave.get();
    let leave = (enter.get() - gap).clamp(0.0, enter.get());
    Rule {
        enter,
        leave: Probability::new(leave).unwrap_or(enter),
        ..rule
    }
}

/// What a store keeps of a `confirmed` event until it is `ended`, so that a restart can end it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpenEvent(Event);

impl OpenEvent {
    /// Keeps `event`; the newest stage of an id replaces the older ones. `None` for an `ended` one.
    pub fn of(event: &Event) -> Option<Self> {
        (event.kind != EventType::Ended).then(|| Self(event.clone()))
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The sequence number it was published with.
    pub fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// The `ended` event that closes it.
    pub(super) fn ended(self, sequence: u64, boot: &str, now: &Moment, reason: EndReason) -> Event {
        Event {
            kind: EventType::Ended,
            sequence,
            boot: boot.to_owned(),
            time: now.wall,
            clock: now.clock,
            evidence: None,
            delayed: false,
            reason: Some(reason),
            ..self.0
        }
    }
}
