//! The state machine of one label in one zone.

use std::time::Duration;

use super::{Observation, Window};
use crate::config::Rule;
use crate::event::ZoneState;

/// ON, OFF or UNKNOWN for one label in one zone. See the rules of [`super`].
#[derive(Clone, Debug)]
pub struct Decider {
    rule: Rule,
    window: Window,
    state: ZoneState,
    /// First median after the zone became visible.
    visible_since: Option<Duration>,
    /// Since when the median has been on the other side without interruption.
    leaning_since: Option<Duration>,
    refused_in_a_row: usize,
}

/// A change of state that [`Decider::judge`] found due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// To ON; the label was first seen at this uptime.
    On {
        /// Uptime of the first frame of the dwell time.
        seen_since: Duration,
    },
    /// To OFF.
    Off,
}

/// How the median stands to what is usual in the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usual {
    /// Nobody asks.
    NotAsked,
    /// What is usual is not known yet: nothing turns.
    Learning,
    /// It stands out enough to turn ON.
    StandsOut,
    /// It does not, and has not fallen back either.
    Between,
    /// It is back at, or under, what is usual.
    FellBack,
}

impl Decider {
    /// Starts UNKNOWN.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            window: Window::new(rule.window),
            state: ZoneState::Unknown,
            visible_since: None,
            leaning_since: None,
            refused_in_a_row: 0,
        }
    }

    /// The state that holds.
    pub fn state(&self) -> ZoneState {
        self.state
    }

    /// The rule in force.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Median over the window, once half of it is filled.
    pub fn median(&self) -> Option<Observation> {
        self.window.median()
    }

    /// `[over, held]` frames of the window against the enter threshold.
    pub fn frames(&self) -> [u32; 2] {
        self.window.over(self.rule.enter.get())
    }

    /// Whether nothing was observed since the zone became visible: a frame should be encoded even
    /// if the change gate thinks it unchanged.
    pub fn is_blank(&self) -> bool {
        self.window.last().is_none()
    }

    /// Takes in an observation, or refuses (and returns `false`) one that is not valid.
    pub fn record(&mut self, observation: Observation) -> bool {
        let valid = observation.is_valid();
        if valid {
            self.window.push(observation);
            self.refused_in_a_row = 0;
        } else {
            self.refused_in_a_row += 1;
        }
        valid
    }

    /// The last observation still holds, as does the last refusal. Nothing happens when there is
    /// neither.
    pub fn repeat(&mut self) {
        if self.refused_in_a_row > 0 {
            self.refused_in_a_row += 1;
        } else if let Some(last) = self.window.last() {
            self.window.push(last);
        }
    }

    /// Whether a whole window of observations was refused: the state stands on nothing any more.
    pub fn is_starved(&self) -> bool {
        self.refused_in_a_row >= self.rule.window.max(1)
    }

    /// Compares the median with the rule at `now` (uptime) and turns ON or OFF when the dwell time is
    /// over. `rival` is the greatest median of the ON labels of the same group: it has to be beaten.
    /// Nothing turns on a frame whose observation was refused.
    pub fn judge(&mut self, now: Duration, rival: Option<f32>, usual: Usual) -> Option<Turn> {
        if self.refused_in_a_row > 0 || usual == Usual::Learning {
            return None;
        }
        let median = self.window.median()?.probability;
        let visible_since = *self.visible_since.get_or_insert(now);
        let over = median >= self.rule.enter.get()
            && rival.is_none_or(|strongest| median > strongest)
            && matches!(usual, Usual::NotAsked | Usual::StandsOut);
        let leaning = match self.state {
            ZoneState::On => median < self.rule.leave.get() || usual == Usual::FellBack,
            ZoneState::Off | ZoneState::Unknown => over,
        };
        self.leaning_since = leaning.then(|| self.leaning_since.unwrap_or(now));
        let dwelt = |since: Duration| now.saturating_sub(since) >= self.rule.dwell;
        match (self.state, self.leaning_since) {
            (ZoneState::On, Some(since)) if dwelt(since) => {
                self.turn(ZoneState::Off);
                Some(Turn::Off)
            }
            (ZoneState::Off | ZoneState::Unknown, Some(since)) if dwelt(since) => {
                self.turn(ZoneState::On);
                Some(Turn::On { seen_since: since })
            }
            (ZoneState::Unknown, None) if dwelt(visible_since) => {
                self.turn(ZoneState::Off);
                Some(Turn::Off)
            }
            _ => None,
        }
    }

    /// Another label of the group took over: OFF at once. The dwell time starts anew.
    pub fn displace(&mut self) {
        self.turn(ZoneState::Off);
    }

    /// Nothing can be seen: UNKNOWN at once, and what was seen is forgotten.
    pub fn blind(&mut self) {
        self.turn(ZoneState::Unknown);
        self.window.clear();
        self.visible_since = None;
        self.refused_in_a_row = 0;
    }

    /// Forgets what was observed; the state stays.
    pub fn forget(&mut self) {
        self.window.clear();
        self.leaning_since = None;
        self.refused_in_a_row = 0;
    }

    /// Puts a new rule in force. State and window stay; when a threshold moved, the dwell time under
    /// way starts anew, because it was earned against the old one.
    pub fn set_rule(&mut self, rule: Rule) {
        if (rule.enter, rule.leave) != (self.rule.enter, self.rule.leave) {
            self.leaning_since = None;
        }
        self.window.resize(rule.window);
        self.rule = rule;
    }

    fn turn(&mut self, state: ZoneState) {
        self.state = state;
        self.leaning_since = None;
    }
}
