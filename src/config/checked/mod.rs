//! From the raw configuration to the checked one. Every check runs, so that every problem is
//! reported; the result only counts when there was none.

mod cameras;
mod files;
mod labels;
mod mqtt;
mod values;

use std::num::NonZeroUsize;
use std::path::Path;

use super::{Config, Heat, Id, Model, Update, defaults, raw};
use crate::bundle::signature::PublicKey;
use crate::bundle::store::Store;
use crate::encoder::BACKENDS;

pub(super) use cameras::FORMATS;
pub(super) use files::check as check_files;
pub(super) use mqtt::{COMMANDS, VERSIONS};
pub(super) use values::{Context, narrow};
use values::{count, given, seconds};

/// Words of `log_level`.
pub(super) const LOG_LEVELS: [(&str, log::LevelFilter); 6] = [
    ("off", log::LevelFilter::Off),
    ("error", log::LevelFilter::Error),
    ("warn", log::LevelFilter::Warn),
    ("info", log::LevelFilter::Info),
    ("debug", log::LevelFilter::Debug),
    ("trace", log::LevelFilter::Trace),
];

/// Checks everything; `None` and every error are in the problems of `context`.
pub(super) fn check(context: &Context<'_>, raw: &raw::Config) -> Option<Config> {
    let device = match &raw.device {
        Some(_) => context.id(&raw.device),
        None => Id::from_text(&context.environment.device()).or_else(|| Id::new("vedetta")),
    };
    let device_name = context.text(&raw.device_name);
    let state_dir = match &raw.state_dir {
        Some(_) => context.path(&raw.state_dir),
        None => Some(context.environment.state_dir()),
    };
    let log_level = context.choice(&raw.log_level, &LOG_LEVELS);
    let model = model(context, raw, state_dir.as_deref());
    let update = update(context, raw);
    let labels = labels::labels(context, raw);
    let cameras = cameras::cameras(context, raw, &labels);
    let negatives = labels::negatives(context, raw);
    // The client id needs some device id, right or wrong, for its own checks to run.
    let any_device = device.clone().or_else(|| Id::new("vedetta"))?;
    let mqtt = mqtt::mqtt(context, raw, &any_device);
    let outbox = mqtt::outbox(context, raw);
    let heat = heat(context, raw);
    let device = device?;
    Some(Config {
        device_name: device_name.unwrap_or_else(|| device.to_string()),
        device,
        state_dir: state_dir?,
        model: model?,
        update: update?,
        cameras,
        labels,
        negatives,
        mqtt: mqtt?,
        outbox,
        heat,
        log_level: log_level.unwrap_or(log::LevelFilter::Info),
    })
}

fn model(context: &Context<'_>, raw: &raw::Config, state_dir: Option<&Path>) -> Option<Model> {
    let empty = raw::Model::default();
    let raw = given(&raw.model).map_or(&empty, |(_, raw)| raw);
    let (bundle, shipped) = match &raw.bundle {
        Some(_) => (context.path(&raw.bundle)?, None),
        None => {
            let shipped = context.environment.find_bundle();
            let installed = state_dir.and_then(|dir| Store::open(dir).current());
            (installed.unwrap_or_else(|| shipped.clone()), Some(shipped))
        }
    };
    let calibration = context.path(&raw.calibration);
    let threads = context.whole(&raw.threads, 1..=64).map(count);
    // The free core serves capture, decoding and the broker.
    let default = context
        .environment
        .cores
        .get()
        .saturating_sub(1)
        .clamp(1, 64);
    Some(Model {
        bundle,
        shipped,
        calibration,
        threads: NonZeroUsize::new(threads.unwrap_or(default))?,
        backend: context.choice(&raw.backend, &BACKENDS).unwrap_or_default(),
    })
}

fn heat(context: &Context<'_>, raw: &raw::Config) -> Heat {
    let empty = raw::Heat::default();
    let raw = given(&raw.heat).map_or(&empty, |(_, raw)| raw);
    let step_c = context.number(&raw.step_c, 1.0..=30.0);
    let hysteresis_c = context.number(&raw.hysteresis_c, 0.0..=30.0);
    Heat {
        enabled: context.flag(&raw.enabled).unwrap_or(true),
        start_c: context.number(&raw.start_c, 20.0..=120.0).map(narrow),
        step_c: narrow(step_c.unwrap_or(defaults::HEAT_STEP_C)),
        hysteresis_c: narrow(hysteresis_c.unwrap_or(defaults::HEAT_HYSTERESIS_C)),
    }
}

fn update(context: &Context<'_>, raw: &raw::Config) -> Option<Update> {
    let empty = raw::Update::default();
    let raw = given(&raw.update).map_or(&empty, |(_, raw)| raw);
    let public_key = match given(&raw.public_key) {
        None => raw.public_key.is_none().then_some(None),
        Some((place, text)) => match PublicKey::given(text, context.base(place)) {
            Ok(key) => Some(Some(key)),
            Err(error) => context.wrong(place, error.to_string()),
        },
    };
    let ca_file = match &raw.ca_file {
        None => Some(defaults::CA_FILE.into()),
        Some(_) => context.secret_path(&raw.ca_file),
    };
    let trial = context.number(&raw.trial_s, 1.0..=3600.0);
    Some(Update {
        trial: seconds(trial.unwrap_or(defaults::TRIAL_S)),
        public_key: public_key?,
        require_signature: context.flag(&raw.require_signature).unwrap_or(true),
        ca_file: ca_file?,
    })
}
