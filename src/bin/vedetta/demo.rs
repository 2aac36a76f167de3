//! `vedetta demo`: the whole daemon, with photos as its camera and a broker inside.

mod broker;
mod journal;
mod photos;
mod report;
mod showings;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vedetta::config::{Config, Environment};
use vedetta::daemon::{self, Control, ServeError};
use vedetta::event::Health;
use vedetta::live::line::{Line, Style};
use vedetta::live::{Address, Heard, Live, Page, Screen, Size, Subscriber, Thumbnail};

use journal::Journal;
use showings::Showings;
use stage::Stage;

/// Time between two looks at the clock, the messages and the keyboard.
const TICK: Duration = Duration::from_millis(100);
/// A camera that shows nothing for this long after the model was loaded never will.
const FIRST_PHOTO: Duration = Duration::from_secs(60);
/// The daemon promises to stop within 2 s; a loaded machine gets more.
const FAREWELL: Duration = Duration::from_secs(10);
/// Topic prefix.
const PREFIX: &str = "vedetta";
/// Where [`stage::DEVICE`] publishes its health.
const HEALTH: &str = "vedetta/demo/health";
/// A demo of a day has fewer.
const MOST_ENCODES: usize = 100_000;

/// See it work: bundled photos as the camera, a bundled model, a broker inside.
///
/// Needs no camera, no broker and no download. The demo runs the same daemon as `vedetta run` and
/// shows what any other subscriber sees; the mosquitto_sub line at the bottom shows the same.
/// Press Ctrl-C to end it. Where standard output is no terminal the messages are printed line by
/// line.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// End by itself after the camera ran for this long, with a summary.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Port of the broker on 127.0.0.1 [default: 1883, or a free one].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Folder of photos to show instead of the bundled ones.
    #[arg(long, value_name = "DIR")]
    photos: Option<PathBuf>,
    /// Model bundle to use instead of the bundled one, a folder or a .tar.zst.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Label to look for instead of the bundled ones: an Italian noun, `mela verde`, or
    /// `id=noun`. Can be given several times; the labels exclude each other.
    #[arg(long = "label", value_name = "NOUN")]
    labels: Vec<String>,
    /// Seconds each photo is shown.
    #[arg(long, value_name = "SECONDS", default_value_t = 4,
        value_parser = clap::value_parser!(u64).range(2..=60))]
    pace: u64,
    /// Print the configuration of the daemon that the demo runs, and end.
    #[arg(long)]
    print_config: bool,
}

/// Runs until the time is over or a signal comes.
pub fn run(arguments: &DemoArgs) -> ExitCode {
    match show(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(arguments: &DemoArgs) -> anyhow::Result<()> {
    let pace = Duration::from_secs(arguments.pace);
    let (bundle, photos) = (arguments.bundle.as_deref(), arguments.photos.as_deref());
    let stage = Stage::set(bundle, photos, &arguments.labels, pace)?;
    if arguments.print_config {
        let port = arguments.port.unwrap_or(1883);
        let text = stage.configuration(port);
        return Ok(Screen::print_lines(
            &text.lines().map(plain).collect::<Vec<_>>(),
        )?);
    }
    let ended = listen_to_signals().context("signals cannot be handled")?;
    let journal = Journal::start(Screen::is_available());
    let port = broker::start(arguments.port).with_context(|| match arguments.port {
        Some(port) => format!("port {port} cannot be used; leave --port out for a free one"),
        None => "the broker of the demo does not start".to_owned(),
    })?;
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port,
        credentials: None,
        tls: None,
    };
    let live = Live::new(PREFIX);
    let subscriber = Subscriber::start(&address, live.filter())?;
    let expected = stage
        .photos
        .iter()
        .map(|photo| photo.expected.clone())
        .collect();
    let mut demo = Demo {
        showings: Showings::new(expected, pace),
        stage,
        port,
        live,
        subscriber,
        screen: Screen::open()?,
        journal,
        started: Instant::now(),
        first_photo: None,
        encodes_ms: Vec::new(),
        shown: None,
        thumbnail: None,
    };
    let outcome = demo.play(arguments.seconds.map(Duration::from_secs), &ended);
    let report = demo.report();
    let Demo {
        screen, journal, ..
    } = demo;
    // The terminal first: the rest stays on it.
    drop(screen);
    let kept = journal.take();
    kept.iter().for_each(|line| eprintln!("{line}"));
    outcome?;
    if let Some(report) = report {
        // A reader that went away has seen what it wanted.
        let _ = Screen::print_lines(&report);
    }
    Ok(())
}

/// Set when somebody wants the demo to end.
fn listen_to_signals() -> std::io::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    Ok(ended)
}

struct Demo {
    stage: Stage,
    port: u16,
    live: Live,
    subscriber: Subscriber,
    screen: Screen,
    journal: Journal,
    showings: Showings,
    started: Instant,
    first_photo: Option<Instant>,
    /// Median encode time of every period that had any, ms. A photo is encoded once and a period is
    /// shorter than a photo: these are the encodes themselves.
    encodes_ms: Vec<f32>,
    /// How long photos were shown, once the end was asked for.
    shown: Option<Duration>,
    /// The photo it is of, the size it was made for, and its lines.
    thumbnail: Option<(usize, Size, Vec<Line>)>,
}

/// The daemon on its thread.
struct Daemon {
    control: Arc<Control>,
    thread: JoinHandle<Result<(), ServeError>>,
}

impl Daemon {
    fn start(configuration: String) -> anyhow::Result<Self> {
        let control = Arc::new(Control::default());
        let steering = Arc::clone(&control);
        let mut environment = Environment::current();
        // Overrides are meant for the daemon of this machine, not for the demo.
        environment.variables.clear();
        let serve = move || {
            let name = "the configuration of the demo";
            let load = || Config::from_toml(&configuration, name, &[], &environment);
            daemon::serve(&load, &steering)
        };
        let thread = thread::Builder::new()
            .name("daemon".to_owned())
            .spawn(serve)?;
        Ok(Self { control, thread })
    }

    fn outcome(self) -> anyhow::Result<()> {
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => bail!("the daemon panicked; please report it"),
        }
    }
}

impl Demo {
    fn play(&mut self, time: Option<Duration>, ended: &AtomicBool) -> anyhow::Result<()> {
        if !self.screen.is_terminal() {
            // A reader that went away ends the demo at the next message.
            let _ = Screen::print_lines(&self.introduction());
        }
        let daemon = Daemon::start(self.stage.configuration(self.port))?;
        while !ended.load(Ordering::Relaxed) && !daemon.thread.is_finished() {
            self.listen(TICK);
            if self.draw().is_err() {
                break;
            }
            let shown = self.showing();
            if time.is_some_and(|time| shown.is_some_and(|shown| shown >= time)) {
                break;
            }
            let loaded = !self.live.info.is_empty();
            if loaded && shown.is_none() && self.started.elapsed() > FIRST_PHOTO {
                daemon.control.stop();
                bail!("the camera shows nothing; run with RUST_LOG=vedetta=debug to see why");
            }
            if !loaded {
                self.started = Instant::now();
            }
        }
        self.shown = self.showing();
        daemon.control.stop();
        let asked = Instant::now();
        while !daemon.thread.is_finished() && asked.elapsed() < FAREWELL {
            self.listen(TICK);
            // The terminal may be what ended it.
            let _ = self.draw();
        }
        if !daemon.thread.is_finished() {
            bail!("the daemon did not stop");
        }
        let outcome = daemon.outcome();
        self.listen(TICK);
        let _ = self.draw();
        outcome
    }

    /// Takes in what comes within `time`.
    fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.subscriber.next(left) {
                Some(Heard::Message { topic, payload }) => self.hear(&topic, &payload),
                Some(Heard::Connected) => {}
                Some(Heard::Lost(why)) => log::warn!("the table lost the broker: {why}"),
                None => break,
            }
            if left.is_zero() {
                break;
            }
        }
        // A daemon that stops says UNKNOWN: that is no verdict.
        if let (Some(first), None) = (self.first_photo, self.shown) {
            let on: Vec<&str> = on(&self.live).collect();
            self.showings.follow(first.elapsed(), &on);
        }
    }

    /// How long photos have been shown; nothing before the first.
    fn showing(&self) -> Option<Duration> {
        self.shown.or_else(|| Some(self.first_photo?.elapsed()))
    }

    fn hear(&mut self, topic: &str, payload: &[u8]) {
        let camera = (stage::DEVICE.to_owned(), stage::CAMERA.to_owned());
        let was_online = self
            .live
            .cameras
            .get(&camera)
            .is_some_and(|s| s == "online");
        self.live.hear(topic, payload);
        if topic == HEALTH
            && let Ok(health) = serde_json::from_slice::<Health>(payload)
            && let Some(encode_ms) = health.encode_p50_ms
            && self.encodes_ms.len() < MOST_ENCODES
        {
            self.encodes_ms.push(encode_ms);
        }
        let is_online = self
            .live
            .cameras
            .get(&camera)
            .is_some_and(|s| s == "online");
        if is_online && !was_online {
            // The first photo appeared just now, less one encode; a reopened folder starts anew.
            self.first_photo = Some(Instant::now());
            self.showings.restart();
        }
    }

    fn draw(&mut self) -> std::io::Result<()> {
        if !self.screen.is_terminal() {
            return self.screen.print(&self.live);
        }
        let page = Page {
            heading: self.heading(),
            picture: self.picture(),
            footer: self.footer(),
            live: &self.live,
            now: Timestamp::now(),
        };
        self.screen.show(&page)
    }

    /// The photo before the lens, drawn anew when it or the terminal changes.
    fn picture(&mut self) -> Vec<Line> {
        let Some(shown) = self.showing().filter(|_| self.screen.has_colours()) else {
            return Vec::new();
        };
        let photo = self.showings.photo(shown);
        let size = self.screen.size();
        let known = self
            .thumbnail
            .as_ref()
            .filter(|(of, at, _)| (*of, *at) == (photo, size));
        if let Some((_, _, lines)) = known {
            return lines.clone();
        }
        // A third of the width, and what heading, devices, messages and footer leave of the height.
        let columns = u32::try_from(size.columns / 3).unwrap_or(0).min(36);
        let rows = u32::try_from(size.rows.saturating_sub(14))
            .unwrap_or(0)
            .clamp(6, 16);
        let drawn = Thumbnail::read(&self.stage.photos[photo].path, columns, rows);
        let lines = drawn.map_or_else(|_| Vec::new(), |thumbnail| thumbnail.lines());
        self.thumbnail = Some((photo, size, lines.clone()));
        lines
    }
}

/// Labels that are ON.
fn on(live: &Live) -> impl Iterator<Item = &str> {
    let rows = live.rows.iter().filter(|(_, row)| row.state == "ON");
    rows.map(|((_, _, label), _)| label.as_str())
}

fn plain(text: &str) -> Line {
    Line::of(Style::Plain, text)
}
