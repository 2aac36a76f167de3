//! One label in one zone: its decider, what was published of it, and its open event.

use std::time::Duration;

use super::baseline::Baseline;
use super::decider::Usual;
use super::stamp::{Stamp, tidy, to_milliseconds};
use super::{Decider, Effect, EventIds, LabelPlan, Observation, OpenEvent};
use crate::config::{BaselineRule, Id};
use crate::event::{Attributes, EndReason, Event, EventType, SCHEMA, ZoneState};
use crate::moment::Moment;

/// An open event is `updated` when its median probability moved by this much since the last
/// published one,
const UPDATE_STEP: f32 = 0.1;
/// and not more often than this.
const UPDATE_EVERY: Duration = Duration::from_secs(30);
/// New numbers beside an unchanged state are published when the median moved by this much
const ATTRIBUTES_STEP: f32 = 0.05;
/// and not more often than this.
const ATTRIBUTES_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Open {
    /// The stage published last.
    event: Event,
    published_at: Duration,
    seen_since: Stamp,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) plan: LabelPlan,
    pub(super) decider: Decider,
    baseline: Option<Baseline>,
    state_since: Stamp,
    open: Option<Open>,
    /// Numbers published last, and when.
    shown: Observation,
    shown_at: Duration,
}

/// What every event carries, and the numbers they get.
#[derive(Debug)]
pub(super) struct Press<I> {
    pub(super) boot: String,
    pub(super) bundle: String,
    pub(super) next_sequence: u64,
    pub(super) ids: I,
}

impl<I: EventIds> Press<I> {
    pub(super) fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence = self.next_sequence.saturating_add(1);
        sequence
    }
}

impl Entry {
    pub(super) fn new(plan: LabelPlan, baseline: Option<BaselineRule>, now: &Moment) -> Self {
        Self {
            decider: Decider::new(plan.label.rule),
            baseline: baseline.map(Baseline::new),
            plan,
            state_since: Stamp::at(now),
            open: None,
            shown: Observation {
                probability: 0.0,
                margin: 0.0,
            },
            shown_at: now.uptime,
        }
    }

    pub(super) fn watches_the_same(&self, plan: &LabelPlan) -> bool {
        let (ours, theirs) = (&self.plan.label, &plan.label);
        ours.prompts == theirs.prompts
            && ours.group == theirs.group
            && self.plan.prompt == plan.prompt
    }

    /// Puts another baseline rule in force; what was learned under the same one stays.
    pub(super) fn set_baseline(&mut self, rule: Option<BaselineRule>) {
        if self.baseline.as_ref().map(Baseline::rule) != rule {
            self.baseline = rule.map(Baseline::new);
        }
    }

    /// Another bundle gives other scores: what is usual is learned anew.
    pub(super) fn forget_usual(&mut self) {
        self.baseline = self.baseline.as_ref().map(|b| Baseline::new(b.rule()));
    }

    /// Scores are calibrated otherwise from now on: those that were seen no longer compare. The state
    /// stays until new ones are there.
    pub(super) fn forget_scores(&mut self) {
        self.decider.forget();
        self.forget_usual();
    }

    /// Takes in what one frame shows, calibrated; `false` when it is refused.
    pub(super) fn record(&mut self, score: Observation) -> bool {
        self.decider.record(Observation {
            probability: self.plan.calibration.apply(score.probability),
            ..score
        })
    }

    /// How the median stands to what is usual, which it is added to unless the label is, or is about
    /// to be, ON.
    pub(super) fn usual(&mut self, now: &Moment) -> Usual {
        let Some(baseline) = &mut self.baseline else {
            return Usual::NotAsked;
        };
        let Some(median) = self.decider.median() else {
            return Usual::Learning;
        };
        let usual = baseline.compare(median.probability);
        let is_over = median.probability >= self.decider.rule().enter.get();
        let about_to_turn = is_over && usual == Usual::StandsOut;
        let active = self.decider.state() == ZoneState::On || about_to_turn;
        baseline.learn(now.uptime, median.probability, active);
        usual
    }

    pub(super) fn turned_on(
        &mut self,
        camera: &Id,
        zone: &Id,
        seen_since: Duration,
        press: &mut Press<impl EventIds>,
        now: &Moment,
    ) -> [Effect; 2] {
        let state = self.changed(zone, now);
        let seen_since = Stamp::before(now, seen_since);
        let event = tidy(Event {
            schema: SCHEMA,
            kind: EventType::Confirmed,
            id: press.ids.next_id(now),
            sequence: press.take_sequence(),
            boot: press.boot.clone(),
            time: now.wall,
            clock: now.clock,
            camera: camera.as_str().to_owned(),
            zone: zone.as_str().to_owned(),
            label: self.plan.label.id.as_str().to_owned(),
            prompt: self.plan.prompt.clone(),
            probability: self.shown.probability,
            margin: self.shown.margin,
            threshold: self.decider.rule().enter.get(),
            frames: self.decider.frames(),
            since: seen_since.wall,
            bundle: press.bundle.clone(),
            evidence: None,
            delayed: false,
            reason: None,
        });
        self.open = Some(Open {
            event: event.clone(),
            published_at: now.uptime,
            seen_since,
        });
        [state, Effect::Event(Box::new(event))]
    }

    pub(super) fn turned_off(
        &mut self,
        zone: &Id,
        press: &mut Press<impl EventIds>,
        now: &Moment,
    ) -> Vec<Effect> {
        let state = self.changed(zone, now);
        let ended = self.end(press, now, EndReason::Left);
        std::iter::once(state).chain(ended).collect()
    }

    pub(super) fn blind(
        &mut self,
        zone: &Id,
        press: &mut Press<impl EventIds>,
        now: &Moment,
        reason: EndReason,
    ) -> Vec<Effect> {
        let was = self.decider.state();
        // Numbers are taken before the window forgets them.
        self.shown = self.decider.median().unwrap_or(self.shown);
        let ended = self.end(press, now, reason);
        self.decider.blind();
        if let Some(baseline) = &mut self.baseline {
            baseline.pause();
        }
        if was == ZoneState::Unknown {
            return Vec::new();
        }
        let state = self.changed(zone, now);
        std::iter::once(state).chain(ended).collect()
    }

    /// The state did not change; the numbers may have.
    pub(super) fn moved(
        &mut self,
        zone: &Id,
        press: &mut Press<impl EventIds>,
        now: &Moment,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(median) = self.decider.median() else {
            return effects;
        };
        let far = |from: f32, step: f32| (median.probability - from).abs() >= step;
        if far(self.shown.probability, ATTRIBUTES_STEP)
            && now.uptime.saturating_sub(self.shown_at) >= ATTRIBUTES_EVERY
        {
            self.show(now);
            effects.push(self.state_effect(zone, now, false));
        }
        let due = self.open.as_ref().is_some_and(|open| {
            far(open.event.probability, UPDATE_STEP)
                && now.uptime.saturating_sub(open.published_at) >= UPDATE_EVERY
        });
        if due {
            let event = self.next_stage(EventType::Updated, None, press, now);
            effects.extend(event.map(|event| Effect::Event(Box::new(event))));
        }
        effects
    }

    /// What a store has to keep of the open event.
    pub(super) fn open_event(&self) -> Option<OpenEvent> {
        OpenEvent::of(&self.open.as_ref()?.event)
    }

    /// Closes the open event, if there is one.
    pub(super) fn end(
        &mut self,
        press: &mut Press<impl EventIds>,
        now: &Moment,
        reason: EndReason,
    ) -> Option<Effect> {
        let event = self.next_stage(EventType::Ended, Some(reason), press, now);
        self.open = None;
        event.map(|event| Effect::Event(Box::new(event)))
    }

    fn next_stage(
        &mut self,
        kind: EventType,
        reason: Option<EndReason>,
        press: &mut Press<impl EventIds>,
        now: &Moment,
    ) -> Option<Event> {
        let open = self.open.as_mut()?;
        let numbers = self.decider.median().unwrap_or(self.shown);
        open.event = tidy(Event {
            kind,
            sequence: press.take_sequence(),
            time: now.wall,
            clock: now.clock,
            probability: numbers.probability,
            margin: numbers.margin,
            threshold: self.decider.rule().enter.get(),
            frames: self.decider.frames(),
            since: open.seen_since.wall_at(now),
            reason,
            ..open.event.clone()
        });
        open.published_at = now.uptime;
        Some(open.event.clone())
    }

    fn changed(&mut self, zone: &Id, now: &Moment) -> Effect {
        self.state_since = Stamp::at(now);
        self.show(now);
        self.state_effect(zone, now, true)
    }

    fn show(&mut self, now: &Moment) {
        self.shown = self.decider.median().unwrap_or(self.shown);
        self.shown_at = now.uptime;
    }

    pub(super) fn state_effect(&self, zone: &Id, now: &Moment, changed: bool) -> Effect {
        Effect::State {
            zone: zone.clone(),
            label: self.plan.label.id.clone(),
            state: self.decider.state(),
            attributes: Attributes {
                probability: self.shown.probability,
                margin: self.shown.margin,
                since: to_milliseconds(self.state_since.wall_at(now)),
            },
            changed,
        }
    }
}
