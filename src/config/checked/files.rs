//! The files that a configuration names, as they are on this machine. A restart makes none of them right.

use super::super::problem::PlaceId;
use super::super::{Config, Tls, raw};
use super::values::{Context, given};
use crate::bundle::MANIFEST;
use crate::publish::{self, PublishError};

/// Reports the bundle that is named and not there, and TLS files that cannot be used.
pub fn check(context: &Context<'_>, raw: &raw::Config, config: &Config) {
    let named = given(&raw.model).and_then(|(_, model)| given(&model.bundle));
    if let Some((place, _)) = named {
        let bundle = &config.model.bundle;
        // Either may be a link to a disk that is not mounted.
        if !bundle.is_file() && !bundle.join(MANIFEST).is_file() {
            let message = "there is no bundle: it must be a folder with a bundle.toml, or a .tar.zst; \
                           without this line the installed one is used";
            context.problems.at(place, message);
        }
    }
    let mqtt = given(&raw.mqtt).and_then(|(_, mqtt)| given(&mqtt.tls));
    if let (Some((table, raw)), Some(tls)) = (mqtt, &config.mqtt.tls)
        && let Err(error) = publish::check(&config.mqtt)
    {
        let message = match &error {
            PublishError::Tls { path, message } => format!("{}: {message}", path.display()),
            PublishError::Thread(error) => error.to_string(),
        };
        let place = blamed(&error, raw, tls).unwrap_or(table);
        context.problems.at(place, message);
    }
}

/// The key that names the file that is to blame; `None` where the default does.
fn blamed(error: &PublishError, raw: &raw::Tls, tls: &Tls) -> Option<PlaceId> {
    let PublishError::Tls { path, .. } = error else {
        return None;
    };
    let key = match &tls.client {
        Some((certificate, _)) if path == certificate => &raw.cert_file,
        Some((_, key)) if path == key => &raw.key_file,
        _ => &raw.ca_file,
    };
    key.as_ref().map(|field| field.place)
}
