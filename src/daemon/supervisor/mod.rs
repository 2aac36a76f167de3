//! Owns the threads; everything that changes at run time goes through here.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::inference::Request;
use super::relay::Relays;
use super::settings::Settings;
use super::updates::Updates;
use super::{Control, ServeError};
use crate::bundle::Bundle;
use crate::calibrate::Applied;
use crate::config::{Config, ConfigError};
use crate::lookout::{Model, WatchedCamera};
use crate::publish::{Command, Outbox, Publisher};
use crate::slot::Bell;
use crate::watchdog::{Systemd, Verdict, Watchdog};

mod bundles;
mod cameras;
mod heat;
mod introduce;
mod loading;
mod reload;
mod start;

use cameras::Camcorder;
use heat::Thermostat;
pub use start::{load_model, serve};

/// How long the supervisor sleeps at most: signals are looked at this often.
const TICK: Duration = Duration::from_millis(100);
/// Commands that may wait.
const COMMANDS: usize = 64;
/// Requests that may wait for the inference thread.
const REQUESTS: usize = 64;
/// A stage that makes no progress for this long starves the watchdog.
const SILENCE: Duration = Duration::from_secs(20);
/// The watchdog's name for the mqtt thread.
const MQTT: &str = "mqtt";
/// systemd is promised a stop within 2 s; this much of it is the broker's.
const FAREWELL: Duration = Duration::from_millis(1200);
/// A thread that does not end within this is left behind.
const JOIN: Duration = Duration::from_millis(600);

/// Everything that runs.
pub(super) struct Supervisor<'a> {
    load: &'a dyn Fn() -> Result<Config, ConfigError>,
    /// As the file says, before run-time settings.
    pub(super) configured: Config,
    /// With run-time settings and calibrated thresholds applied: what is in force.
    pub(super) config: Config,
    calibrated: Applied,
    pub(super) settings: Settings,
    bundle: Bundle,
    backend: String,
    boot: String,
    pub(super) clock: Clock,
    bell: Arc<Bell>,
    cameras: Vec<Camcorder>,
    outbox: Outbox,
    pub(super) publisher: Publisher,
    commands: SyncSender<Command>,
    pub(super) requests: SyncSender<Request>,
    watchdog: Watchdog,
    relays: Relays,
    systemd: Systemd,
    updates: Updates,
    thermostat: Thermostat,
}

impl Supervisor<'_> {
    fn listen(
        &mut self,
        control: &Control,
        inbox: &Receiver<Command>,
        inference: &JoinHandle<()>,
    ) -> Result<(), ServeError> {
        while !control.stopping() {
            match inbox.recv_timeout(TICK) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if control.take_reload() {
                // The outcome is in the log; there is nobody to answer.
                let _ = self.reload();
            }
            if inference.is_finished() {
                return Err(ServeError::Died("inference"));
            }
            let now = self.clock.uptime();
            self.relays.pass_on(now);
            let verdict = self.watchdog.verdict(now);
            self.systemd.tick(now, &verdict);
            self.attend_to_bundles(now, verdict == Verdict::Feed)?;
            self.attend_to_heat(now);
        }
        Ok(())
    }

    fn configure_inference(&self, cameras: Vec<WatchedCamera>, model: Option<(Model, String)>) {
        self.request(Request::Configure {
            feeds: self
                .cameras
                .iter()
                .map(|camera| camera.feed.clone())
                .collect(),
            cameras,
            model,
            publisher: self.publisher.clone(),
            health_every: self.config.mqtt.health_every,
        });
    }

    /// Hands a request over; the inference thread drains its queue several times a second.
    pub(super) fn request(&self, request: Request) {
        // A full or closed queue means a hung or dead thread: the watchdog says so.
        if self.requests.try_send(request).is_err() {
            log::error!("the inference thread does not take requests");
        }
        self.bell.ring();
    }

    pub(super) fn settings_path(&self) -> PathBuf {
        settings_path(&self.config)
    }

    fn status(&self) -> String {
        let zones: usize = self
            .config
            .cameras
            .iter()
            .map(|camera| camera.zones.len())
            .sum();
        format!(
            "watching {} camera(s), {zones} zone(s), {} label(s)",
            self.cameras.len(),
            self.config.labels.len()
        )
    }

    fn stop(mut self, inference: JoinHandle<()>) {
        log::info!("stopping");
        self.updates.excuse();
        self.systemd.stopping();
        let deadline = Instant::now() + JOIN;
        self.cameras
            .iter()
            .for_each(|camera| camera.thread.request_stop());
        self.request(Request::Stop);
        while !inference.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !self.publisher.shutdown(FAREWELL) {
            log::warn!("the broker did not confirm the farewell; it will publish the last will");
        }
        for camera in self.cameras {
            camera
                .thread
                .stop(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

fn settings_path(config: &Config) -> PathBuf {
    config.state_dir.join("settings.json")
}
