//! `vedetta check`.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use vedetta::bundle::{Bundle, Limits};
use vedetta::capture::{self, Next};
use vedetta::config::{Config, ConfigError, Environment, Source};
use vedetta::prompts;
use vedetta::telemetry::Probes;

/// A camera may take this long to give its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// A broker may take this long to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Less free space than this is worth a warning.
const ENOUGH_SPACE_BYTES: u64 = 256 << 20;
/// A board hotter than this will soon slow down.
const HOT_C: f32 = 80.0;

/// Say in one screen what is wrong with this board, and what to do.
///
/// Exits with 0 when nothing fails, 78 when the configuration cannot be used, 1 otherwise.
#[derive(clap::Args)]
pub struct CheckArgs {
    /// Configuration file.
    #[arg(long, short, default_value = "/etc/vedetta/vedetta.toml")]
    config: PathBuf,
    /// Overrides a key of the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the configuration in force, every default filled in, secrets hidden.
    #[arg(long)]
    effective: bool,
    /// One JSON object per check and line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

struct Finding {
    what: String,
    verdict: Verdict,
    /// What was found, and what to do about it.
    text: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: impl Into<String>, verdict: Verdict, text: impl Into<String>) {
        self.0.push(Finding {
            what: what.into(),
            verdict,
            text: text.into(),
        });
    }
}

/// Runs every check and prints one line for each.
pub fn run(arguments: &CheckArgs) -> ExitCode {
    let environment = Environment::current();
    let mut findings = Findings::default();
    let config = match Config::load(&arguments.config, &arguments.set, &environment) {
        Ok(config) => config,
        Err(error) => {
            for problem in &error.problems {
                findings.add("configuration", Verdict::Fail, problem.to_string());
            }
            machine(&mut findings);
            print(&findings, arguments.json);
            return ExitCode::from(ConfigError::EXIT_CODE);
        }
    };
    if arguments.effective {
        print!("{}", config.to_toml());
        return ExitCode::SUCCESS;
    }
    let zones: usize = config.cameras.iter().map(|camera| camera.zones.len()).sum();
    findings.add(
        "configuration",
        Verdict::Ok,
        format!(
            "{}: {} camera(s), {zones} zone(s), {} label(s)",
            arguments.config.display(),
            config.cameras.len(),
            config.labels.len()
        ),
    );
    labels(&config, &mut findings);
    cameras(&config, &mut findings);
    bundle(&config, &mut findings);
    broker(&config, &mut findings);
    disk(&config.state_dir, &mut findings);
    machine(&mut findings);
    print(&findings, arguments.json);
    let failed = findings
        .0
        .iter()
        .any(|finding| finding.verdict == Verdict::Fail);
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn labels(config: &Config, findings: &mut Findings) {
    for label in &config.labels {
        match prompts::for_label(&label.prompts) {
            Ok(_) => {}
            Err(error) => findings.add(
                format!("label {}", label.id),
                Verdict::Fail,
                error.to_string(),
            ),
        }
    }
    let shown: Vec<String> = config
        .labels
        .iter()
        .map(|label| prompts::display(&label.prompts))
        .collect();
    findings.add("labels", Verdict::Ok, shown.join(", "));
}

fn cameras(config: &Config, findings: &mut Findings) {
    for camera in &config.cameras {
        let what = format!("camera {}", camera.id);
        let mut source = match capture::open(&camera.source, camera.rate_fps) {
            Ok(source) => source,
            Err(error) => {
                findings.add(what, Verdict::Fail, error.to_string());
                continue;
            }
        };
        let description = source.description().to_string();
        let deadline = Instant::now() + FIRST_FRAME;
        let outcome = loop {
            if Instant::now() >= deadline {
                break Err(format!(
                    "no frame within {} s; is it blocked by another program?",
                    FIRST_FRAME.as_secs()
                ));
            }
            match source.next_frame(Duration::from_millis(200)) {
                Ok(Next::Frame(frame)) => {
                    break vedetta::decode::decode(&frame).map_err(|e| e.to_string());
                }
                Ok(Next::Ended) => break Err("it ended before its first frame".to_owned()),
                Ok(_) => {}
                Err(error) => break Err(error.to_string()),
            }
        };
        match outcome {
            Ok(rgb) => findings.add(
                what,
                Verdict::Ok,
                format!(
                    "{description}; a frame of {}x{} was read",
                    rgb.width(),
                    rgb.height()
                ),
            ),
            Err(why) => findings.add(what, Verdict::Fail, format!("{description}: {why}")),
        }
        if let Source::V4l2 { device, .. } = &camera.source {
            if !device.starts_with("/dev/v4l") {
                findings.add(
                    format!("camera {}", camera.id),
                    Verdict::Warn,
                    format!(
                        "{} may be another camera after a reboot; `vedetta cameras` shows its stable name",
                        device.display()
                    ),
                );
            }
        }
    }
}

fn bundle(config: &Config, findings: &mut Findings) {
    match Bundle::open(&config.model.bundle, &Limits::default()) {
        Ok(bundle) => {
            let manifest = bundle.manifest();
            findings.add(
                "bundle",
                Verdict::Ok,
                format!(
                    "{}, {} px, language {}, hashes good",
                    bundle.id(),
                    manifest.image.size_px,
                    manifest.language
                ),
            );
        }
        Err(error) => findings.add("bundle", Verdict::Fail, error.to_string()),
    }
}

fn broker(config: &Config, findings: &mut Findings) {
    let mqtt = &config.mqtt;
    let address = format!("{}:{}", mqtt.host, mqtt.port);
    let resolved = (mqtt.host.as_str(), mqtt.port).to_socket_addrs();
    let target = match resolved.map(|mut addresses| addresses.next()) {
        Ok(Some(target)) => target,
        Ok(None) => {
            return findings.add(
                "broker",
                Verdict::Fail,
                format!("{address}: the name has no address"),
            );
        }
        Err(error) => {
            return findings.add(
                "broker",
                Verdict::Fail,
                format!("{address}: {error}; check mqtt.host and the network's name server"),
            );
        }
    };
    match TcpStream::connect_timeout(&target, CONNECT) {
        Ok(_) => findings.add(
            "broker",
            Verdict::Ok,
            format!("{address} accepts connections{}", if mqtt.tls.is_some() { ", TLS configured" } else { "" }),
        ),
        Err(error) => findings.add(
            "broker",
            Verdict::Fail,
            format!("{address}: {error}; is the broker running and the port open? Events are kept on disk meanwhile"),
        ),
    }
    if mqtt.tls.is_none() && mqtt.credentials.is_some() && !target.ip().is_loopback() {
        findings.add(
            "broker",
            Verdict::Warn,
            "the password crosses the network in clear text; set mqtt.tls",
        );
    }
}

fn disk(state_dir: &Path, findings: &mut Findings) {
    let probe = state_dir.join(".vedetta-check");
    let written = std::fs::create_dir_all(state_dir)
        .and_then(|()| std::fs::write(&probe, b"check"))
        .and_then(|()| std::fs::remove_file(&probe));
    if let Err(error) = written {
        return findings.add(
            "disk",
            Verdict::Fail,
            format!(
                "{}: {error}; events would live in memory only: set state_dir",
                state_dir.display()
            ),
        );
    }
    match rustix::fs::statvfs(state_dir) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let text = format!("{}: writable, {} MB free", state_dir.display(), free >> 20);
            let enough = free >= ENOUGH_SPACE_BYTES;
            findings.add(
                "disk",
                if enough { Verdict::Ok } else { Verdict::Warn },
                text,
            );
        }
        Err(error) => findings.add(
            "disk",
            Verdict::Warn,
            format!("{}: {error}", state_dir.display()),
        ),
    }
}

fn machine(findings: &mut Findings) {
    let synchronised = Path::new("/run/systemd/timesync/synchronized").exists();
    if synchronised {
        findings.add("clock", Verdict::Ok, "synchronised");
    } else {
        findings.add(
            "clock",
            Verdict::Warn,
            "not known to be synchronised; events will say \"clock\":\"unsynced\" (enable systemd-timesyncd)",
        );
    }
    let vitals = Probes::default().read();
    match (vitals.temperature_c, vitals.throttled) {
        (_, Some(true)) => findings.add(
            "temperature",
            Verdict::Warn,
            "the board is throttling: cool it or lower rate_fps",
        ),
        (Some(degrees), _) => findings.add(
            "temperature",
            if degrees < HOT_C {
                Verdict::Ok
            } else {
                Verdict::Warn
            },
            format!("{degrees:.0} °C"),
        ),
        (None, _) => findings.add("temperature", Verdict::Ok, "no sensor to read"),
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    findings.add(
        "processor",
        Verdict::Ok,
        format!("{cores} core(s), {}", features().join(" ")),
    );
    let watchdog = std::env::var_os("WATCHDOG_USEC").is_some();
    let supervised = std::env::var_os("NOTIFY_SOCKET").is_some();
    if supervised && !watchdog {
        findings.add(
            "systemd",
            Verdict::Warn,
            "no WatchdogSec in the unit: a hang would not be noticed",
        );
    }
}

/// What the encoders' kernels can use.
fn features() -> Vec<&'static str> {
    let mut found = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    for (name, there) in [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        (
            "avx512vnni",
            std::arch::is_x86_feature_detected!("avx512vnni"),
        ),
    ] {
        if there {
            found.push(name);
        }
    }
    #[cfg(target_arch = "aarch64")]
    for (name, there) in [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        (
            "dotprod",
            std::arch::is_aarch64_feature_detected!("dotprod"),
        ),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ] {
        if there {
            found.push(name);
        }
    }
    found
}

fn print(findings: &Findings, as_json: bool) {
    let colored = std::io::stdout().is_terminal();
    let mut out = String::new();
    for finding in &findings.0 {
        let (word, color) = match finding.verdict {
            Verdict::Ok => ("ok", 32),
            Verdict::Warn => ("warn", 33),
            Verdict::Fail => ("FAIL", 31),
        };
        let _ = if as_json {
            let line = serde_json::json!({
                "check": finding.what, "verdict": word.to_lowercase(), "message": finding.text,
            });
            writeln!(out, "{line}")
        } else if colored {
            writeln!(
                out,
                "\x1b[{color};1m{word:>4}\x1b[0m  {:<16} {}",
                finding.what, finding.text
            )
        } else {
            writeln!(out, "{word:>4}  {:<16} {}", finding.what, finding.text)
        };
    }
    print!("{out}");
}
