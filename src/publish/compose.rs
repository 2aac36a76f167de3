//! From an [`Outgoing`] to messages: topics, QoS, retain flag and expiry of the contract.

use serde::Serialize;

use super::link::Message;
use super::outbox::{EVIDENCE_EXPIRY, Ready};
use super::{MAX_PICTURE_BYTES, Outgoing};
use crate::topics::Topics;

/// Health is worth nothing after three periods of the default.
const HEALTH_EXPIRY_S: u32 = 90;
/// Whoever asked is not waiting any longer.
const REPLY_EXPIRY_S: u32 = 60;

const JSON: Option<&str> = Some("application/json");
const JPEG: Option<&str> = Some("image/jpeg");

/// The messages of everything but events, which take the way through the outbox. A picture that is
/// too large gives none.
pub(super) fn messages(topics: &Topics, outgoing: &Outgoing) -> Vec<Message> {
    match outgoing {
        Outgoing::Event { .. } => Vec::new(),
        Outgoing::Zone {
            zone,
            label,
            state,
            attributes,
        } => vec![
            retained(topics.zone_state(zone, label), state.as_str()),
            Message {
                acknowledged: false,
                content_type: JSON,
                ..retained(topics.zone_attributes(zone, label), json(attributes))
            },
        ],
        Outgoing::RemovedZone { zone, label } => vec![
            retained(topics.zone_state(zone, label), Vec::new()),
            retained(topics.zone_attributes(zone, label), Vec::new()),
        ],
        Outgoing::Camera { camera, status } => {
            vec![retained(topics.camera_status(camera), status.as_str())]
        }
        Outgoing::Snapshot { jpeg, .. } if jpeg.len() > MAX_PICTURE_BYTES => Vec::new(),
        Outgoing::Snapshot { camera, jpeg } => vec![Message {
            content_type: JPEG,
            ..retained(topics.snapshot(camera), jpeg.clone())
        }],
        Outgoing::Health(health) => vec![Message {
            topic: topics.health(),
            payload: json(health),
            acknowledged: false,
            retain: false,
            expiry_s: Some(HEALTH_EXPIRY_S),
            content_type: JSON,
        }],
        Outgoing::Info(info) => vec![Message {
            content_type: JSON,
            ..retained(topics.info(), json(info))
        }],
        Outgoing::Reply { command, body } => vec![reply(topics.reply(*command), body)],
        Outgoing::ConfigValue {
            label,
            setting,
            value,
        } => vec![retained(topics.setting(label, *setting), value.as_str())],
    }
}

/// An answer to a request.
pub(super) fn reply(topic: String, body: &serde_json::Value) -> Message {
    Message {
        topic,
        payload: json(body),
        acknowledged: true,
        retain: false,
        expiry_s: Some(REPLY_EXPIRY_S),
        content_type: JSON,
    }
}

/// A retained message, at least once, that does not expire.
pub(super) fn retained(topic: String, payload: impl Into<Vec<u8>>) -> Message {
    Message {
        topic,
        payload: payload.into(),
        acknowledged: true,
        retain: true,
        expiry_s: None,
        content_type: None,
    }
}

/// An announcement to Home Assistant that passes by: the retained one follows it.
pub(super) fn passing(topic: &str, body: &serde_json::Value) -> Message {
    Message {
        retain: false,
        content_type: JSON,
        ..retained(topic.to_owned(), json(body))
    }
}

/// An event and, before it, its picture.
pub(super) fn event(topics: &Topics, ready: &Ready) -> (Option<Message>, Message) {
    let picture = ready.evidence.as_ref().map(|jpeg| Message {
        topic: topics.evidence(&ready.event.id),
        payload: jpeg.clone(),
        acknowledged: true,
        retain: false,
        expiry_s: u32::try_from(EVIDENCE_EXPIRY.as_secs()).ok(),
        content_type: JPEG,
    });
    let left_s = u32::try_from(ready.remaining.as_secs()).unwrap_or(u32::MAX);
    let event = Message {
        topic: topics.event(),
        payload: json(&ready.event),
        acknowledged: true,
        retain: false,
        expiry_s: Some(left_s.max(1)),
        content_type: JSON,
    };
    (picture, event)
}

/// Numbers, texts and options in structures: writing them cannot fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
