//! From UNKNOWN to ON to OFF.

use super::*;

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
