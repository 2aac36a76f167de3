//! Rules that hold for every schedule of frames, losses, changes and clocks.

use std::collections::HashMap;
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;

use crate::calibrate::Platt;
use crate::config::{Label, Probability, PromptSource, Rule, Shape};
use crate::decide::*;
use crate::event::{EndReason, EventType};
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
        calibration: Platt::default(),
    };
    ZonePlan {
        camera: id("cam"),
        zone: id("zona"),
        shape: Shape::Full,
        baseline: None,
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

/// Plays `schedule` and has a [`Witness`] read along. With `unfold`, an unchanged frame is given as
/// the scores it repeats.
fn run(rules: [Rule; 3], schedule: &[(u64, Step)], unfold: bool) -> Vec<Effect> {
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
    let mut next = Board::new("boot-2", "bundle", board.next_sequence(), RandomUlids);
    for effect in next.end_left_open(board.open_events(), &now) {
        match effect {
            Effect::Event(event) => witness.read_event(&event, &now),
            other => panic!("only events, not {other:?}"),
        }
    }
    assert!(witness.open.is_empty(), "a restart ends what was open");
    all
}

/// The medians of one label as a naive reader of the schedule computes them: `(time, median)` of
/// each look at which at least half of the window is filled; `None` where nothing could be seen.
fn naive_medians(schedule: &[(u64, Step)], label: usize, window: usize) -> Vec<(u64, Option<f32>)> {
    let mut medians = Vec::new();
    let mut seen: Vec<f32> = Vec::new();
    let mut clock = 0;
    for (gap, step) in schedule {
        clock += gap;
        match step {
            Step::Scores(scores) => seen.push(scores[label]),
            Step::Unchanged => seen.extend(seen.last().copied()),
            _ => seen.clear(),
        }
        let mut newest: Vec<f32> = seen.iter().rev().take(window).copied().collect();
        newest.sort_by(f32::total_cmp);
        let (low, high) = (newest.len().saturating_sub(1) / 2, newest.len() / 2);
        let filled = 2 * newest.len() >= window && !newest.is_empty();
        medians.push((
            clock,
            filled.then(|| f32::midpoint(newest[low], newest[high])),
        ));
    }
    medians
}

/// Whether `holds` was true at every look of the last `dwell` before `end`, which must reach back to
/// a look at or before its beginning.
fn held(
    medians: &[(u64, Option<f32>)],
    end: u64,
    dwell: Duration,
    holds: impl Fn(f32) -> bool,
) -> bool {
    let begin = end.saturating_sub(u64::try_from(dwell.as_millis()).unwrap());
    let mut looks = medians.iter().rev().skip_while(|(time, _)| *time > end);
    looks
        .find_map(|(time, median)| match median {
            Some(median) if holds(*median) => (*time <= begin).then_some(true),
            _ => Some(false),
        })
        .unwrap_or(false)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_well_formed_and_closed(rules in rules(), schedule in schedule()) {
        run(rules, &schedule, false);
    }

    #[test]
    fn nothing_begins_or_ends_without_its_dwell(rules in rules(), schedule in schedule()) {
        let plain = |step: &Step| match step {
            Step::Scores(scores) => observations(*scores).iter().all(Observation::is_valid),
            Step::Unchanged | Step::Unseen(_) => true,
            Step::Threshold(..) | Step::Reconfigure => false,
        };
        let schedule: Vec<_> = schedule
            .into_iter()
            .filter(|(_, step)| plain(step))
            .map(|(gap, step)| (gap.max(1), step))
            .collect();
        for effect in run(rules, &schedule, false) {
            let Effect::Event(event) = effect else { continue };
            let label = match event.label.as_str() {
                "pieno" => 0,
                "vuoto" => 1,
                _ => 2,
            };
            let Rule { enter, leave, dwell, window } = rules[label];
            let medians = naive_medians(&schedule, label, window);
            let end = event.time.duration_since(at(0).wall).as_millis();
            let end = u64::try_from(end).unwrap();
            if event.kind == EventType::Confirmed {
                let dwelt = event.time.duration_since(event.since);
                prop_assert!(dwelt >= SignedDuration::try_from(dwell).unwrap());
                prop_assert!(held(&medians, end, dwell, |median| median >= enter.get()));
            }
            // In a group another label may end it at once.
            if event.reason == Some(EndReason::Left) && label == 2 {
                prop_assert!(held(&medians, end, dwell, |median| median < leave.get()));
            }
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
        let gated = run(rules, &schedule, false);
        let ungated = run(rules, &schedule, true);
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
