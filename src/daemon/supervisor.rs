//! Owns the threads; everything that changes at run time goes through here.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::inference::{Feed, Inference, Request};
use super::relay::Relays;
use super::settings::Settings;
use super::{Control, ServeError, plan};
use crate::bundle::{Bundle, Limits};
use crate::capture::{CaptureShared, CaptureThread};
use crate::config::{Camera, Config, ConfigError};
use crate::decide::{Board, OpenEvent, RandomUlids};
use crate::encoder;
use crate::event::{Info, SCHEMA};
use crate::lookout::{Lookout, Model};
use crate::preprocess::Preprocessor;
use crate::prompts;
use crate::publish::{self, Command, Outbox, Outgoing, Publisher};
use crate::slot::{Bell, LatestSlot};
use crate::topics::Setting;
use crate::watchdog::{Systemd, Watchdog};

/// How long the supervisor sleeps at most: signals are looked at this often.
const TICK: Duration = Duration::from_millis(50);
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

struct Camcorder {
    camera: Camera,
    thread: CaptureThread,
    feed: Feed,
}

/// Everything that runs.
pub(super) struct Supervisor<'a> {
    load: &'a dyn Fn() -> Result<Config, ConfigError>,
    /// As the file says, before run-time settings.
    pub(super) configured: Config,
    /// With run-time settings applied: what is in force.
    pub(super) config: Config,
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
}

/// Runs the daemon until `control` says stop. `load` reads the configuration, at the start and at
/// every reload; a configuration that cannot be used at a reload is logged and the old one stays.
///
/// # Errors
/// What keeps it from starting, or a thread that died.
pub fn serve(
    load: &dyn Fn() -> Result<Config, ConfigError>,
    control: &Control,
) -> Result<(), ServeError> {
    let clock = Clock::start();
    let configured = load()?;
    std::fs::create_dir_all(&configured.state_dir).map_err(|source| ServeError::StateDir {
        path: configured.state_dir.clone(),
        source,
    })?;
    let settings = Settings::load(&settings_path(&configured));
    let mut config = configured.clone();
    settings.apply(&mut config);

    let started = Instant::now();
    let bundle = Bundle::open(&config.model.bundle, &Limits::default())?;
    let model = load_model(&bundle, &config)?;
    let backend = model.encoder.describe();
    log::info!(
        "bundle {} ({}) on {backend}, loaded in {:.1} s",
        bundle.id(),
        bundle.path().display(),
        started.elapsed().as_secs_f32()
    );
    let watched = plan::watch(&config, &bundle, &config.state_dir)?;

    let boot = boot_id();
    let outbox = Outbox::open(&config.state_dir, config.outbox);
    let (commands, inbox) = mpsc::sync_channel(COMMANDS);
    let publisher = publish::spawn(&config, &boot, outbox.clone(), commands.clone())?;
    let board = Board::new(&boot, &bundle.id(), 1, RandomUlids);
    let mut lookout = Lookout::new(model, board, config.mqtt.evidence);
    let left: Vec<OpenEvent> = outbox
        .open_events()
        .into_iter()
        .filter_map(|(_, value)| serde_json::from_value(value).ok())
        .collect();
    if !left.is_empty() {
        log::info!("ending {} event(s) that the last run left open", left.len());
        let messages = lookout.end_left_open(left, &clock.now());
        publisher.send_all(messages);
    }

    let bell = Arc::new(Bell::default());
    let mut watchdog = Watchdog::default();
    let pulse = watchdog.register("inference", SILENCE, clock.uptime());
    let mut relays = Relays::default();
    relays.add(
        &mut watchdog,
        MQTT,
        publisher.progress(),
        SILENCE,
        clock.uptime(),
    );
    let (requests, request_inbox) = mpsc::sync_channel(REQUESTS);
    let inference = Inference::new(
        lookout,
        publisher.clone(),
        clock,
        Arc::clone(&bell),
        request_inbox,
        pulse,
    );
    let inference = std::thread::Builder::new()
        .name("inference".to_owned())
        .spawn(|| inference.run())?;
    let mut supervisor = Supervisor {
        load,
        configured,
        config,
        settings,
        bundle,
        backend,
        boot,
        clock,
        bell,
        cameras: Vec::new(),
        outbox,
        publisher,
        commands,
        requests,
        watchdog,
        relays,
        systemd: Systemd::from_env(),
    };
    supervisor.start_cameras()?;
    supervisor.configure_inference(watched, None);
    supervisor.introduce();
    let status = supervisor.status();
    supervisor.systemd.ready(&status);
    let outcome = supervisor.listen(control, &inbox, &inference);
    supervisor.stop(inference);
    outcome
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
            self.systemd.tick(now, &self.watchdog.verdict(now));
        }
        Ok(())
    }

    /// Reads the configuration again and puts it in force; on an error the old one stays.
    ///
    /// # Errors
    /// Why the new configuration was refused, for people.
    pub(super) fn reload(&mut self) -> Result<(), String> {
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
    pub(super) fn put_in_force(&mut self) -> Result<(), String> {
        let mut config = self.configured.clone();
        self.settings.apply(&mut config);
        if config == self.config {
            return Ok(());
        }
        if only_rules_differ(&self.config, &config) {
            self.config = config;
            self.request(Request::Rules(self.config.labels.clone()));
            self.report_settings();
            return Ok(());
        }
        let mut replacement = None;
        if config.model != self.config.model {
            let bundle = Bundle::open(&config.model.bundle, &Limits::default())
                .map_err(|error| error.to_string())?;
            let model = load_model(&bundle, &config).map_err(|error| error.to_string())?;
            replacement = Some((bundle, model));
        }
        let bundle = replacement
            .as_ref()
            .map_or(&self.bundle, |(bundle, _)| bundle);
        let watched = plan::watch(&config, bundle, &self.config.state_dir)
            .map_err(|error| error.to_string())?;
        if !self.publisher.announce(&config) {
            self.change_publisher(&config)?;
        }
        if config.state_dir != self.config.state_dir || config.outbox != self.config.outbox {
            log::warn!("state_dir and outbox change only at a restart");
        }
        self.config = config;
        let model = replacement.map(|(bundle, model)| {
            self.backend = model.encoder.describe();
            let id = bundle.id();
            self.bundle = bundle;
            (model, id)
        });
        self.start_cameras().map_err(|error| error.to_string())?;
        self.configure_inference(watched, model);
        self.introduce();
        Ok(())
    }

    /// Another broker, login or prefix. The old publisher leaves first: two with one client id would
    /// throw each other out.
    fn change_publisher(&mut self, config: &Config) -> Result<(), String> {
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

    /// Starts the capture threads that are missing, stops those that are no longer wanted, and
    /// keeps those whose configuration is the same.
    fn start_cameras(&mut self) -> Result<(), ServeError> {
        let mut before = std::mem::take(&mut self.cameras);
        for camera in self.config.cameras.clone() {
            let same = |old: &Camcorder| captures_the_same(&old.camera, &camera);
            if let Some(n) = before.iter().position(same) {
                let mut kept = before.swap_remove(n);
                kept.camera = camera.clone();
                kept.feed.camera = camera;
                self.cameras.push(kept);
            } else if let Some(n) = before.iter().position(|old| old.camera.id == camera.id) {
                // A device can be opened once: the old thread has to let go of it first.
                self.relays.remove(&stage_name(&camera));
                before.swap_remove(n).thread.stop(JOIN);
                self.start_camera(camera)?;
            } else {
                self.start_camera(camera)?;
            }
        }
        for gone in before {
            self.relays.remove(&stage_name(&gone.camera));
            gone.thread.stop(JOIN);
        }
        Ok(())
    }

    fn start_camera(&mut self, camera: Camera) -> Result<(), ServeError> {
        let slot = Arc::new(LatestSlot::with_bell(Arc::clone(&self.bell)));
        let shared = Arc::new(CaptureShared::default());
        let thread = CaptureThread::spawn(&camera, Arc::clone(&slot), Arc::clone(&shared))?;
        let now = self.clock.uptime();
        self.relays.add(
            &mut self.watchdog,
            &stage_name(&camera),
            shared.progress(),
            SILENCE,
            now,
        );
        let feed = Feed {
            camera: camera.clone(),
            slot,
            shared,
        };
        self.cameras.push(Camcorder {
            camera,
            thread,
            feed,
        });
        Ok(())
    }

    fn configure_inference(
        &self,
        cameras: Vec<crate::lookout::WatchedCamera>,
        model: Option<(Model, String)>,
    ) {
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

    /// Publishes who we are and the settings people may change.
    fn introduce(&self) {
        self.publisher.send(Outgoing::Info(Box::new(Info {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bundle: self.bundle.id(),
            language: self.bundle.manifest().language.clone(),
            boot: self.boot.clone(),
            backend: self.backend.clone(),
            machine: machine(),
        })));
        self.report_settings();
    }

    fn report_settings(&self) {
        self.publisher
            .send_all(self.config.labels.iter().flat_map(|label| {
                let value = |setting, value| Outgoing::ConfigValue {
                    label: label.id.clone(),
                    setting,
                    value,
                };
                [
                    value(Setting::Threshold, label.rule.enter.get().to_string()),
                    value(Setting::Prompt, prompts::display(&label.prompts)),
                ]
            }));
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

fn load_model(bundle: &Bundle, config: &Config) -> Result<Model, ServeError> {
    let manifest = bundle.manifest();
    Ok(Model {
        encoder: encoder::load_image(bundle, config.model.threads)?,
        preprocessor: Preprocessor::new(&manifest.image),
        scoring: manifest.scoring.clone(),
    })
}

fn settings_path(config: &Config) -> PathBuf {
    config.state_dir.join("settings.json")
}

fn stage_name(camera: &Camera) -> String {
    format!("capture-{}", camera.id)
}

/// Zones and the gate belong to the inference side.
fn captures_the_same(a: &Camera, b: &Camera) -> bool {
    a.id == b.id
        && a.source == b.source
        && a.rate_fps == b.rate_fps
        && a.stall_after == b.stall_after
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

/// Eight hexadecimal digits, new for every run.
fn boot_id() -> String {
    let mut bytes = [0u8; 4];
    if getrandom::fill(&mut bytes).is_err() {
        bytes = std::process::id().to_le_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The board's own name where it has one, and the processor architecture.
fn machine() -> String {
    let model = std::fs::read_to_string("/proc/device-tree/model").unwrap_or_default();
    let model = model.trim_end_matches(['\0', '\n']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let separator = if model.is_empty() { "" } else { ", " };
    format!(
        "{model}{separator}{} with {cores} core(s)",
        std::env::consts::ARCH
    )
}
