//! What the daemon says of itself: retained facts, and settings that people may change.

use super::Supervisor;
use crate::event::{Info, SCHEMA};
use crate::prompts;
use crate::publish::Outgoing;
use crate::topics::Setting;

impl Supervisor<'_> {
    /// Publishes who we are and the settings people may change.
    pub(super) fn introduce(&self) {
        self.publisher.send(Outgoing::Info(Box::new(Info {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bundle: self.bundle.id(),
            language: self.bundle.manifest().language.clone(),
            boot: self.boot.clone(),
            backend: self.backend.clone(),
            machine: machine(),
            update: self.updates.info(&self.config),
        })));
        self.report_settings();
    }

    pub(super) fn report_settings(&self) {
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
