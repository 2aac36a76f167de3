//! An event as tests send it. Whoever includes this file has the types in scope: the library's own
//! tests name them differently than the others.

use super::{Clock, Event, EventType, SCHEMA};

/// A `confirmed` event.
pub fn event(id: &str) -> Event {
    Event {
        schema: SCHEMA,
        kind: EventType::Confirmed,
        id: id.to_owned(),
        sequence: 0,
        boot: "7f3a0001".to_owned(),
        time: "2026-10-02T09:14:05.120Z".parse().unwrap(),
        clock: Clock::Synced,
        camera: "corsia4".to_owned(),
        zone: "r2-f07".to_owned(),
        label: "scaffale-vuoto".to_owned(),
        prompt: "uno scaffale vuoto".to_owned(),
        probability: 0.83,
        margin: 0.31,
        threshold: 0.7,
        frames: [6, 8],
        since: "2026-10-02T09:13:20Z".parse().unwrap(),
        bundle: "clip-italian@sha256:ab12".to_owned(),
        evidence: None,
        delayed: false,
        reason: None,
    }
}
