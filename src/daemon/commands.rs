//! What the broker may ask for, and the answer to it.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::inference::Request;
use super::supervisor::Supervisor;
use crate::config::{CommandName, Id};
use crate::publish::{Change, Command, Outgoing};

/// How long a snapshot may take: one encode and one JPEG on a slow board.
const SNAPSHOT: Duration = Duration::from_secs(3);
/// The longest pause; deciding must not stay off because somebody forgot.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

impl Supervisor<'_> {
    /// Does what `command` says and answers it.
    pub(super) fn obey(&mut self, command: Command) {
        let (name, id, outcome) = match command {
            Command::Snapshot { id, camera } => (CommandName::Snapshot, id, self.snapshot(camera)),
            Command::Reload { id } => {
                let outcome = self.reload().map_err(|error| ("bad-configuration", error));
                (
                    CommandName::Reload,
                    id,
                    outcome.map(|()| "reloaded".to_owned()),
                )
            }
            Command::Pause { id, time } => (CommandName::Pause, id, Ok(self.pause(time))),
            // Answers for itself, several times.
            Command::InstallBundle { id, remote } => return self.install_bundle(id, remote),
            Command::RollbackBundle { id } => {
                (CommandName::RollbackBundle, id, self.roll_back_bundle())
            }
            Command::Set { id, change } => (CommandName::Set, id, self.set(&change)),
        };
        let body = match outcome {
            Ok(message) => json!({"id": id, "ok": true, "message": message}),
            Err((code, message)) => {
                log::warn!("command refused: {message}");
                json!({"id": id, "ok": false, "code": code, "message": message})
            }
        };
        // Whoever sets a value by its topic learns from that topic that it is in force.
        if body["id"] != Value::Null || name != CommandName::Set || body["ok"] != true {
            self.publisher.send(Outgoing::Reply {
                command: name,
                body,
            });
        }
    }

    fn snapshot(&self, camera: Option<Id>) -> Result<String, (&'static str, String)> {
        let known = &self.config.cameras;
        let camera = match camera {
            Some(camera) if known.iter().any(|c| c.id == camera) => camera,
            Some(camera) => {
                return Err(("unknown-camera", format!("there is no camera {camera}")));
            }
            None => known[0].id.clone(),
        };
        let (answer, answered) = mpsc::sync_channel(1);
        self.request(Request::Snapshot(camera.clone(), answer));
        match answered.recv_timeout(SNAPSHOT) {
            Ok(true) => Ok(format!("published on camera/{camera}/snapshot")),
            Ok(false) => Err((
                "no-frame",
                format!(
                    "camera {camera} has no frame to show: none has come yet, or the last one is damaged"
                ),
            )),
            Err(_) => Err((
                "busy",
                "the inference thread did not answer in time".to_owned(),
            )),
        }
    }

    fn pause(&self, time: Duration) -> String {
        let time = time.min(LONGEST_PAUSE);
        let until = (!time.is_zero()).then(|| self.clock.uptime() + time);
        self.request(Request::Pause(until));
        match until {
            Some(_) => format!("paused for {} s; zones are UNKNOWN", time.as_secs()),
            None => "resumed".to_owned(),
        }
    }

    fn set(&mut self, change: &Change) -> Result<String, (&'static str, String)> {
        let before = self.settings.clone();
        self.settings
            .change(&self.config, change)
            .map_err(|error| ("refused", error.to_string()))?;
        if let Err(error) = self.put_in_force() {
            self.settings = before;
            return Err(("refused", error));
        }
        // In force but not kept is worth a message, not a refusal: the state is what was asked for.
        match self.settings.save(&self.settings_path()) {
            Ok(()) => Ok("in force and kept".to_owned()),
            Err(error) => {
                log::error!("run-time settings cannot be kept: {error}");
                Ok(format!(
                    "in force until the next restart; cannot be kept: {error}"
                ))
            }
        }
    }
}
