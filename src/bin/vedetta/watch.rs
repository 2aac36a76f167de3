//! `vedetta watch`: the live table of running daemons, through their broker.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vedetta::config::{Config, ConfigError, Credentials, Environment, Tls};
use vedetta::live::line::{Line, Style};
use vedetta::live::{Address, Heard, Live, Page, Screen, Subscriber};

/// Time between two looks at messages and signals.
const TICK: Duration = Duration::from_millis(100);
/// Longest password file, bytes.
const MAX_PASSWORD_BYTES: usize = 4096;
/// Port without and with TLS, as registered with IANA.
const PORTS: (u16, u16) = (1883, 8883);

/// The live table of running daemons, through their broker.
///
/// Only listens; publishes nothing. Reconnects by itself. Where standard output is no terminal the
/// messages are printed line by line. Press Ctrl-C to end it.
#[derive(clap::Args)]
pub struct WatchArgs {
    /// Broker [default: localhost].
    #[arg(long, conflicts_with = "config")]
    host: Option<String>,
    /// Port [default: 1883, with TLS 8883].
    #[arg(long, conflicts_with = "config", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// First part of the topics [default: vedetta].
    #[arg(long)]
    prefix: Option<String>,
    /// User name.
    #[arg(long, conflicts_with = "config", requires = "password_file")]
    username: Option<String>,
    /// File with the password.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "config",
        requires = "username"
    )]
    password_file: Option<PathBuf>,
    /// Certificate authorities to trust, PEM; turns TLS on.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    ca_file: Option<PathBuf>,
    /// Take broker, login and prefix from the configuration of a daemon.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End by itself after this long.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
}

/// Runs until a signal comes.
pub fn run(arguments: &WatchArgs) -> ExitCode {
    match watch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            match error.downcast_ref::<ConfigError>() {
                Some(_) => ExitCode::from(ConfigError::EXIT_CODE),
                None => ExitCode::FAILURE,
            }
        }
    }
}

fn watch(arguments: &WatchArgs) -> anyhow::Result<()> {
    let (address, prefix) = target(arguments)?;
    let mut live = Live::new(&prefix);
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))
            .context("signals cannot be handled")?;
    }
    let subscriber = Subscriber::start(&address, live.filter())?;
    let mut connection = Connection::Trying;
    let mut screen = Screen::open()?;
    let started = Instant::now();
    let time = arguments.seconds.map(Duration::from_secs);
    while !ended.load(Ordering::Relaxed) && time.is_none_or(|time| started.elapsed() < time) {
        let until = Instant::now() + TICK;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let change = match subscriber.next(left) {
                Some(Heard::Message { topic, payload }) => {
                    live.hear(&topic, &payload);
                    None
                }
                Some(Heard::Connected) => Some(Connection::Up),
                Some(Heard::Lost(why)) => Some(Connection::Lost(why)),
                None => break,
            };
            if let Some(change) = change.filter(|change| *change != connection) {
                if !screen.is_terminal() {
                    // Beside the messages, not among them: a reader may parse those.
                    eprintln!("{}", change.line(&address).text());
                }
                connection = change;
            }
            if left.is_zero() {
                break;
            }
        }
        let page = Page {
            heading: heading(&address, &live, &connection),
            picture: Vec::new(),
            footer: Vec::new(),
            live: &live,
            now: Timestamp::now(),
        };
        let shown = screen.show(&page).and_then(|()| screen.print(&live));
        if shown.is_err() {
            // The reader has seen what it wanted.
            break;
        }
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq)]
enum Connection {
    Trying,
    Up,
    Lost(String),
}

impl Connection {
    fn line(&self, address: &Address) -> Line {
        let Address { host, port, .. } = address;
        match self {
            Self::Trying => Line::of(Style::Doubtful, format!("connecting to {host}:{port} …")),
            Self::Up => Line::of(Style::Good, format!("● connected to {host}:{port}")),
            Self::Lost(why) => {
                Line::of(Style::Bad, format!("{host}:{port}: {why}; trying again …"))
            }
        }
    }
}

fn heading(address: &Address, live: &Live, connection: &Connection) -> Vec<Line> {
    let title = Line::of(Style::Strong, "vedetta watch");
    let title = title.with(Style::Faint, format!("  {}; Ctrl-C ends it", live.filter()));
    let mut lines = vec![title, connection.line(address)];
    if *connection == Connection::Up && live.heard == 0 {
        lines.push(Line::of(Style::Doubtful, "nothing under this prefix yet"));
    }
    lines
}

/// Where to listen, and under which prefix.
fn target(arguments: &WatchArgs) -> anyhow::Result<(Address, String)> {
    if let Some(path) = &arguments.config {
        let config = Config::load(path, &[], &Environment::current())?;
        let prefix = arguments
            .prefix
            .clone()
            .unwrap_or(config.mqtt.topic_prefix.clone());
        return Ok((Address::from(&config.mqtt), checked(prefix)?));
    }
    let credentials = match (&arguments.username, &arguments.password_file) {
        (Some(username), Some(file)) => {
            let username = username.clone();
            Some(Credentials {
                username,
                password: password(file)?,
            })
        }
        _ => None,
    };
    let tls = arguments.ca_file.clone().map(|ca_file| Tls {
        ca_file,
        client: None,
    });
    let usual = if tls.is_some() { PORTS.1 } else { PORTS.0 };
    let address = Address {
        host: arguments
            .host
            .clone()
            .unwrap_or_else(|| "localhost".to_owned()),
        port: arguments.port.unwrap_or(usual),
        credentials,
        tls,
    };
    let prefix = arguments
        .prefix
        .clone()
        .unwrap_or_else(|| "vedetta".to_owned());
    Ok((address, checked(prefix)?))
}

fn checked(prefix: String) -> anyhow::Result<String> {
    if prefix.is_empty() || prefix.contains(['#', '+', '\0']) {
        bail!("--prefix {prefix:?}: must be the first part of a topic, without wildcards");
    }
    Ok(prefix)
}

fn password(file: &std::path::Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if text.len() > MAX_PASSWORD_BYTES {
        bail!("{} is too long for a password", file.display());
    }
    // Editors end a file with a line break; it is no part of the password.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
