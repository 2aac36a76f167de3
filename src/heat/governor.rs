//! When to look at fewer frames, and when at all of them again.

use std::time::Duration;

use super::Reading;
use crate::config::Heat;

/// At the last level an eighth of the frames is looked at.
pub const MAX_LEVEL: u8 = 3;

/// The first level begins so far under the temperature at which the kernel slows the processor down, each
/// zone by its own, °C, where the configuration does not say when.
const MARGIN_C: f32 = 10.0;
/// Where neither says. Jetsons throttle at 97 to 99 °C, Raspberry Pis at 80.
const START_C: f32 = 70.0;
/// Heat sinks are slow: a level has this long to show what it does before the next one.
const RISE_AFTER: Duration = Duration::from_secs(15);
/// It has to be cool for so long before a level is given up.
const FALL_AFTER: Duration = Duration::from_secs(60);

/// Follows the temperature of a board. Each level halves the rate.
#[derive(Clone, Debug)]
pub struct Governor {
    rules: Heat,
    level: u8,
    /// When the level changed last.
    changed: Option<Duration>,
    /// Since when every reading would allow a lower level.
    cool_since: Option<Duration>,
}

impl Governor {
    /// Starts at full rate.
    pub fn new(rules: Heat) -> Self {
        Self {
            rules,
            level: 0,
            changed: None,
            cool_since: None,
        }
    }

    /// Follows other rules from now on; what is known about the board stays.
    pub fn follow(&mut self, rules: Heat) {
        self.rules = rules;
    }

    /// The level in force, 0 (none) to [`MAX_LEVEL`].
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The share of the frames that is looked at: 1, ½, ¼ or ⅛.
    pub fn share(&self) -> f32 {
        1.0 / f32::from(1_u8 << self.level)
    }

    /// How far the board is over where the first level begins, °C; `None` where it does not tell.
    fn excess_c(&self, reading: &Reading) -> Option<f32> {
        let over = |start: f32| reading.temperature_c.map(|now| now - start);
        match (self.rules.start_c, reading.headroom_c) {
            (Some(start), _) => over(start),
            (None, Some(headroom)) => Some(MARGIN_C - headroom),
            (None, None) => over(START_C),
        }
    }

    /// Takes in a reading at `now` (uptime). True when the level changed.
    ///
    /// Level n + 1 begins `n · step_c` over where the first does, or when the board throttles all the same; it ends
    /// when the temperature was `hysteresis_c` under that for a minute and the board does not throttle.
    /// A board that tells nothing is let go the same way.
    pub fn update(&mut self, now: Duration, reading: &Reading) -> bool {
        let before = self.level;
        if !self.rules.enabled {
            *self = Self::new(self.rules);
            return before != 0;
        }
        let excess = self.excess_c(reading);
        let begins = |level: u8| f32::from(level) * self.rules.step_c;
        let throttled = reading.throttled == Some(true);
        let reached = |limit: f32| excess.is_some_and(|excess| excess >= limit);
        let rises = throttled || reached(begins(self.level));
        let keeps = self.level > 0
            && (throttled || reached(begins(self.level - 1) - self.rules.hysteresis_c));
        if rises || keeps {
            self.cool_since = None;
        }
        let since_change = self.changed.map(|then| now.saturating_sub(then));
        if rises && self.level < MAX_LEVEL && since_change.is_none_or(|time| time >= RISE_AFTER) {
            self.level += 1;
        } else if self.level > 0 && !rises && !keeps {
            let since = *self.cool_since.get_or_insert(now);
            if now.saturating_sub(since) >= FALL_AFTER {
                self.level -= 1;
                // The next level down has a minute of its own.
                self.cool_since = None;
            }
        }
        if self.level != before {
            self.changed = Some(now);
        }
        self.level != before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Heat = Heat {
        enabled: true,
        start_c: Some(70.0),
        step_c: 4.0,
        hysteresis_c: 5.0,
    };

    fn at(temperature_c: f32) -> Reading {
        Reading {
            temperature_c: Some(temperature_c),
            ..Reading::default()
        }
    }

    /// Seconds of constant readings, one every five.
    fn run(governor: &mut Governor, from_s: u64, seconds: u64, reading: &Reading) -> Vec<u8> {
        let times = (from_s..from_s + seconds).step_by(5);
        times
            .map(|s| {
                governor.update(Duration::from_secs(s), reading);
                governor.level()
            })
            .collect()
    }

    #[test]
    fn a_cool_board_keeps_its_rate() {
        let mut governor = Governor::new(RULES);
        assert!(
            run(&mut governor, 0, 600, &at(69.9))
                .iter()
                .all(|l| *l == 0)
        );
        assert_eq!(governor.share(), 1.0);
    }

    #[test]
    fn the_rate_is_halved_step_by_step_and_given_back_step_by_step() {
        let mut governor = Governor::new(RULES);
        assert!(governor.update(Duration::ZERO, &at(71.0)), "at once");
        assert_eq!(governor.share(), 0.5);
        assert_eq!(run(&mut governor, 5, 300, &at(73.9)).last(), Some(&1));
        assert_eq!(run(&mut governor, 305, 300, &at(74.0)).last(), Some(&2));
        assert_eq!(run(&mut governor, 605, 300, &at(99.0)).last(), Some(&3));
        assert_eq!(governor.share(), 0.125);
        // 70 + 2 · 4 − 5 is where the third level ends.
        assert_eq!(run(&mut governor, 905, 600, &at(73.0)).last(), Some(&3));
        assert_eq!(run(&mut governor, 1505, 600, &at(72.9)).last(), Some(&2));
        let falling = run(&mut governor, 2105, 600, &at(40.0));
        assert_eq!((falling[0], falling.last()), (2, Some(&0)));
        assert!(falling.windows(2).all(|pair| pair[0] - pair[1] <= 1));
        let ones = falling.iter().filter(|level| **level == 1).count();
        assert!(
            ones * 5 >= 60,
            "the level between had its minute: {falling:?}"
        );
    }

    #[test]
    fn a_hot_board_gets_time_between_two_steps() {
        let mut governor = Governor::new(RULES);
        let levels = run(&mut governor, 0, 60, &at(99.0));
        assert_eq!(levels, [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn a_board_that_throttles_is_relieved_whatever_its_temperature() {
        let mut governor = Governor::new(RULES);
        let throttled = Reading {
            throttled: Some(true),
            ..at(50.0)
        };
        assert_eq!(run(&mut governor, 0, 60, &throttled).last(), Some(&3));
        let calm = Reading {
            throttled: Some(false),
            ..at(50.0)
        };
        assert_eq!(run(&mut governor, 60, 300, &calm).last(), Some(&0));
    }

    #[test]
    fn the_first_level_begins_under_what_the_kernel_does_itself() {
        let rules = Heat {
            start_c: None,
            ..RULES
        };
        let reading = |headroom_c| Reading {
            headroom_c,
            ..at(80.0)
        };
        let governor = Governor::new(rules);
        assert_eq!(governor.excess_c(&reading(Some(17.0))), Some(-7.0));
        assert_eq!(governor.excess_c(&reading(None)), Some(80.0 - START_C));
        let configured = Governor::new(RULES);
        assert_eq!(configured.excess_c(&reading(Some(17.0))), Some(10.0));
    }

    #[test]
    fn a_sensor_that_is_gone_does_not_slow_the_daemon_for_ever() {
        let mut governor = Governor::new(RULES);
        run(&mut governor, 0, 60, &at(99.0));
        assert_eq!(
            run(&mut governor, 60, 300, &Reading::default()).last(),
            Some(&0)
        );
    }

    #[test]
    fn turned_off_it_lets_go_at_once() {
        let mut governor = Governor::new(RULES);
        run(&mut governor, 0, 60, &at(99.0));
        governor.follow(Heat {
            enabled: false,
            ..RULES
        });
        assert!(governor.update(Duration::from_secs(60), &at(99.0)));
        assert_eq!(governor.share(), 1.0);
        assert!(!governor.update(Duration::from_secs(65), &at(99.0)));
    }

    fn readings() -> impl Strategy<Value = Vec<(u64, Reading)>> {
        let temperature = prop::option::weighted(0.9, -20.0_f32..120.0);
        let throttled = prop::option::of(prop::bool::weighted(0.2));
        let one =
            (0_u64..40, temperature, throttled).prop_map(|(pause, temperature_c, throttled)| {
                let reading = Reading {
                    temperature_c,
                    throttled,
                    ..Reading::default()
                };
                (pause, reading)
            });
        prop::collection::vec(one, 1..200)
    }

    proptest! {
        #[test]
        fn levels_change_by_one_for_a_reason_and_not_too_often(readings in readings()) {
            let mut governor = Governor::new(RULES);
            let (mut now, mut changed) = (Duration::ZERO, None::<Duration>);
            for (pause, reading) in readings {
                now += Duration::from_secs(pause);
                let before = governor.level();
                let told = governor.update(now, &reading);
                let after = governor.level();
                prop_assert_eq!(told, before != after);
                prop_assert!(after <= MAX_LEVEL && before.abs_diff(after) <= 1);
                let hot = |limit| reading.temperature_c.is_some_and(|t| t >= limit);
                let throttled = reading.throttled == Some(true);
                if after > before {
                    prop_assert!(throttled || hot(70.0 + 4.0 * f32::from(before)));
                    prop_assert!(changed.is_none_or(|then| now - then >= RISE_AFTER));
                }
                if after < before {
                    prop_assert!(!throttled && !hot(70.0 + 4.0 * f32::from(after) - 5.0));
                    prop_assert!(changed.is_some_and(|then| now - then >= FALL_AFTER));
                }
                if told {
                    changed = Some(now);
                }
            }
        }

        #[test]
        fn a_constant_board_settles(
            readings in readings(),
            temperature_c in -20.0_f32..120.0,
            throttled: bool,
        ) {
            let mut governor = Governor::new(RULES);
            let mut now = 0;
            for (pause, reading) in readings {
                now += pause;
                governor.update(Duration::from_secs(now), &reading);
            }
            let constant = Reading { throttled: Some(throttled), ..at(temperature_c) };
            run(&mut governor, now, 400, &constant);
            let settled = governor.level();
            let later = run(&mut governor, now + 400, 3600, &constant);
            prop_assert!(later.iter().all(|level| *level == settled), "{later:?}");
        }

        #[test]
        fn a_hotter_board_is_never_worked_harder(
            temperatures in prop::collection::vec(40.0_f32..110.0, 1..100),
            more in 0.0_f32..20.0,
        ) {
            // Constant for long enough each, so that both have settled.
            let (mut cooler, mut hotter) = (Governor::new(RULES), Governor::new(RULES));
            for (n, temperature) in (0_u64..).zip(temperatures) {
                run(&mut cooler, n * 400, 400, &at(temperature));
                run(&mut hotter, n * 400, 400, &at(temperature + more));
                prop_assert!(hotter.level() >= cooler.level());
            }
        }
    }
}
