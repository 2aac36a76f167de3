//! All deciders of all zones, and the life of their events.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::decider::Turn;
use super::{Decider, Effect, EventIds, LabelPlan, Look, Observation, OpenEvent, Unseen, ZonePlan};
use crate::config::{Id, Rule, Shape};
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
/// The wall clock jumped when it and the uptime disagree by more than this; a `since` is then
/// computed anew from the uptime.
const CLOCK_JUMP: SignedDuration = SignedDuration::from_secs(2);

/// What the board refused; all of it is harmless and none of it is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Observations that were not finite or out of range.
    pub refused_observations: u64,
    /// Looks whose number of scores is not the zone's number of labels, or at a zone that is not
    /// there (a configuration change overtook them).
    pub mismatched_looks: u64,
}

/// One zone and label as they stand, for tables.
#[derive(Clone, Copy, Debug)]
pub struct LabelView<'a> {
    /// Camera id.
    pub camera: &'a Id,
    /// Zone id.
    pub zone: &'a Id,
    /// Label and prompt.
    pub plan: &'a LabelPlan,
    /// The state that holds.
    pub state: ZoneState,
    /// The newest median, when there is one.
    pub median: Option<Observation>,
    /// Why nothing can be seen, when nothing can.
    pub unseen: Option<Unseen>,
}

/// A time on both clocks.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    uptime: Duration,
    wall: Timestamp,
}

#[derive(Debug)]
struct Open {
    /// The stage published last.
    event: Event,
    published_at: Duration,
    seen_since: Stamp,
}

#[derive(Debug)]
struct Entry {
    plan: LabelPlan,
    decider: Decider,
    state_since: Stamp,
    open: Option<Open>,
    /// Numbers published last, and when.
    shown: Observation,
    shown_at: Duration,
}

#[derive(Debug)]
struct Zone {
    camera: Id,
    zone: Id,
    shape: Shape,
    entries: Vec<Entry>,
    unseen: Option<Unseen>,
}

/// What every event carries, and the numbers they get.
#[derive(Debug)]
struct Press<I> {
    boot: String,
    bundle: String,
    next_sequence: u64,
    ids: I,
}

/// Decides for all zones. See [`super`] for the rules.
#[derive(Debug)]
pub struct Board<I> {
    zones: Vec<Zone>,
    press: Press<I>,
    counters: Counters,
    latest: Duration,
}

impl<I: EventIds> Board<I> {
    /// An empty board; [`Board::configure`] gives it zones. `next_sequence` is the number of the
    /// first event: one more than any number published by an earlier run.
    pub fn new(boot: &str, bundle: &str, next_sequence: u64, ids: I) -> Self {
        Self {
            zones: Vec::new(),
            press: Press {
                boot: boot.to_owned(),
                bundle: bundle.to_owned(),
                next_sequence,
                ids,
            },
            counters: Counters::default(),
            latest: Duration::ZERO,
        }
    }

    /// Ends what an earlier run left open, with reason `restart`. Call it once, before anything else.
    pub fn end_left_open(&mut self, left: Vec<OpenEvent>, now: &Moment) -> Vec<Effect> {
        let now = self.ordered(now);
        let newest = left.iter().map(OpenEvent::sequence).max();
        let after = newest.map_or(0, |sequence| sequence.saturating_add(1));
        self.press.next_sequence = self.press.next_sequence.max(after);
        left.into_iter()
            .map(|open| {
                let sequence = self.press.take_sequence();
                let event = open.ended(sequence, &self.press.boot, &now, EndReason::Restart);
                Effect::Event(Box::new(tidy(event)))
            })
            .collect()
    }

    /// Makes the board watch `plans`. A zone and label that stay what they were (camera, shape,
    /// prompts, group) keep state, window and open event under the new rule; all others end with
    /// reason `reconfigured`, new ones start UNKNOWN.
    pub fn configure(&mut self, plans: Vec<ZonePlan>, now: &Moment) -> Vec<Effect> {
        let now = self.ordered(now);
        let mut effects = Vec::new();
        let mut before = HashMap::new();
        let mut unseen = HashMap::new();
        for zone in self.zones.drain(..) {
            if let Some(cause) = zone.unseen {
                unseen.insert(zone.camera.clone(), cause);
            }
            for entry in zone.entries {
                let key = (zone.zone.clone(), entry.plan.label.id.clone());
                before.insert(key, (zone.camera.clone(), zone.shape.clone(), entry));
            }
        }
        let mut zones = Vec::with_capacity(plans.len());
        for plan in plans {
            let mut entries = Vec::with_capacity(plan.labels.len());
            for label in plan.labels {
                let key = (plan.zone.clone(), label.label.id.clone());
                match before.remove(&key) {
                    Some((camera, shape, mut entry))
                        if camera == plan.camera
                            && shape == plan.shape
                            && entry.watches_the_same(&label) =>
                    {
                        entry.decider.set_rule(label.label.rule);
                        entry.plan = label;
                        entries.push(entry);
                    }
                    replaced => {
                        if let Some((_, _, mut entry)) = replaced {
                            effects.extend(entry.end(
                                &mut self.press,
                                &now,
                                EndReason::Reconfigured,
                            ));
                        }
                        let entry = Entry::new(label, &now);
                        effects.push(entry.state_effect(&plan.zone, &now, true));
                        entries.push(entry);
                    }
                }
            }
            zones.push(Zone {
                unseen: unseen.get(&plan.camera).copied(),
                camera: plan.camera,
                zone: plan.zone,
                shape: plan.shape,
                entries,
            });
        }
        self.zones = zones;
        let mut gone: Vec<_> = before.into_iter().collect();
        gone.sort_by(|a, b| a.0.cmp(&b.0));
        for ((zone, label), (_, _, mut entry)) in gone {
            effects.extend(entry.end(&mut self.press, &now, EndReason::Reconfigured));
            effects.push(Effect::Removed { zone, label });
        }
        effects
    }

    /// Another bundle is in use: nothing that was seen with the old one counts any more.
    pub fn change_bundle(&mut self, bundle: &str, now: &Moment) -> Vec<Effect> {
        let effects = self.end_all(EndReason::Reconfigured, now);
        bundle.clone_into(&mut self.press.bundle);
        effects
    }

    /// Puts a new rule in force for a label in every zone, at run time. `false` when no zone has it.
    pub fn set_rule(&mut self, label: &Id, rule: Rule) -> bool {
        let mut found = false;
        for entry in self.zones.iter_mut().flat_map(|zone| &mut zone.entries) {
            if entry.plan.label.id == *label {
                entry.plan.label.rule = rule;
                entry.decider.set_rule(rule);
                found = true;
            }
        }
        found
    }

    /// What one frame showed in `zone`.
    pub fn look(&mut self, zone: &Id, look: Look<'_>, now: &Moment) -> Vec<Effect> {
        let now = self.ordered(now);
        let Some(zone) = self.zones.iter_mut().find(|z| z.zone == *zone) else {
            self.counters.mismatched_looks += 1;
            return Vec::new();
        };
        match look {
            Look::Unchanged => zone.entries.iter_mut().for_each(|e| e.decider.repeat()),
            Look::Scores(scores) if scores.len() == zone.entries.len() => {
                for (entry, score) in zone.entries.iter_mut().zip(scores) {
                    if !entry.decider.record(*score) {
                        self.counters.refused_observations += 1;
                    }
                }
            }
            Look::Scores(_) => {
                self.counters.mismatched_looks += 1;
                return Vec::new();
            }
        }
        zone.unseen = None;
        zone.decide(&mut self.press, &now)
    }

    /// Nothing can be seen by `camera`: its zones turn UNKNOWN. Repeating it changes nothing.
    pub fn unseen(&mut self, camera: &Id, cause: Unseen, now: &Moment) -> Vec<Effect> {
        let now = self.ordered(now);
        let mut effects = Vec::new();
        for zone in self.zones.iter_mut().filter(|z| z.camera == *camera) {
            zone.unseen = Some(cause);
            effects.extend(zone.blind(&mut self.press, &now, EndReason::Unknown));
        }
        effects
    }

    /// Turns everything UNKNOWN and ends every open event with `reason`, as before a clean stop.
    pub fn end_all(&mut self, reason: EndReason, now: &Moment) -> Vec<Effect> {
        let now = self.ordered(now);
        let zones = self.zones.iter_mut();
        zones
            .flat_map(|zone| zone.blind(&mut self.press, &now, reason))
            .collect()
    }

    /// The state of everything, for a first or repeated publication of the retained topics.
    pub fn announce(&self, now: &Moment) -> Vec<Effect> {
        let of_zone = |zone: &Zone| {
            let effects = zone.entries.iter();
            let effects = effects.map(|entry| entry.state_effect(&zone.zone, now, true));
            effects.collect::<Vec<_>>()
        };
        self.zones.iter().flat_map(of_zone).collect()
    }

    /// Whether a label of `zone` has seen nothing yet since the zone became visible, so that a frame
    /// has to be encoded whatever the change gate says.
    pub fn needs_scores(&self, zone: &Id) -> bool {
        let zone = self.zones.iter().find(|z| z.zone == *zone);
        zone.is_some_and(|z| z.entries.iter().any(|entry| entry.decider.is_blank()))
    }

    /// Every event that is open now, as a store has to keep it.
    pub fn open_events(&self) -> Vec<OpenEvent> {
        let entries = self.zones.iter().flat_map(|zone| &zone.entries);
        entries
            .filter_map(|entry| OpenEvent::of(&entry.open.as_ref()?.event))
            .collect()
    }

    /// Everything as it stands, in configuration order.
    pub fn views(&self) -> impl Iterator<Item = LabelView<'_>> {
        self.zones.iter().flat_map(|zone| {
            zone.entries.iter().map(|entry| LabelView {
                camera: &zone.camera,
                zone: &zone.zone,
                plan: &entry.plan,
                state: entry.decider.state(),
                median: entry.decider.median(),
                unseen: zone.unseen,
            })
        })
    }

    /// The sequence number the next event will get.
    pub fn next_sequence(&self) -> u64 {
        self.press.next_sequence
    }

    /// What was refused so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// `now`, with an uptime that never goes backwards.
    fn ordered(&mut self, now: &Moment) -> Moment {
        self.latest = self.latest.max(now.uptime);
        Moment {
            uptime: self.latest,
            ..*now
        }
    }
}

impl<I: EventIds> Press<I> {
    fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence = self.next_sequence.saturating_add(1);
        sequence
    }
}

impl Zone {
    fn decide(&mut self, press: &mut Press<impl EventIds>, now: &Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        // The strongest first: of two labels of a group that are due together it is the one to win.
        let median = |e: &Entry| e.decider.median().map_or(-1.0, |m| m.probability);
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by(|&a, &b| median(&self.entries[b]).total_cmp(&median(&self.entries[a])));
        for index in order {
            let rival = self
                .on_in_the_same_group(index)
                .map(|other| median(&self.entries[other]))
                .max_by(f32::total_cmp);
            let entry = &mut self.entries[index];
            if entry.decider.is_starved() {
                effects.extend(entry.blind(&self.zone, press, now, EndReason::Unknown));
                continue;
            }
            match entry.decider.judge(now.uptime, rival) {
                Some(Turn::On { seen_since }) => {
                    let displaced: Vec<usize> = self.on_in_the_same_group(index).collect();
                    for other in displaced {
                        self.entries[other].decider.displace();
                        effects.extend(self.entries[other].turned_off(&self.zone, press, now));
                    }
                    effects.extend(self.entries[index].turned_on(
                        &self.camera,
                        &self.zone,
                        seen_since,
                        press,
                        now,
                    ));
                }
                Some(Turn::Off) => effects.extend(entry.turned_off(&self.zone, press, now)),
                None => effects.extend(entry.moved(&self.zone, press, now)),
            }
        }
        effects
    }

    fn on_in_the_same_group(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let group = self.entries[index].plan.label.group.as_ref();
        let exclusive =
            move |other: &Entry| group.is_some() && other.plan.label.group.as_ref() == group;
        (0..self.entries.len()).filter(move |&other| {
            let entry = &self.entries[other];
            other != index && entry.decider.state() == ZoneState::On && exclusive(entry)
        })
    }

    fn blind(
        &mut self,
        press: &mut Press<impl EventIds>,
        now: &Moment,
        reason: EndReason,
    ) -> Vec<Effect> {
        let zone = &self.zone;
        let entries = self.entries.iter_mut();
        entries
            .flat_map(|entry| entry.blind(zone, press, now, reason))
            .collect()
    }
}

impl Entry {
    fn new(plan: LabelPlan, now: &Moment) -> Self {
        Self {
            decider: Decider::new(plan.label.rule),
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

    fn watches_the_same(&self, plan: &LabelPlan) -> bool {
        let (ours, theirs) = (&self.plan.label, &plan.label);
        ours.prompts == theirs.prompts
            && ours.group == theirs.group
            && self.plan.prompt == plan.prompt
    }

    fn turned_on(
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

    fn turned_off(
        &mut self,
        zone: &Id,
        press: &mut Press<impl EventIds>,
        now: &Moment,
    ) -> Vec<Effect> {
        let state = self.changed(zone, now);
        let ended = self.end(press, now, EndReason::Left);
        std::iter::once(state).chain(ended).collect()
    }

    fn blind(
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
        if was == ZoneState::Unknown {
            return Vec::new();
        }
        let state = self.changed(zone, now);
        std::iter::once(state).chain(ended).collect()
    }

    /// The state did not change; the numbers may have.
    fn moved(&mut self, zone: &Id, press: &mut Press<impl EventIds>, now: &Moment) -> Vec<Effect> {
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

    /// Closes the open event, if there is one.
    fn end(
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

    fn state_effect(&self, zone: &Id, now: &Moment, changed: bool) -> Effect {
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

impl Stamp {
    fn at(now: &Moment) -> Self {
        Self {
            uptime: now.uptime,
            wall: now.wall,
        }
    }

    /// The earlier `uptime`, on the wall clock as it runs now.
    fn before(now: &Moment, uptime: Duration) -> Self {
        let ago = SignedDuration::try_from(now.uptime.saturating_sub(uptime));
        let wall = ago.ok().and_then(|ago| now.wall.checked_sub(ago).ok());
        Self {
            uptime,
            wall: wall.unwrap_or(Timestamp::MIN),
        }
    }

    /// The wall time of this stamp, corrected when the wall clock jumped since, never after `now`.
    fn wall_at(&self, now: &Moment) -> Timestamp {
        let as_of_now = Self::before(now, self.uptime).wall;
        let jump = as_of_now.duration_since(self.wall).abs();
        let wall = if jump > CLOCK_JUMP {
            as_of_now
        } else {
            self.wall
        };
        wall.min(now.wall)
    }
}

/// Payloads carry milliseconds, and `since` never comes after `time`.
fn tidy(event: Event) -> Event {
    Event {
        time: to_milliseconds(event.time),
        since: to_milliseconds(event.since.min(event.time)),
        ..event
    }
}

fn to_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}
