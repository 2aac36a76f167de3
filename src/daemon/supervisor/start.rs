//! The way up: configuration, model, threads, cameras.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use super::{COMMANDS, MQTT, REQUESTS, SILENCE, Supervisor, Thermostat, settings_path};
use crate::bundle::{Bundle, Limits, hex};
use crate::calibrate::Applied;
use crate::config::{Config, ConfigError};
use crate::daemon::clock::Clock;
use crate::daemon::in_force::{self, in_force};
use crate::daemon::inference::Inference;
use crate::daemon::relay::Relays;
use crate::daemon::settings::Settings;
use crate::daemon::updates::Updates;
use crate::daemon::{Control, ServeError, plan};
use crate::decide::{Board, OpenEvent, RandomUlids};
use crate::encoder;
use crate::lookout::{Lookout, Model, WatchedCamera};
use crate::preprocess::Preprocessor;
use crate::publish::{self, Outbox};
use crate::slot::Bell;
use crate::watchdog::{Systemd, Watchdog};

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
    let mut configured = load()?;
    std::fs::create_dir_all(&configured.state_dir).map_err(|source| ServeError::StateDir {
        path: configured.state_dir.clone(),
        source,
    })?;
    let systemd = Systemd::from_env();
    let mut updates = Updates::start(&configured);
    configured.model.follow(updates.current());
    let settings = Settings::load(&settings_path(&configured));
    let started = Instant::now();
    let Opened {
        config,
        calibrated,
        bundle,
        model,
        watched,
    } = in_use(&mut updates, &mut configured, &settings, &systemd)?;
    let backend = model.encoder.describe();
    log::info!(
        "bundle {} ({}) on {backend}, loaded in {:.1} s",
        bundle.id(),
        bundle.path().display(),
        started.elapsed().as_secs_f32()
    );
    in_force::log(&calibrated, &config);
    updates.forget_embeddings(&config, &bundle);

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
        Arc::clone(&updates.record),
    );
    let inference = std::thread::Builder::new()
        .name("inference".to_owned())
        .spawn(|| inference.run())?;
    let thermostat = Thermostat::new(config.heat);
    let mut supervisor = Supervisor {
        load,
        configured,
        config,
        calibrated,
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
        systemd,
        updates,
        thermostat,
    };
    supervisor.start_cameras()?;
    supervisor.configure_inference(watched, None);
    let now = supervisor.clock.uptime();
    let (bundle, trial) = (
        &supervisor.config.model.bundle,
        supervisor.config.update.trial,
    );
    supervisor.updates.adopted(bundle, now, trial);
    supervisor.introduce();
    let status = supervisor.status();
    supervisor.systemd.ready(&status);
    let outcome = supervisor.listen(control, &inbox, &inference);
    supervisor.stop(inference);
    outcome
}

/// What is in force, and the model that goes with it.
struct Opened {
    config: Config,
    calibrated: Applied,
    bundle: Bundle,
    model: Model,
    watched: Vec<WatchedCamera>,
}

/// Opens the bundle in use. An installed one that cannot be used is given up for the one before.
fn in_use(
    updates: &mut Updates,
    configured: &mut Config,
    settings: &Settings,
    systemd: &Systemd,
) -> Result<Opened, ServeError> {
    loop {
        let error = match open(configured, settings, systemd) {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let is_its_fault = matches!(
            error,
            ServeError::Bundle(_) | ServeError::Encode(_) | ServeError::LabelBank(_)
        );
        if !is_its_fault || !configured.model.is_installed() {
            return Err(error);
        }
        if let Err(refused) = updates.give_up(&configured.model.bundle, &error.to_string()) {
            log::error!("{refused}");
            return Err(error);
        }
        configured.model.follow(updates.current());
    }
}

fn open(configured: &Config, settings: &Settings, systemd: &Systemd) -> Result<Opened, ServeError> {
    let bundle = Bundle::open(&configured.model.bundle, &Limits::default())?;
    let (config, calibrated) = in_force(configured, settings, &bundle);
    let model = load_model(&bundle, &config)?;
    let mut alive = || systemd.starting();
    let folder = &config.state_dir;
    let watched = plan::watch(&config, &bundle, &calibrated, folder, &mut alive)?;
    Ok(Opened {
        config,
        calibrated,
        bundle,
        model,
        watched,
    })
}

/// The image tower of `bundle` and what belongs to it.
///
/// # Errors
/// A tower that cannot be run.
pub fn load_model(bundle: &Bundle, config: &Config) -> Result<Model, ServeError> {
    let manifest = bundle.manifest();
    Ok(Model {
        encoder: encoder::load_image_on(bundle, config.model.threads, config.model.backend)?,
        preprocessor: Preprocessor::new(&manifest.image),
        scoring: manifest.scoring.clone(),
    })
}

/// Eight hexadecimal digits, new for every run.
fn boot_id() -> String {
    let mut bytes = [0u8; 4];
    if getrandom::fill(&mut bytes).is_err() {
        bytes = std::process::id().to_le_bytes();
    }
    hex(&bytes)
}
