//! Behaviour of the board, told as short stories.

use std::time::Duration;

use jiff::SignedDuration;

use super::*;
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
    }
}

fn zone(labels: Vec<LabelPlan>) -> ZonePlan {
    ZonePlan {
        camera: id("corsia4"),
        zone: id("r2"),
        shape: Shape::Full,
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

#[test]
fn a_label_that_stays_is_confirmed_once_and_ended_once() {
    let mut board = board(vec![label("mela", None)]);
    let effects = watch(&mut board, 1.0, 10, &[0.9]);
    assert_eq!(states(&effects), [("mela", ZoneState::On)]);
    let confirmed = events(&effects)[0].clone();
    assert_eq!(confirmed.kind, EventType::Confirmed);
    assert_eq!(confirmed.prompt, "una mela");
    assert_eq!(confirmed.frames, [3, 3]);
    assert_eq!(confirmed.sequence, 100);
    // The second frame fills half of the window; three seconds later the dwell time is over.
    assert_eq!(confirmed.since, at(2.0).wall);
    assert_eq!(confirmed.time, at(5.0).wall);
    assert_eq!(board.open_events().len(), 1);

    let effects = watch(&mut board, 11.0, 10, &[0.1]);
    assert_eq!(states(&effects), [("mela", ZoneState::Off)]);
    assert_eq!(kinds(&effects), [(EventType::Ended, Some(EndReason::Left))]);
    let ended = events(&effects)[0];
    assert_eq!((&ended.id, ended.since), (&confirmed.id, confirmed.since));
    assert_eq!(ended.sequence, 101);
    assert!(board.open_events().is_empty());
}

#[test]
fn a_short_appearance_gives_no_event() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.1]);
    let effects = [
        watch(&mut board, 11.0, 3, &[0.9]),
        watch(&mut board, 14.0, 9, &[0.1]),
    ]
    .concat();
    assert!(states(&effects).is_empty());
    assert!(events(&effects).is_empty());
}

#[test]
fn between_the_thresholds_the_state_stays() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.9]);
    assert!(states(&watch(&mut board, 11.0, 60, &[0.6])).is_empty());
    watch(&mut board, 80.0, 10, &[0.4]);
    assert!(states(&watch(&mut board, 90.0, 60, &[0.6])).is_empty());
}

#[test]
fn a_visible_zone_with_a_middling_probability_turns_off_and_not_on() {
    let mut board = board(vec![label("mela", None)]);
    let effects = watch(&mut board, 1.0, 10, &[0.6]);
    assert_eq!(states(&effects), [("mela", ZoneState::Off)]);
    assert!(events(&effects).is_empty());
}

#[test]
fn a_label_that_flickers_around_its_threshold_does_not_stay_unknown() {
    let mut board = board(vec![label("mela", None)]);
    let effects: Vec<Effect> = (0..8)
        .flat_map(|n| {
            let score = if n % 4 < 2 { 0.71 } else { 0.69 };
            watch(&mut board, f64::from(n), 1, &[score])
        })
        .collect();
    assert_eq!(states(&effects), [("mela", ZoneState::Off)]);
}

#[test]
fn a_stalled_camera_turns_its_zones_unknown_and_ends_their_events() {
    let mut board = board(vec![label("mela", None), label("pera", None)]);
    watch(&mut board, 1.0, 10, &[0.9, 0.1]);
    let effects = board.unseen(&id("corsia4"), Unseen::Stalled, &at(20.0));
    assert_eq!(
        states(&effects),
        [("mela", ZoneState::Unknown), ("pera", ZoneState::Unknown)]
    );
    assert_eq!(
        kinds(&effects),
        [(EventType::Ended, Some(EndReason::Unknown))]
    );
    assert_eq!(events(&effects)[0].frames, [3, 3], "what was last seen");
    let again = board.unseen(&id("corsia4"), Unseen::Lost, &at(21.0));
    assert!(again.is_empty(), "{again:?}");
    assert!(
        board
            .views()
            .all(|view| view.unseen == Some(Unseen::Lost) && view.median.is_none())
    );
}

#[test]
fn another_camera_is_not_concerned() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.9]);
    assert!(
        board
            .unseen(&id("altra"), Unseen::Lost, &at(20.0))
            .is_empty()
    );
}

#[test]
fn after_a_loss_the_state_has_to_be_earned_again() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.9]);
    board.unseen(&id("corsia4"), Unseen::Dark, &at(20.0));
    assert!(board.needs_scores(&id("r2")));
    let unchanged = board.look(&id("r2"), Look::Unchanged, &at(30.0));
    assert!(unchanged.is_empty(), "nothing was seen yet: {unchanged:?}");
    assert!(watch(&mut board, 31.0, 3, &[0.9]).is_empty());
    assert!(!board.needs_scores(&id("r2")));
    let effects = watch(&mut board, 34.0, 3, &[0.9]);
    assert_eq!(kinds(&effects), [(EventType::Confirmed, None)]);
    assert_eq!(events(&effects)[0].id, "id-2");
}

#[test]
fn unchanged_frames_complete_the_dwell_time_without_a_new_encode() {
    let mut board = board(vec![label("mela", None)]);
    let mut effects = watch(&mut board, 1.0, 1, &[0.9]);
    for n in 2..8 {
        effects.extend(board.look(&id("r2"), Look::Unchanged, &at(f64::from(n))));
    }
    assert_eq!(kinds(&effects), [(EventType::Confirmed, None)]);
}

#[test]
fn an_open_event_is_updated_when_it_moved_and_not_too_often() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.9]);
    let effects = watch(&mut board, 11.0, 20, &[0.78]);
    assert!(events(&effects).is_empty(), "only 26 s after `confirmed`");
    let effects = watch(&mut board, 31.0, 60, &[0.78]);
    assert_eq!(kinds(&effects), [(EventType::Updated, None)]);
    assert!((events(&effects)[0].probability - 0.78).abs() < 1e-6);
    let effects = watch(&mut board, 100.0, 60, &[0.75]);
    assert!(events(&effects).is_empty(), "moved too little");
}

#[test]
fn numbers_beside_an_unchanged_state_are_refreshed_calmly() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.1]);
    let effects = watch(&mut board, 11.0, 20, &[0.3]);
    assert!(
        matches!(
            effects.as_slice(),
            [Effect::State { changed: false, state: ZoneState::Off, attributes, .. }]
                if (attributes.probability - 0.3).abs() < 1e-6
        ),
        "{effects:?}"
    );
}

#[test]
fn nonsense_scores_are_refused_counted_and_in_the_end_unknown() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.9]);
    assert!(watch(&mut board, 11.0, 2, &[f32::NAN]).is_empty());
    let effects = watch(&mut board, 13.0, 1, &[7.0]);
    assert_eq!(states(&effects), [("mela", ZoneState::Unknown)]);
    assert_eq!(
        kinds(&effects),
        [(EventType::Ended, Some(EndReason::Unknown))]
    );
    assert_eq!(board.counters().refused_observations, 3);
}

#[test]
fn looks_that_do_not_fit_the_zone_are_counted_and_ignored() {
    let mut board = board(vec![label("mela", None)]);
    let two = [seen(0.9), seen(0.9)];
    assert!(
        board
            .look(&id("r2"), Look::Scores(&two), &at(1.0))
            .is_empty()
    );
    assert!(board.look(&id("r3"), Look::Unchanged, &at(1.0)).is_empty());
    assert_eq!(board.counters().mismatched_looks, 2);
}

#[test]
fn one_label_of_a_group_takes_over_from_another() {
    let stato = Some("stato");
    let mut board = board(vec![label("pieno", stato), label("vuoto", stato)]);
    board.set_rule(
        &id("pieno"),
        with_enter(rule(), Probability::new(0.4).unwrap()),
    );
    board.set_rule(
        &id("vuoto"),
        with_enter(rule(), Probability::new(0.4).unwrap()),
    );
    let effects = watch(&mut board, 1.0, 10, &[0.48, 0.45]);
    assert_eq!(
        states(&effects),
        [("pieno", ZoneState::On), ("vuoto", ZoneState::Off)]
    );
    let effects = watch(&mut board, 11.0, 10, &[0.45, 0.48]);
    assert_eq!(
        states(&effects),
        [("pieno", ZoneState::Off), ("vuoto", ZoneState::On)]
    );
    assert_eq!(
        kinds(&effects),
        [
            (EventType::Ended, Some(EndReason::Left)),
            (EventType::Confirmed, None)
        ]
    );
}

#[test]
fn a_new_threshold_applies_at_once_and_keeps_the_state() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.75]);
    let stricter = with_enter(rule(), Probability::new(0.8).unwrap());
    assert!((stricter.leave.get() - 0.6).abs() < 1e-6);
    assert!(board.set_rule(&id("mela"), stricter));
    let effects = watch(&mut board, 11.0, 20, &[0.75]);
    assert!(
        states(&effects).is_empty(),
        "0.75 is over the new leave threshold"
    );
    let effects = watch(&mut board, 31.0, 6, &[0.55]);
    assert_eq!(states(&effects), [("mela", ZoneState::Off)]);
    assert!(states(&watch(&mut board, 40.0, 20, &[0.75])).is_empty());
    assert!(!board.set_rule(&id("kiwi"), stricter));
}

#[test]
fn reconfiguring_keeps_what_stays_and_ends_what_goes() {
    let mut board = board(vec![label("mela", None), label("pera", None)]);
    watch(&mut board, 1.0, 10, &[0.9, 0.9]);
    let plan = zone(vec![label("uva", None), label("pera", None)]);
    let effects = board.configure(vec![plan], &at(20.0));
    assert_eq!(states(&effects), [("uva", ZoneState::Unknown)]);
    assert_eq!(
        kinds(&effects),
        [(EventType::Ended, Some(EndReason::Reconfigured))]
    );
    assert_eq!(events(&effects)[0].label, "mela");
    assert_eq!(
        effects.last(),
        Some(&Effect::Removed {
            zone: id("r2"),
            label: id("mela")
        })
    );
    let open = board.open_events();
    assert_eq!(open.len(), 1);
    let effects = watch(&mut board, 21.0, 10, &[0.1, 0.9]);
    assert_eq!(states(&effects), [("uva", ZoneState::Off)]);
}

#[test]
fn a_new_prompt_makes_a_new_label() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.9]);
    let mut other = label("mela", None);
    other.prompt = "una mela verde".to_owned();
    let effects = board.configure(vec![zone(vec![other])], &at(20.0));
    assert_eq!(states(&effects), [("mela", ZoneState::Unknown)]);
    assert_eq!(
        kinds(&effects),
        [(EventType::Ended, Some(EndReason::Reconfigured))]
    );
}

#[test]
fn a_restart_ends_what_was_open_with_greater_numbers() {
    let mut first = board(vec![label("mela", None)]);
    watch(&mut first, 1.0, 10, &[0.9]);
    let text = serde_json::to_string(&first.open_events()).unwrap();

    let kept: Vec<OpenEvent> = serde_json::from_str(&text).unwrap();
    let mut second = Board::new("boot-2", "demo@sha256:00", 0, RandomUlids);
    let effects = second.end_left_open(kept, &at(60.0));
    let ended = events(&effects)[0];
    assert_eq!(ended.id, "id-1");
    assert_eq!(ended.reason, Some(EndReason::Restart));
    assert_eq!(ended.boot, "boot-2");
    assert_eq!(ended.sequence, 101);
    assert_eq!(second.next_sequence(), 102);
}

#[test]
fn since_follows_a_wall_clock_that_was_set_after_boot() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.9]);
    let year = SignedDuration::from_hours(24 * 365);
    for (jump, shift) in [("ahead", year), ("back", -year)] {
        let mut now = at(20.0);
        now.wall += shift;
        let effects = board.announce(&now);
        let Effect::State { attributes, .. } = &effects[0] else {
            panic!("a state");
        };
        assert_eq!(attributes.since, at(5.0).wall + shift, "{jump}");
    }
}

#[test]
fn an_uptime_that_steps_back_is_held() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 100.0, 2, &[0.9]);
    let effects = watch(&mut board, 1.0, 50, &[0.9]);
    assert!(effects.is_empty(), "no time passed: {effects:?}");
    assert!(!watch(&mut board, 105.0, 1, &[0.9]).is_empty());
}

#[test]
fn a_lowered_threshold_needs_a_whole_dwell_of_its_own() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.1]);
    // Three seconds over 0.7, and one short of being confirmed, the threshold moves.
    let mut effects = watch(&mut board, 11.0, 4, &[0.9]);
    board.set_rule(
        &id("mela"),
        with_enter(rule(), Probability::new(0.6).unwrap()),
    );
    effects.extend(watch(&mut board, 15.0, 3, &[0.9]));
    assert!(events(&effects).is_empty());
    let effects = watch(&mut board, 18.0, 1, &[0.9]);
    assert_eq!(kinds(&effects), [(EventType::Confirmed, None)]);
}

#[test]
fn off_has_to_be_earned_again_too() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.1]);
    board.unseen(&id("corsia4"), Unseen::Covered, &at(20.0));
    assert!(states(&watch(&mut board, 30.0, 4, &[0.1])).is_empty());
    let effects = watch(&mut board, 34.0, 2, &[0.1]);
    assert_eq!(states(&effects), [("mela", ZoneState::Off)]);
}
