//! Heat while everything runs: the board is asked every few seconds, and cameras are slowed down.

use std::time::Duration;

use super::Supervisor;
use crate::config::Heat;
use crate::daemon::inference::Request;
use crate::heat::{Board, Governor, Reading};

/// How often the board is asked.
const EVERY: Duration = Duration::from_secs(5);

/// The board and what is done about its heat.
pub(super) struct Thermostat {
    board: Board,
    governor: Governor,
    due: Duration,
}

impl Thermostat {
    pub fn new(rules: Heat) -> Self {
        Self {
            board: Board::of_machine(),
            governor: Governor::new(rules),
            due: Duration::ZERO,
        }
    }

    /// How often the rate is halved.
    pub fn level(&self) -> u8 {
        self.governor.level()
    }
}

impl Supervisor<'_> {
    pub(super) fn attend_to_heat(&mut self, now: Duration) {
        let thermostat = &mut self.thermostat;
        if now < thermostat.due {
            return;
        }
        thermostat.due = now + EVERY;
        thermostat.governor.follow(self.config.heat);
        let reading = thermostat.board.read();
        let before = thermostat.level();
        if !thermostat.governor.update(now, &reading) {
            return;
        }
        let (level, share) = (thermostat.level(), thermostat.governor.share());
        tell(before, level, &reading);
        for camera in &self.cameras {
            camera.feed.shared.slow_down(level);
        }
        self.request(Request::FrameShare(share));
    }
}

/// One line per change.
fn tell(before: u8, level: u8, reading: &Reading) {
    let degrees = match reading.temperature_c {
        Some(celsius) => format!("the board is at {celsius:.0} °C"),
        None => "the board tells no temperature".to_owned(),
    };
    let throttles = match reading.throttled {
        Some(true) => " and slows itself down",
        _ => "",
    };
    let frames = match level {
        0 => "all frames are looked at again".to_owned(),
        _ => format!("one frame of {} is looked at", 1_u32 << level),
    };
    if level > before {
        log::warn!("{degrees}{throttles}: {frames}; give it air or a heat sink");
    } else {
        log::info!("{degrees}: {frames}");
    }
}
