//! All deciders of all zones, and the life of their events.

use std::collections::HashMap;
use std::time::Duration;

use super::entry::{Entry, Press};
use super::stamp::tidy;
use super::zone::Zone;
use super::{Effect, EventIds, LabelPlan, Look, Observation, OpenEvent, Unseen, ZonePlan};
use crate::config::{Id, Rule};
use crate::event::{EndReason, ZoneState};
use crate::moment::Moment;

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
                        if entry.plan.calibration != label.calibration {
                            entry.forget_scores();
                        }
                        entry.decider.set_rule(label.label.rule);
                        entry.set_baseline(plan.baseline);
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
                        let entry = Entry::new(label, plan.baseline, &now);
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
        let entries = self.zones.iter_mut().flat_map(|zone| &mut zone.entries);
        entries.for_each(Entry::forget_usual);
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
                    if !entry.record(*score) {
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
        entries.filter_map(Entry::open_event).collect()
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
