//! What is usual in a scene is not reported, once it was learned.

use super::*;
use crate::config::BaselineRule;

const FIVE_MINUTES: u32 = 300;

/// A board with one label under a baseline rule.
fn watchful(forget_after: Duration) -> Board<Ids> {
    let mut board = board(vec![label("mela", None)]);
    let plan = ZonePlan {
        baseline: Some(BaselineRule {
            deviations: 4.0,
            forget_after,
        }),
        ..zone(vec![label("mela", None)])
    };
    assert_eq!(board.configure(vec![plan], &at(0.0)), []);
    board
}

fn hour() -> Board<Ids> {
    watchful(Duration::from_secs(3600))
}

#[test]
fn until_what_is_usual_was_learned_the_state_is_unknown() {
    let mut board = hour();
    assert_eq!(states(&watch(&mut board, 1.0, FIVE_MINUTES, &[0.1])), []);
    let later = watch(&mut board, 301.0, 10, &[0.1]);
    assert_eq!(states(&later), [("mela", ZoneState::Off)]);
}

#[test]
fn a_sign_that_is_always_there_is_not_reported_and_what_stands_out_is() {
    let mut board = hour();
    // Over the enter threshold of 0.7, all the time.
    let usual = watch(&mut board, 1.0, 2 * FIVE_MINUTES, &[0.75]);
    assert_eq!(states(&usual), [("mela", ZoneState::Off)]);
    let event = watch(&mut board, 601.0, 10, &[0.97]);
    assert_eq!(kinds(&event), [(EventType::Confirmed, None)]);
    // Over the leave threshold of 0.5, and yet only the sign again.
    let gone = watch(&mut board, 611.0, 10, &[0.75]);
    assert_eq!(kinds(&gone), [(EventType::Ended, Some(EndReason::Left))]);
}

#[test]
fn what_stands_out_still_has_to_reach_the_threshold() {
    let mut board = hour();
    watch(&mut board, 1.0, 2 * FIVE_MINUTES, &[0.05]);
    assert_eq!(kinds(&watch(&mut board, 601.0, 60, &[0.6])), []);
}

#[test]
fn an_apple_that_stays_for_hours_does_not_become_usual() {
    let mut board = watchful(Duration::from_secs(600));
    watch(&mut board, 1.0, 2 * FIVE_MINUTES, &[0.1]);
    let all_day = watch(&mut board, 601.0, 3 * 3600, &[0.9]);
    assert_eq!(kinds(&all_day), [(EventType::Confirmed, None)]);
}

#[test]
fn the_time_of_a_dark_night_is_not_learned() {
    let mut board = hour();
    watch(&mut board, 1.0, 100, &[0.1]);
    board.unseen(&id("corsia4"), Unseen::Dark, &at(101.0));
    let morning = watch(&mut board, 40_000.0, 100, &[0.1]);
    assert_eq!(states(&morning), [], "200 s of 300");
}

#[test]
fn switching_the_baseline_off_makes_scores_count_as_they_are() {
    let mut board = hour();
    watch(&mut board, 1.0, 2 * FIVE_MINUTES, &[0.75]);
    board.configure(vec![zone(vec![label("mela", None)])], &at(601.0));
    let seen = watch(&mut board, 602.0, 10, &[0.75]);
    assert_eq!(kinds(&seen), [(EventType::Confirmed, None)]);
}

#[test]
fn a_new_normal_under_the_threshold_is_learned() {
    let mut board = watchful(Duration::from_secs(600));
    watch(&mut board, 1.0, 2 * FIVE_MINUTES, &[0.05]);
    // The light changed; it stands out, and for hours nobody minds.
    watch(&mut board, 601.0, 2 * 3600, &[0.68]);
    assert_eq!(kinds(&watch(&mut board, 7801.0, 20, &[0.72])), []);
}

#[test]
fn another_bundle_learns_anew() {
    let mut board = hour();
    watch(&mut board, 1.0, 2 * FIVE_MINUTES, &[0.1]);
    board.change_bundle("demo@sha256:01", &at(601.0));
    assert_eq!(states(&watch(&mut board, 602.0, 100, &[0.1])), []);
}

#[test]
fn a_calibrated_label_is_judged_by_its_calibrated_probability() {
    let calibrated = |b: f32| LabelPlan {
        calibration: Platt::new(1.0, b).unwrap(),
        ..label("mela", None)
    };
    // logit(0.8) − 1 is the logit of 0.6, under the threshold of 0.7.
    for (b, expected) in [(0.0, 1), (-1.0, 0)] {
        let mut board = board(vec![calibrated(b)]);
        assert_eq!(events(&watch(&mut board, 1.0, 20, &[0.8])).len(), expected);
    }
}

#[test]
fn another_calibration_keeps_the_state_until_new_scores_are_there() {
    let calibrated = |b: f32| LabelPlan {
        calibration: Platt::new(1.0, b).unwrap(),
        ..label("mela", None)
    };
    let mut board = board(vec![calibrated(0.0)]);
    watch(&mut board, 1.0, 20, &[0.8]);
    board.configure(vec![zone(vec![calibrated(-3.0)])], &at(21.0));
    let view = board.views().next().unwrap();
    assert_eq!((view.state, view.median), (ZoneState::On, None));
    assert!(board.needs_scores(&id("r2")));
    let effects = watch(&mut board, 22.0, 20, &[0.8]);
    assert_eq!(states(&effects), [("mela", ZoneState::Off)]);
}
