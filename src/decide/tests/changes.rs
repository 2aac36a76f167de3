//! New rules, configurations, clocks and runs.

use super::*;

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
