//! Behaviour of the board, told as short stories.

mod changes;
mod life;
mod loss;
mod properties;
mod usual;

use std::time::Duration;

use jiff::SignedDuration;

use super::*;
use crate::calibrate::Platt;
use crate::config::{Label, Probability, PromptSource, Rule, Shape};
use crate::event::{EndReason, EventType};
use crate::moment::{Clock, Moment};

type Ids = Box<dyn FnMut(&Moment) -> String>;

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

fn at(seconds: f64) -> Moment {
    let start: jiff::Timestamp = "2026-10-02T09:00:00Z".parse().unwrap();
    Moment {
        uptime: Duration::from_secs_f64(seconds),
        wall: start + SignedDuration::from_secs_f64(seconds),
        clock: Clock::Synced,
    }
}

fn rule() -> Rule {
    Rule {
        enter: Probability::new(0.7).unwrap(),
        leave: Probability::new(0.5).unwrap(),
        dwell: Duration::from_secs(3),
        window: 3,
    }
}

fn label(slug: &str, group: Option<&str>) -> LabelPlan {
    LabelPlan {
        label: Label {
            id: id(slug),
            prompts: PromptSource::Noun(slug.to_owned()),
            group: group.map(id),
            rule: rule(),
        },
        prompt: format!("una {slug}"),
        calibration: Platt::default(),
    }
}

fn zone(labels: Vec<LabelPlan>) -> ZonePlan {
    ZonePlan {
        camera: id("corsia4"),
        zone: id("r2"),
        shape: Shape::Full,
        baseline: None,
        labels,
    }
}

fn board(labels: Vec<LabelPlan>) -> Board<Ids> {
    let mut count = 0;
    let ids: Ids = Box::new(move |_: &Moment| {
        count += 1;
        format!("id-{count}")
    });
    let mut board = Board::new("boot", "demo@sha256:00", 100, ids);
    let effects = board.configure(vec![zone(labels)], &at(0.0));
    assert!(effects.iter().all(|effect| matches!(
        effect,
        Effect::State {
            state: ZoneState::Unknown,
            ..
        }
    )));
    board
}

fn seen(probability: f32) -> Observation {
    Observation {
        probability,
        margin: 2.0 * probability - 1.0,
    }
}

/// Looks once a second from `from` for `frames` frames.
fn watch(board: &mut Board<Ids>, from: f64, frames: u32, scores: &[f32]) -> Vec<Effect> {
    let scores: Vec<Observation> = scores.iter().map(|p| seen(*p)).collect();
    (0..frames)
        .flat_map(|n| {
            let now = at(from + f64::from(n));
            board.look(&id("r2"), Look::Scores(&scores), &now)
        })
        .collect()
}

fn events(effects: &[Effect]) -> Vec<&Event> {
    let mut events = Vec::new();
    for effect in effects {
        if let Effect::Event(event) = effect {
            events.push(event.as_ref());
        }
    }
    events
}

fn kinds(effects: &[Effect]) -> Vec<(EventType, Option<EndReason>)> {
    let events = events(effects);
    events.iter().map(|e| (e.kind, e.reason)).collect()
}

fn states(effects: &[Effect]) -> Vec<(&str, ZoneState)> {
    let mut states = Vec::new();
    for effect in effects {
        if let Effect::State {
            label,
            state,
            changed: true,
            ..
        } = effect
        {
            states.push((label.as_str(), *state));
        }
    }
    states
}
