//! One zone: which of its labels turn, and in which order.

use super::decider::Turn;
use super::entry::{Entry, Press};
use super::{Effect, EventIds, Unseen};
use crate::config::{Id, Shape};
use crate::event::{EndReason, ZoneState};
use crate::moment::Moment;

#[derive(Debug)]
pub(super) struct Zone {
    pub(super) camera: Id,
    pub(super) zone: Id,
    pub(super) shape: Shape,
    pub(super) entries: Vec<Entry>,
    pub(super) unseen: Option<Unseen>,
}

impl Zone {
    pub(super) fn decide(&mut self, press: &mut Press<impl EventIds>, now: &Moment) -> Vec<Effect> {
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
            let usual = entry.usual(now);
            if entry.decider.is_starved() {
                effects.extend(entry.blind(&self.zone, press, now, EndReason::Unknown));
                continue;
            }
            match entry.decider.judge(now.uptime, rival, usual) {
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

    pub(super) fn blind(
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
