//! When nothing can be seen, or nonsense.

use super::*;

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
fn no_dwell_is_completed_by_a_nonsense_score() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 4, &[0.9]);
    assert!(events(&watch(&mut board, 5.0, 1, &[f32::NAN])).is_empty());
    let unchanged = board.look(&id("r2"), Look::Unchanged, &at(5.5));
    assert!(events(&unchanged).is_empty(), "the nonsense still holds");
    let effects = watch(&mut board, 6.0, 1, &[0.9]);
    assert_eq!(kinds(&effects), [(EventType::Confirmed, None)]);
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
fn off_has_to_be_earned_again_too() {
    let mut board = board(vec![label("mela", None)]);
    watch(&mut board, 1.0, 10, &[0.1]);
    board.unseen(&id("corsia4"), Unseen::Covered, &at(20.0));
    assert!(states(&watch(&mut board, 30.0, 4, &[0.1])).is_empty());
    let effects = watch(&mut board, 34.0, 2, &[0.1]);
    assert_eq!(states(&effects), [("mela", ZoneState::Off)]);
}
