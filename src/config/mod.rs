//! The checked configuration: what the pipeline sees. Its stages are `source` (text to a tree that
//! knows its lines), `overrides`, `raw` (the serde mirror), `checked`, and back again `effective`.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

mod checked;
mod defaults;
mod effective;
mod environment;
mod id;
mod load;
mod overrides;
mod problem;
mod raw;
mod read;
mod source;
#[cfg(test)]
mod tests;

pub use environment::{Environment, NoBundle, listed_places};
pub use id::Id;
pub use load::Loaded;
pub use problem::{ConfigError, Problem};

use crate::bundle::signature::PublicKey;
use crate::encoder::Backend;
use crate::frame::PixelFormat;

/// A probability, 0–1, finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Probability(f32);

impl Probability {
    /// Checks `value`; `None` outside 0–1 and for NaN.
    pub fn new(value: f32) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The value, 0–1.
    pub fn get(self) -> f32 {
        self.0
    }
}

/// Everything the daemon needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Device id; defaults to the host name, made legal.
    pub device: Id,
    /// Human name of the device; defaults to the id.
    pub device_name: String,
    /// Where state is kept: outbox, label bank cache, run-time settings.
    pub state_dir: PathBuf,
    /// The model.
    pub model: Model,
    /// How another model gets here.
    pub update: Update,
    /// At least one.
    pub cameras: Vec<Camera>,
    /// At least one; zones refer to them by index.
    pub labels: Vec<Label>,
    /// Prompts that compete with every label.
    pub negatives: Negatives,
    /// Broker and topics.
    pub mqtt: Mqtt,
    /// The disk outbox.
    pub outbox: Outbox,
    /// What is done about heat.
    pub heat: Heat,
    /// Default log filter; `RUST_LOG` overrides it.
    pub log_level: log::LevelFilter,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Bundle directory or `.tar.zst`.
    pub bundle: PathBuf,
    /// Where the bundle lies that vedetta comes with, when the configuration names none: an installed
    /// one goes before it. `None` when the configuration names the bundle.
    pub shipped: Option<PathBuf>,
    /// What `vedetta-train calibrate` made for this bundle and these labels.
    pub calibration: Option<PathBuf>,
    /// Threads the image encoder may use; the default leaves a core free.
    pub threads: NonZeroUsize,
    /// What the image encoder runs on.
    pub backend: Backend,
}

impl Model {
    /// Whether the bundle comes from the store.
    pub fn is_installed(&self) -> bool {
        self.shipped
            .as_ref()
            .is_some_and(|path| *path != self.bundle)
    }

    /// Uses `installed`, or the bundle that vedetta comes with; a bundle that the configuration names
    /// stays.
    pub fn follow(&mut self, installed: Option<PathBuf>) {
        if let Some(shipped) = &self.shipped {
            self.bundle = installed.unwrap_or_else(|| shipped.clone());
        }
    }
}

/// `[update]`: which bundles may be installed.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The key that bundles have to be signed with.
    pub public_key: Option<PublicKey>,
    /// Off installs what nobody signed.
    pub require_signature: bool,
    /// Certificate authorities of the servers that bundles are downloaded from, PEM.
    pub ca_file: PathBuf,
    /// How long a bundle has to work until it is kept.
    pub trial: Duration,
}

/// One `[[camera]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// Unique among cameras.
    pub id: Id,
    /// Human name; defaults to the id.
    pub name: String,
    /// Where frames come from.
    pub source: Source,
    /// Frames looked at per second at most; fresher ones replace older ones.
    pub rate_fps: f32,
    /// At least one; the default is one zone, the whole frame, named like the camera.
    pub zones: Vec<Zone>,
    /// Change gate.
    pub gate: Gate,
    /// No frame for this long: `stalled`, and the device is reopened.
    pub stall_after: Duration,
    /// What is usual is learned, and only what stands out from it turns ON; `None` is off.
    pub baseline: Option<BaselineRule>,
    /// Bit-identical frames for this long: `stalled`. `None` for a replay, whose photos stand still.
    pub frozen_after: Option<Duration>,
}

/// `[camera.baseline]`, when it is enabled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BaselineRule {
    /// Standard deviations over the usual score, in logits, from which a label stands out, 1–20.
    pub deviations: f32,
    /// After this time what was learned before counts 1/e.
    pub forget_after: Duration,
}

/// Where a camera's frames come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A V4L2 device.
    V4l2 {
        /// `/dev/videoN` or a stable name under `/dev/v4l/by-id/`.
        device: PathBuf,
        /// Wanted format; `None` picks the best the device offers.
        format: Option<PixelFormat>,
        /// Wanted width and height; `None` picks.
        size_px: Option<(u32, u32)>,
    },
    /// A folder of JPEG and PNG images, in name order.
    Replay {
        /// The folder.
        folder: PathBuf,
        /// Images per second.
        rate_fps: f32,
        /// Start again after the last one; otherwise the source ends and the camera is `lost`.
        repeat: bool,
    },
}

/// The change gate: frames that look like the last encoded one are not encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Off encodes every frame.
    pub enabled: bool,
    /// Mean absolute luma difference, 0–1, of the most changed cell that counts as a change.
    pub threshold: f32,
    /// Encode at least this often, changed or not.
    pub force_every: Duration,
    /// Mean luma, 0–1, under which the picture counts as dark.
    pub dark_below: f32,
}

/// One `[[camera.zone]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Unique over all cameras.
    pub id: Id,
    /// Human name; defaults to the id.
    pub name: String,
    /// Which part of the frame.
    pub shape: Shape,
    /// Indices into [`Config::labels`]; the default is all of them.
    pub labels: Vec<usize>,
}

/// Part of a frame, in fractions of its width and height (0–1, origin top left).
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// The whole frame.
    Full,
    /// A rectangle inside the frame.
    Rectangle {
        /// Left edge.
        x: f32,
        /// Top edge.
        y: f32,
        /// Width, > 0.
        width: f32,
        /// Height, > 0.
        height: f32,
    },
    /// 3–32 corners; what is outside of it within its bounding box is filled with the mean colour.
    Polygon(Vec<[f32; 2]>),
}

/// One `[[label]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The slug that stands in topics.
    pub id: Id,
    /// What it is made of.
    pub prompts: PromptSource,
    /// Labels of one group exclude each other.
    pub group: Option<Id>,
    /// Thresholds and times.
    pub rule: Rule,
}

/// What a label's prompts are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum PromptSource {
    /// A noun with or without its article, `mela` or `una mela rossa`; templates are made around it.
    Noun(String),
    /// Whole prompts, used as they are; at least one.
    Prompts(Vec<String>),
}

/// How scores become states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Median probability at which a label starts to count as there.
    pub enter: Probability,
    /// Median probability under which it starts to count as gone; at most `enter`.
    pub leave: Probability,
    /// It has to stay over (or under) for this long before the state changes.
    pub dwell: Duration,
    /// Median window in encoded frames, odd, 1–31.
    pub window: usize,
}

impl Default for Rule {
    /// What a label has where nothing is said.
    fn default() -> Self {
        let probability = |value| Probability(checked::narrow(value));
        Self {
            enter: probability(defaults::ENTER),
            leave: probability(defaults::leave_for(defaults::ENTER)),
            dwell: Duration::from_secs_f64(defaults::DWELL_S),
            window: usize::try_from(defaults::WINDOW).unwrap_or(1),
        }
    }
}

impl Rule {
    /// The leave threshold that goes with an enter threshold that is changed at run time: 0.2
    /// under it, but never under half of it.
    pub fn leave_for(enter: Probability) -> Probability {
        let leave = checked::narrow(defaults::leave_for(f64::from(enter.0)));
        Probability(leave.min(enter.0))
    }
}

/// `[negatives]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Negatives {
    /// Whether the built-in Italian set is used.
    pub builtin: bool,
    /// Prompts added to it.
    pub extra: Vec<String>,
}

/// `[mqtt]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mqtt {
    /// Broker host name or address.
    pub host: String,
    /// TCP port; 1883, with TLS 8883.
    pub port: u16,
    /// Protocol.
    pub version: MqttVersion,
    /// Unique per device; defaults to `vedetta-<device>`.
    pub client_id: String,
    /// First part of every topic, 1–4 levels of ids.
    pub topic_prefix: String,
    /// Login.
    pub credentials: Option<Credentials>,
    /// TLS.
    pub tls: Option<Tls>,
    /// Keep-alive.
    pub keep_alive: Duration,
    /// Home Assistant discovery prefix; `None` turns discovery off.
    pub discovery_prefix: Option<String>,
    /// Publish a JPEG with each `confirmed` event.
    pub evidence: bool,
    /// How often `B/health` is published.
    pub health_every: Duration,
    /// Commands that may be given; the default is all of them.
    pub commands: Vec<CommandName>,
}

/// MQTT protocol level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

/// Login. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password, already read from its file or variable.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// TLS files, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate authorities to trust.
    pub ca_file: PathBuf,
    /// Client certificate chain and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Commands a broker may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandName {
    /// Publish a picture of a camera now.
    Snapshot,
    /// Read the configuration file again.
    Reload,
    /// Replace labels or thresholds at run time.
    Set,
    /// Stop or resume deciding.
    Pause,
    /// Download a bundle and use it.
    InstallBundle,
    /// Use the bundle before again.
    RollbackBundle,
}

/// `[heat]`: when fewer frames are looked at because the board is hot; see [`crate::heat`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heat {
    /// Off leaves the board to itself.
    pub enabled: bool,
    /// Temperature at which the rate is halved, °C; `None` is 10 under what the kernel throttles at, for
    /// each thermal zone its own, 70 where it does not say.
    pub start_c: Option<f32>,
    /// So many degrees more halve it again, twice.
    pub step_c: f32,
    /// So many degrees under where a step began it ends.
    pub hysteresis_c: f32,
}

/// `[outbox]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// Events kept at most; the oldest is dropped and counted.
    pub max_events: usize,
    /// Bytes kept at most.
    pub max_bytes: u64,
    /// Events older than this are dropped and counted.
    pub expire_after: Duration,
}
