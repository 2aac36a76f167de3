//! Another configuration, put in force while everything runs.

use super::loading::Vigil;
use super::start::load_model;
use super::{FAREWELL, MQTT, SILENCE, Supervisor};
use crate::bundle::{Bundle, Limits};
use crate::config::Config;
use crate::daemon::in_force::{self, in_force};
use crate::daemon::inference::Request;
use crate::daemon::plan;
use crate::lookout::Model;
use crate::publish;

impl Supervisor<'_> {
    /// Reads the configuration again and puts it in force; on an error the old one stays.
    ///
    /// # Errors
    /// Why the new configuration was refused, for people.
    pub(in crate::daemon) fn reload(&mut self) -> Result<(), String> {
        self.systemd.reloading();
        let outcome = (self.load)()
            .map_err(|error| error.to_string())
            .and_then(|configured| {
                let before = std::mem::replace(&mut self.configured, configured);
                self.put_in_force()
                    .inspect_err(|_| self.configured = before)
            });
        match &outcome {
            Ok(()) => log::info!("configuration reloaded"),
            Err(error) => {
                log::error!("the new configuration is refused, the old one stays: {error}")
            }
        }
        let status = self.status();
        self.systemd.ready(&status);
        outcome
    }

    /// Applies `settings` over `configured` and changes whatever has to change.
    ///
    /// # Errors
    /// Why it cannot be done; what was in force still is.
    pub(in crate::daemon) fn put_in_force(&mut self) -> Result<(), String> {
        let (wanted, loaded) = (&self.configured.model, &self.config.model);
        let changed = (&wanted.bundle, wanted.threads) != (&loaded.bundle, loaded.threads);
        let mut replacement = None;
        if changed {
            let configured = &self.configured;
            let vigil = Vigil {
                clock: self.clock,
                relays: &mut self.relays,
                watchdog: &mut self.watchdog,
                systemd: &mut self.systemd,
            };
            let opened = vigil.over(|alive| open_model(configured, alive));
            let opened = opened.and_then(|opened| opened);
            replacement = Some(opened.inspect_err(|error| self.blame_bundle(error))?);
        }
        let bundle = replacement
            .as_ref()
            .map_or(&self.bundle, |(bundle, _)| bundle);
        let (config, calibrated) = in_force(&self.configured, &self.settings, bundle);
        let same_scores = calibrated.scores_like(&self.calibrated);
        if calibrated != self.calibrated {
            in_force::log(&calibrated, &config);
        }
        if same_scores && config == self.config {
            self.calibrated = calibrated;
            return Ok(());
        }
        if same_scores && only_rules_differ(&self.config, &config) {
            self.config = config;
            self.calibrated = calibrated;
            self.request(Request::Rules(self.config.labels.clone()));
            self.report_settings();
            return Ok(());
        }
        let folder = &self.config.state_dir;
        let vigil = Vigil {
            clock: self.clock,
            relays: &mut self.relays,
            watchdog: &mut self.watchdog,
            systemd: &mut self.systemd,
        };
        let watched = vigil.over(|alive| {
            plan::watch(&config, bundle, &calibrated, folder, alive)
                .map_err(|error| error.to_string())
        })??;
        if !self.publisher.announce(&config) {
            self.change_publisher(&config)?;
        }
        if config.state_dir != self.config.state_dir || config.outbox != self.config.outbox {
            log::warn!("state_dir and outbox change only at a restart");
        }
        self.config = config;
        self.calibrated = calibrated;
        let model = replacement.map(|(bundle, model)| {
            self.backend = model.encoder.describe();
            let id = bundle.id();
            self.bundle = bundle;
            (model, id)
        });
        if model.is_some() {
            let now = self.clock.uptime();
            let (bundle, trial) = (&self.config.model.bundle, self.config.update.trial);
            self.updates.adopted(bundle, now, trial);
        }
        self.start_cameras().map_err(|error| error.to_string())?;
        self.configure_inference(watched, model);
        self.introduce();
        Ok(())
    }

    /// An installed bundle on trial that cannot even be loaded has failed.
    fn blame_bundle(&mut self, reason: &str) {
        let on_trial = self.updates.on_trial(&self.configured.model.bundle);
        if on_trial && let Err(error) = self.updates.give_up(&self.configured.model.bundle, reason)
        {
            log::error!("{error}");
        }
    }

    /// Another broker, login or prefix. The old publisher leaves first: two with one client id would
    /// throw each other out.
    pub(super) fn change_publisher(&mut self, config: &Config) -> Result<(), String> {
        publish::check(&config.mqtt).map_err(|error| error.to_string())?;
        self.publisher.shutdown(FAREWELL);
        self.publisher = publish::spawn(
            config,
            &self.boot,
            self.outbox.clone(),
            self.commands.clone(),
        )
        .map_err(|error| error.to_string())?;
        self.relays.remove(MQTT);
        let now = self.clock.uptime();
        let progress = self.publisher.progress();
        self.relays
            .add(&mut self.watchdog, MQTT, progress, SILENCE, now);
        Ok(())
    }
}

fn open_model(config: &Config, alive: &mut dyn FnMut()) -> Result<(Bundle, Model), String> {
    crate::faults::hold_while_told("model");
    let bundle = Bundle::open(&config.model.bundle, &Limits::default());
    let bundle = bundle.map_err(|error| error.to_string())?;
    alive();
    let model = load_model(&bundle, config).map_err(|error| error.to_string())?;
    Ok((bundle, model))
}

fn only_rules_differ(before: &Config, after: &Config) -> bool {
    if before.labels.len() != after.labels.len() {
        return false;
    }
    let mut before = before.clone();
    for (old, new) in before.labels.iter_mut().zip(&after.labels) {
        old.rule = new.rule;
    }
    before == *after
}
