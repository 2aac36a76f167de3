//! Rules that hold for every schedule of frames, losses, changes and clocks.

use std::collections::HashMap;
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::config::{Label, Probability, PromptSource, Rule, Shape};
use crate::event::EventType;
use crate::moment::{Clock, Moment};

#[derive(Clone, Debug)]
enum Step {
    Scores([f32; 3]),
    Unchanged,
    Unseen(Unseen),
    Threshold(usize, f32),
    Reconfigure,
}

fn score() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => 0.65_f32..=1.0,
        4 => 0.0_f32..0.55,
        2 => 0.0_f32..=1.0,
        1 => prop_oneof![
            Just(f32::NAN),
            Just(f32::INFINITY),
            Just(-0.01),
            Just(1.01)
        ],
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // The same scores for a while are far more likely to turn anything.
        8 => prop_oneof![
            Just([0.9, 0.1, 0.9]),
            Just([0.1, 0.9, 0.2]),
            Just([0.1, 0.1, 0.1])
        ]
        .prop_map(Step::Scores),
        6 => [score(), score(), score()].prop_map(Step::Scores),
        12 => Just(Step::Unchanged),
        1 => prop_oneof![
            Just(Unseen::Lost),
            Just(Unseen::Stalled),
            Just(Unseen::Dark),
            Just(Unseen::Covered),
            Just(Unseen::Paused)
        ]
        .prop_map(Step::Unseen),
        1 => (0..3_usize, 0.0_f32..=1.0).prop_map(|(n, enter)| Step::Threshold(n, enter)),
        1 => Just(Step::Reconfigure),
    ]
}

fn rules() -> impl Strategy<Value = [Rule; 3]> {
    let rule = (0.5_f32..0.9, 0.0_f32..0.4, 0_u64..5000, 0_usize..4).prop_map(
        |(enter, gap, dwell_ms, half)| {
            let enter = Probability::new(enter).unwrap();
            Rule {
                enter,
                leave: Probability::new(enter.get() - gap).unwrap(),
                dwell: Duration::from_millis(dwell_ms),
                window: 2 * half + 1,
            }
        },
    );
    [rule.clone(), rule.clone(), rule]
}

fn schedule() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let gap_ms = prop_oneof![8 => 10_u64..1500, 1 => Just(0), 1 => 1500_u64..60_000];
    prop::collection::vec((gap_ms, step()), 1..120)
}

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

/// Labels 0 and 1 exclude each other, label 2 is alone. `variant` renames label 2.
fn zone(rules: [Rule; 3], variant: bool) -> ZonePlan {
    let third = if variant { "altro" } else { "terzo" };
    let labels = ["pieno", "vuoto", third];
    let label = |(slug, rule): (&str, Rule)| LabelPlan {
        label: Label {
            id: id(slug),
            prompts: PromptSource::Noun(slug.to_owned()),
            group: (slug == "pieno" || slug == "vuoto").then(|| id("stato")),
            rule,
        },
        prompt: slug.to_owned(),
    };
    ZonePlan {
        camera: id("cam"),
        zone: id("zona"),
        shape: Shape::Full,
        labels: labels.into_iter().zip(rules).map(label).collect(),
    }
}

fn observations(scores: [f32; 3]) -> [Observation; 3] {
    scores.map(|probability| Observation {
        probability,
        margin: 0.0,
    })
}

fn at(milliseconds: u64) -> Moment {
    let start: jiff::Timestamp = "2026-10-02T09:00:00Z".parse().unwrap();
    let uptime = Duration::from_millis(milliseconds);
    Moment {
        uptime,
        wall: start + SignedDuration::try_from(uptime).unwrap(),
        clock: Clock::Synced,
    }
}

/// A second, naive bookkeeper: reads only what is published.
#[derive(Default)]
struct Witness {
    open: HashMap<String, Event>,
    ended: Vec<String>,
    states: HashMap<String, ZoneState>,
    next_sequence: u64,
    refused: u64,
}

impl Witness {
    fn read(&mut self, effects: &[Effect], now: &Moment) {
        for effect in effects {
            match effect {
                Effect::State { label, state, .. } => {
                    self.states.insert(label.as_str().to_owned(), *state);
                }
                Effect::Removed { label, .. } => {
                    self.states.remove(label.as_str());
                }
                Effect::Event(event) => self.read_event(event, now),
            }
        }
        let on = |label: &str| self.states.get(label) == Some(&ZoneState::On);
        assert!(!(on("pieno") && on("vuoto")), "two of a group are ON");
        let mut open: Vec<&str> = self.open.values().map(|e| e.label.as_str()).collect();
        let mut lit: Vec<&str> = self.states.keys().map(String::as_str).collect();
        lit.retain(|label| on(label));
        open.sort_unstable();
        lit.sort_unstable();
        assert_eq!(open, lit, "an event is open exactly while its label is ON");
    }

    fn read_event(&mut self, event: &Event, now: &Moment) {
        assert_eq!(event.sequence, self.next_sequence, "no gap, no repetition");
        self.next_sequence += 1;
        assert_eq!(event.time, now.wall);
        assert!(event.since <= event.time);
        assert!((0.0..=1.0).contains(&event.probability));
        assert!(event.frames[0] <= event.frames[1]);
        assert!(!self.ended.contains(&event.id), "nothing follows `ended`");
        match event.kind {
            EventType::Confirmed => {
                assert!(event.reason.is_none());
                assert!(event.probability >= event.threshold);
                let before = self.open.insert(event.id.clone(), event.clone());
                assert!(before.is_none(), "confirmed twice");
            }
            EventType::Updated => {
                let before = self.open.insert(event.id.clone(), event.clone()).unwrap();
                let pause = event.time.duration_since(before.time);
                assert!(pause >= SignedDuration::from_secs(30), "{pause:?}");
                assert!((event.probability - before.probability).abs() >= 0.1);
            }
            EventType::Ended => {
                assert!(event.reason.is_some());
                let before = self.open.remove(&event.id).expect("ended but never open");
                assert!(before.time <= event.time);
                self.ended.push(event.id.clone());
            }
        }
    }
}

/// Which frames an outside observer may count towards a dwell: all since the last loss.
fn run(rules: [Rule; 3], schedule: &[(u64, Step)], unfold: bool) -> (Vec<Effect>, Witness) {
    let mut count = 0;
    let ids = move |_: &Moment| {
        count += 1;
        format!("id-{count}")
    };
    let mut rules = rules;
    let mut variant = false;
    let mut board = Board::new("boot", "bundle", 0, ids);
    let mut witness = Witness::default();
    let mut clock = 0;
    let mut last: Option<[Observation; 3]> = None;
    let mut all = Vec::new();
    let mut publish = |effects: Vec<Effect>, now: &Moment, witness: &mut Witness| {
        witness.read(&effects, now);
        all.extend(effects);
    };
    publish(
        board.configure(vec![zone(rules, variant)], &at(0)),
        &at(0),
        &mut witness,
    );
    for (gap, step) in schedule {
        clock += gap;
        let now = at(clock);
        let effects = match step {
            Step::Scores(scores) => {
                let scores = observations(*scores);
                let bad = scores.iter().filter(|o| !o.is_valid()).count();
                witness.refused += u64::try_from(bad).unwrap();
                last = (bad == 0).then_some(scores);
                board.look(&id("zona"), Look::Scores(&scores), &now)
            }
            Step::Unchanged => match last {
                Some(scores) if unfold => board.look(&id("zona"), Look::Scores(&scores), &now),
                _ => board.look(&id("zona"), Look::Unchanged, &now),
            },
            Step::Unseen(cause) => {
                last = None;
                let effects = board.unseen(&id("cam"), *cause, &now);
                assert!(board.views().all(|view| view.state == ZoneState::Unknown));
                assert!(board.open_events().is_empty());
                effects
            }
            Step::Threshold(label, enter) => {
                rules[*label] = with_enter(rules[*label], Probability::new(*enter).unwrap());
                let plan = zone(rules, variant);
                assert!(board.set_rule(&plan.labels[*label].label.id, rules[*label]));
                Vec::new()
            }
            Step::Reconfigure => {
                variant = !variant;
                last = None;
                board.configure(vec![zone(rules, variant)], &now)
            }
        };
        publish(effects, &now, &mut witness);
        assert_eq!(board.open_events().len(), witness.open.len());
        assert_eq!(board.counters().refused_observations, witness.refused);
    }
    // A restart: everything still open is ended, once, and the numbers go on.
    let now = at(clock + 1);
    let mut next = Board::new("boot-2", "bundle", 0, RandomUlids);
    if !board.open_events().is_empty() {
        let open: Vec<OpenEvent> = board.open_events();
        let mut effects = next.end_left_open(open, &now);
        // Only the numbers of this run are known to the new one.
        for effect in &mut effects {
            if let Effect::Event(event) = effect {
                assert!(event.sequence <= witness.next_sequence);
                event.sequence = witness.next_sequence;
                let sequence = witness.next_sequence;
                witness.read_event(event, &now);
                assert_eq!(witness.next_sequence, sequence + 1);
            }
        }
    }
    assert!(witness.open.is_empty(), "a restart ends what was open");
    (all, witness)
}

/// Longest time before `end` during which the naive reading of the schedule allows the label to
/// lean: since the last loss, reconfiguration or change of its threshold.
fn earned_since(schedule: &[(u64, Step)], end: u64) -> u64 {
    let mut clock = 0;
    let mut since = 0;
    for (gap, step) in schedule {
        clock += gap;
        if clock > end {
            break;
        }
        if matches!(step, Step::Unseen(_)) && clock < end {
            since = clock;
        }
    }
    since
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_well_formed_and_closed(rules in rules(), schedule in schedule()) {
        run(rules, &schedule, false);
    }

    #[test]
    fn nothing_is_confirmed_without_its_dwell(rules in rules(), schedule in schedule()) {
        let schedule: Vec<_> = schedule
            .into_iter()
            .filter(|(_, step)| !matches!(step, Step::Threshold(..)))
            .collect();
        let (effects, _) = run(rules, &schedule, false);
        for effect in &effects {
            let Effect::Event(event) = effect else { continue };
            if event.kind != EventType::Confirmed {
                continue;
            }
            let index = match event.label.as_str() {
                "pieno" => 0,
                "vuoto" => 1,
                _ => 2,
            };
            let dwell = rules[index].dwell;
            let dwelt = event.time.duration_since(event.since);
            prop_assert!(dwelt >= SignedDuration::try_from(dwell).unwrap());
            let end = u64::try_from(event.time.duration_since(at(0).wall).as_millis()).unwrap();
            let visible_since = earned_since(&schedule, end);
            prop_assert!(end - visible_since >= u64::try_from(dwell.as_millis()).unwrap());
        }
    }

    #[test]
    fn an_unchanged_frame_counts_like_the_frame_it_repeats(
        rules in rules(),
        schedule in schedule(),
    ) {
        let valid = |step: &Step| match step {
            Step::Scores(scores) => observations(*scores).iter().all(Observation::is_valid),
            Step::Reconfigure => false,
            _ => true,
        };
        let schedule: Vec<_> = schedule.into_iter().filter(|(_, step)| valid(step)).collect();
        let (gated, _) = run(rules, &schedule, false);
        let (ungated, _) = run(rules, &schedule, true);
        prop_assert_eq!(gated, ungated);
    }

    #[test]
    fn a_visible_zone_is_unknown_for_at_most_twice_its_dwell(
        rules in rules(),
        scores in prop::collection::vec((1_u64..500, 0.0_f32..=1.0), 10..80),
    ) {
        let mut board = Board::new("boot", "bundle", 0, RandomUlids);
        board.configure(vec![zone(rules, false)], &at(0));
        let (mut clock, mut filled_at) = (0, [None; 3]);
        for (n, (gap, score)) in scores.into_iter().enumerate() {
            clock += gap;
            let scores = observations([score; 3]);
            board.look(&id("zona"), Look::Scores(&scores), &at(clock));
            for (label, view) in board.views().enumerate() {
                if n + 1 >= rules[label].window.div_ceil(2) {
                    let since = *filled_at[label].get_or_insert(clock);
                    // One frame more, because a state turns only when a frame is looked at.
                    let limit = 2 * rules[label].dwell + Duration::from_millis(1000);
                    if Duration::from_millis(clock - since) > limit {
                        prop_assert_ne!(view.state, ZoneState::Unknown);
                    }
                }
            }
        }
    }
}
