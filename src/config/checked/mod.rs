//! From the raw configuration to the checked one. Every check runs, so that every problem is
//! reported; the result only counts when there was none.

mod cameras;
mod labels;
mod mqtt;
mod values;

use std::num::NonZeroUsize;

use super::{Config, Id, Model, raw};

pub(super) use cameras::FORMATS;
pub(super) use mqtt::{COMMANDS, VERSIONS};
pub(super) use values::{Context, narrow};
use values::{count, given};

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
        None => Id::from_text(&context.environment.hostname).or_else(|| Id::new("vedetta")),
    };
    let device_name = context.text(&raw.device_name);
    let state_dir = match &raw.state_dir {
        Some(_) => context.path(&raw.state_dir),
        None => Some(context.environment.state_dir()),
    };
    let log_level = context.choice(&raw.log_level, &LOG_LEVELS);
    let model = model(context, raw);
    let labels = labels::labels(context, raw);
    let cameras = cameras::cameras(context, raw, &labels);
    let negatives = labels::negatives(context, raw);
    // The client id needs some device id, right or wrong, for its own checks to run.
    let any_device = device.clone().or_else(|| Id::new("vedetta"))?;
    let mqtt = mqtt::mqtt(context, raw, &any_device);
    let outbox = mqtt::outbox(context, raw);
    let device = device?;
    Some(Config {
        device_name: device_name.unwrap_or_else(|| device.to_string()),
        device,
        state_dir: state_dir?,
        model: model?,
        cameras,
        labels,
        negatives,
        mqtt: mqtt?,
        outbox,
        log_level: log_level.unwrap_or(log::LevelFilter::Info),
    })
}

fn model(context: &Context<'_>, raw: &raw::Config) -> Option<Model> {
    let empty = raw::Model::default();
    let raw = given(&raw.model).map_or(&empty, |(_, raw)| raw);
    let bundle = match &raw.bundle {
        Some(_) => context.path(&raw.bundle),
        None => Some(context.environment.find_bundle()),
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
        bundle: bundle?,
        calibration,
        threads: NonZeroUsize::new(threads.unwrap_or(default))?,
    })
}
