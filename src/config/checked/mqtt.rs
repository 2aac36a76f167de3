//! `[mqtt]` and `[outbox]`.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::problem::Origin;
use super::super::raw;
use super::super::{CommandName, Credentials, Id, Mqtt, MqttVersion, Outbox, Tls, defaults};
use super::values::{Context, count, find, given, one_of, seconds};

/// Words of `mqtt.version`.
pub const VERSIONS: [(&str, MqttVersion); 2] =
    [("5", MqttVersion::V5), ("3.1.1", MqttVersion::V311)];

/// Words of `mqtt.commands`.
pub const COMMANDS: [(&str, CommandName); 6] = [
    ("snapshot", CommandName::Snapshot),
    ("reload", CommandName::Reload),
    ("set", CommandName::Set),
    ("pause", CommandName::Pause),
    ("install-bundle", CommandName::InstallBundle),
    ("rollback-bundle", CommandName::RollbackBundle),
];

/// Longest password file, bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// `None` when something was wrong; it was reported.
pub fn mqtt(context: &Context<'_>, raw: &raw::Config, device: &Id) -> Option<Mqtt> {
    let empty = raw::Mqtt::default();
    let raw = given(&raw.mqtt).map_or(&empty, |(_, raw)| raw);
    let tls = match &raw.tls {
        None => Some(None),
        Some(raw) => raw
            .value
            .as_ref()
            .and_then(|raw| tls(context, raw))
            .map(Some),
    };
    let host = host(context, raw);
    let port = context.whole(&raw.port, 1..=u64::from(u16::MAX));
    let default_port = match &raw.tls {
        Some(_) => defaults::TLS_PORT,
        None => defaults::PORT,
    };
    let credentials = credentials(context, raw);
    let client_id = match &raw.client_id {
        None => Some(format!("vedetta-{device}")),
        Some(_) => client_id(context, raw),
    };
    let topic_prefix = match &raw.topic_prefix {
        None => Some(defaults::TOPIC_PREFIX.to_owned()),
        Some(_) => topic(context, &raw.topic_prefix, false),
    };
    let discovery_prefix = match &raw.discovery_prefix {
        None => Some(defaults::DISCOVERY_PREFIX.to_owned()),
        Some(_) => topic(context, &raw.discovery_prefix, true),
    };
    let discovery = context.flag(&raw.discovery).unwrap_or(true);
    let keep_alive = context.whole(&raw.keep_alive_s, 5..=3600);
    let health_every = context.number(&raw.health_every_s, 1.0..=3600.0);
    Some(Mqtt {
        host: host?,
        port: port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(default_port),
        version: context
            .choice(&raw.version, &VERSIONS)
            .unwrap_or(MqttVersion::V5),
        client_id: client_id?,
        topic_prefix: topic_prefix?,
        credentials: credentials?,
        tls: tls?,
        keep_alive: std::time::Duration::from_secs(keep_alive.unwrap_or(defaults::KEEP_ALIVE_S)),
        discovery_prefix: discovery_prefix.filter(|_| discovery),
        evidence: context.flag(&raw.evidence).unwrap_or(false),
        health_every: seconds(health_every.unwrap_or(defaults::HEALTH_EVERY_S)),
        commands: commands(context, raw),
    })
}

pub fn outbox(context: &Context<'_>, raw: &raw::Config) -> Outbox {
    let empty = raw::Outbox::default();
    let raw = given(&raw.outbox).map_or(&empty, |(_, raw)| raw);
    let max_events = context.whole(&raw.max_events, 1..=1_000_000);
    let max_bytes = context.whole(&raw.max_bytes, 65_536..=1 << 30);
    let expire = context.number(&raw.expire_after_s, 60.0..=2_592_000.0);
    Outbox {
        max_events: count(max_events.unwrap_or(defaults::OUTBOX_MAX_EVENTS)),
        max_bytes: max_bytes.unwrap_or(defaults::OUTBOX_MAX_BYTES),
        expire_after: seconds(expire.unwrap_or(defaults::EXPIRE_AFTER_S)),
    }
}

fn host(context: &Context<'_>, raw: &raw::Mqtt) -> Option<String> {
    let Some((place, host)) = given(&raw.host) else {
        // A wrong type was reported already.
        return raw.host.is_none().then(|| defaults::HOST.to_owned());
    };
    // Names, IPv4 and IPv6 addresses; a URL or a port in it is the usual mistake.
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    let ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok() || host.contains('%');
    let fits = (1..=253).contains(&host.len()) && host.chars().all(legal);
    if fits && (ipv6 || !host.contains(':')) {
        return Some(host.clone());
    }
    context.wrong(
        place,
        "must be a host name or address alone, without mqtt:// and without a port (mqtt.port)",
    )
}

fn client_id(context: &Context<'_>, raw: &raw::Mqtt) -> Option<String> {
    let (place, id) = given(&raw.client_id)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=128).contains(&id.len()) && id.chars().all(legal) {
        return Some(id.clone());
    }
    context.wrong(place, "must be 1 to 128 letters, digits, '-', '_' or '.'")
}

/// 1–4 levels of ids; Home Assistant's prefixes may have an underscore too.
fn topic(context: &Context<'_>, key: &raw::Text, underscore: bool) -> Option<String> {
    let (place, topic) = given(key)?;
    let legal = |level: &str| match underscore {
        true => Id::new(&level.replace('_', "0")).is_some(),
        false => Id::new(level).is_some(),
    };
    if topic.split('/').count() <= 4 && topic.split('/').all(legal) {
        return Some(topic.clone());
    }
    let message = format!("must be 1 to 4 levels divided by '/', each {}", Id::LEGAL);
    context.wrong(place, message)
}

fn commands(context: &Context<'_>, raw: &raw::Mqtt) -> Vec<CommandName> {
    let all = || COMMANDS.map(|(_, command)| command).to_vec();
    let Some((place, words)) = given(&raw.commands) else {
        return all();
    };
    let mut commands = Vec::new();
    for word in words {
        match find(word, &COMMANDS) {
            Some(command) if !commands.contains(&command) => commands.push(command),
            Some(_) => {}
            None => {
                let message = format!("{word:?} must be {}", one_of(&COMMANDS));
                context.problems.at(place, message);
            }
        }
    }
    commands
}

fn tls(context: &Context<'_>, raw: &raw::Tls) -> Option<Tls> {
    let ca_file = match &raw.ca_file {
        None => Some(defaults::CA_FILE.into()),
        Some(_) => context.secret_path(&raw.ca_file),
    };
    let certificate = context.secret_path(&raw.cert_file);
    let key = context.secret_path(&raw.key_file);
    let client = match (&raw.cert_file, &raw.key_file) {
        (None, None) => Some(None),
        (Some(_), Some(_)) => certificate.zip(key).map(Some),
        (Some(one), None) => context.wrong(one.place, "needs key_file beside it"),
        (None, Some(one)) => context.wrong(one.place, "needs cert_file beside it"),
    };
    Some(Tls {
        ca_file: ca_file?,
        client: client?,
    })
}

/// `Some(None)` when there is no login, `None` when it was wrong.
fn credentials(context: &Context<'_>, raw: &raw::Mqtt) -> Option<Option<Credentials>> {
    let username = match &raw.username {
        Some(_) => Some(context.text(&raw.username)?),
        None => None,
    };
    let password = match (&raw.password, &raw.password_file) {
        (None, None) => None,
        (Some(one), Some(_)) => {
            return context.wrong(one.place, "password and password_file exclude each other");
        }
        (Some(_), None) => {
            let (place, password) = given(&raw.password)?;
            match context.problems.origin(place) {
                Some(Origin::Override(origin)) if origin.starts_with("--set") => {
                    let message = "would stand in the process list, where everybody on this machine \
                                   can read it; write it into a file and name that with \
                                   mqtt.password_file";
                    return context.wrong(place, message);
                }
                // A variable is as private as the process.
                Some(Origin::Override(_)) => {}
                _ if context.readable_by_all => {
                    let message = "everybody on this machine can read it: chmod 640 this file, or put \
                                   it into a file of its own and name that in password_file";
                    context.problems.warn(place, message);
                }
                _ => {
                    let message = "stands in clear text; put it into a file of its own and name that \
                                   in password_file";
                    context.problems.warn(place, message);
                }
            }
            Some((place, password.clone()))
        }
        (None, Some(_)) => {
            let (place, _) = given(&raw.password_file)?;
            let path = context.secret_path(&raw.password_file)?;
            match read_password(&path) {
                Ok((password, mode)) => {
                    if mode & 0o004 != 0 {
                        let message = "everybody can read it; make it readable for the user of \
                                       the service alone (mode 640), or use credential:NAME";
                        context.problems.warn(place, message);
                    }
                    Some((place, password))
                }
                Err(message) => return context.wrong(place, message),
            }
        }
    };
    match (username, password) {
        (None, None) => Some(None),
        (None, Some((place, _))) => context.wrong(place, "needs mqtt.username beside it"),
        (Some(username), password) => Some(Some(Credentials {
            username,
            password: password.map(|(_, password)| password).unwrap_or_default(),
        })),
    }
}

/// The password in a file, without its last line break, and the mode of the file.
fn read_password(path: &Path) -> Result<(String, u32), String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PASSWORD_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_PASSWORD_BYTES);
    let text = String::from_utf8(bytes).ok().filter(|_| fits);
    let text = text.ok_or_else(|| {
        format!(
            "{} must be text of at most {MAX_PASSWORD_BYTES} bytes",
            path.display()
        )
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok((line.to_owned(), metadata.permissions().mode()))
}
