//! Another bundle while everything runs: installed by command, proved, or given up again.

use std::time::Duration;

use serde_json::{Value, json};

use super::Supervisor;
use crate::config::CommandName;
use crate::daemon::ServeError;
use crate::daemon::trial::Judgement;
use crate::daemon::updates::Report;
use crate::publish::Outgoing;
use crate::update::{Outcome, Remote, Stage, UpdateError};

/// A command that is refused: a code for programs, a message for people.
type Refusal = (&'static str, String);

impl Supervisor<'_> {
    /// `B/command/install-bundle`: answered at once, again as it goes on, and in the end.
    pub(in crate::daemon) fn install_bundle(&mut self, id: Value, remote: Remote) {
        let begun = self.not_named().and_then(|()| {
            let (config, requests) = (self.config.clone(), self.requests.clone());
            let bell = std::sync::Arc::clone(&self.bell);
            self.updates
                .install(id.clone(), remote, config, requests, bell)
                .map_err(|error| (error.code(), error.to_string()))
        });
        match begun {
            Ok(()) => self.tell(json!({"id": id, "ok": true, "done": false, "stage": "started"})),
            Err(refusal) => self.refuse(&id, refusal),
        }
    }

    /// `B/command/rollback-bundle`.
    pub(in crate::daemon) fn roll_back_bundle(&mut self) -> Result<String, Refusal> {
        self.not_named()?;
        let shipped = self.configured.model.shipped.clone();
        let before = self
            .updates
            .roll_back(shipped.is_some_and(|path| path.exists()))
            .map_err(UpdateError::from)
            .map_err(|error| (error.code(), error.to_string()))?;
        match self.follow() {
            Ok(()) => Ok(format!("{} is in use again", self.bundle.id())),
            Err(error) => {
                self.updates.restore(before);
                Err(("bad-bundle", error))
            }
        }
    }

    /// Looks after an installation and a trial that go on.
    pub(super) fn attend_to_bundles(
        &mut self,
        now: Duration,
        alive: bool,
    ) -> Result<(), ServeError> {
        while let Some((id, report)) = self.updates.report() {
            match report {
                Report::Progress(stage) => self.tell(progress(&id, stage)),
                Report::Done(outcome) => self.installed(&id, outcome),
            }
        }
        match self.updates.judge(now, alive) {
            Judgement::Open => Ok(()),
            Judgement::Proved => {
                self.introduce();
                Ok(())
            }
            Judgement::Failed(reason) => self.fall_back(&reason),
        }
    }

    fn installed(&mut self, id: &Value, outcome: Result<Outcome, UpdateError>) {
        let outcome = outcome.map_err(|error| (error.code(), error.to_string()));
        let done = outcome.and_then(|outcome| match outcome {
            Outcome::Already(bundle) => {
                let message = "it was installed already";
                Ok(json!({"id": id, "ok": true, "done": true, "bundle": bundle, "message": message}))
            }
            Outcome::Installed { id: bundle, round, .. } => {
                self.follow().map_err(|error| ("bad-bundle", error))?;
                let seconds = self.config.update.trial.as_secs();
                let round_ms = round.as_millis();
                let message = format!("in use, on trial for {seconds} s; a round takes {round_ms} ms");
                Ok(json!({"id": id, "ok": true, "done": true, "bundle": bundle, "message": message}))
            }
        });
        match done {
            Ok(body) => self.tell(body),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    /// Puts the bundle in force that the store says.
    fn follow(&mut self) -> Result<(), String> {
        let before = self.configured.model.clone();
        self.configured.model.follow(self.updates.current());
        self.put_in_force()
            .inspect_err(|_| self.configured.model = before)
    }

    /// The installed bundle failed. When the one before cannot be used here, a restart may.
    fn fall_back(&mut self, reason: &str) -> Result<(), ServeError> {
        let given_up = self
            .updates
            .give_up(&self.config.model.bundle, reason)
            .map_err(|error| error.to_string());
        given_up.and_then(|()| self.follow()).map_err(|error| {
            log::error!("the bundle before cannot be used: {error}");
            ServeError::Died("model")
        })
    }

    fn not_named(&self) -> Result<(), Refusal> {
        if self.configured.model.shipped.is_some() {
            return Ok(());
        }
        let message =
            "the configuration names model.bundle; remove that line to use installed ones";
        Err(("not-used", message.to_owned()))
    }

    fn refuse(&self, id: &Value, (code, message): Refusal) {
        log::warn!("no bundle is installed: {message}");
        self.tell(json!({"id": id, "ok": false, "done": true, "code": code, "message": message}));
    }

    fn tell(&self, body: Value) {
        self.publisher.send(Outgoing::Reply {
            command: CommandName::InstallBundle,
            body,
        });
    }
}

fn progress(id: &Value, stage: Stage) -> Value {
    let stage_is = |stage: &str| json!({"id": id, "ok": true, "done": false, "stage": stage});
    match stage {
        Stage::Downloading(bytes, of) => {
            let mut body = stage_is("downloading");
            body["bytes"] = json!(bytes);
            body["of"] = json!(of);
            body
        }
        Stage::Unpacking => stage_is("unpacking"),
        Stage::Trying => stage_is("trying"),
    }
}
